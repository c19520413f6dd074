"""`Context`: state that all connections of an event loop share, and the timer of their timeouts."""

import asyncio
import contextvars
import random
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from ..config.config import Config
from ..http import parsers, request
from ..http.client import FORWARDED_HEADERS, ClientInfo
from ..http.memo import Memo
from ..http.parsers import Parser
from ..http.request import RequestLine
from ..server_log import logger
from ..typing import App, Headers
from . import refusal, timeouts
from .default_headers import default_headers
from .exchange import Exchange
from .first_step import FINISHED, resume
from .hooks import NO_HOOKS, Hooks, shielded
from .states import COMPLETE, ServerState

if TYPE_CHECKING:
    from ..proxy.forwarded import Forwarded
    from ..proxy.trust import Trust
    from .http2.shared import Shared
    from .request_id import RequestIds

#: Since Python 3.12 a task can start eagerly. So an app that never waits finishes in the call that
#: reads its request.
EAGER = sys.version_info >= (3, 12)
_Task: Any = asyncio.Task
if sys.version_info >= (3, 12):
    _Task = partial(asyncio.Task, eager_start=True)

#: Maximum number of log lines about client errors in a second.
MAX_ERROR_LINES = 20
#: Connections to check for timeouts in one iteration of the event loop.
SLICE = 200


class ManagedConnection(Protocol):
    """The interface that context and server need from a connection."""

    @property
    def fresh(self) -> bool:
        """Nothing has arrived yet."""

    @property
    def busy(self) -> bool:
        """It has an exchange, or data that the peer has not read."""

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not read, as far as is known."""

    def fileno(self) -> int:
        """Return the descriptor of its socket, or a negative number without a socket."""

    def check_timeouts(self, ticks: int) -> None:
        """Apply the timeouts."""

    def stop(self) -> None:
        """Close now if idle, otherwise after the running exchange."""

    def close(self) -> None:
        """Close now."""


def create_parser(config: Config) -> Parser:
    """Return the HTTP parser that `config` selects. Raises OptionError if it is not installed."""
    try:
        return parsers.create_parser(config.http)
    except ImportError:
        hint = f"needs {config.http}: pip install {config.http}"
        raise config.error("http", config.http, hint) from None


def _request_lines(root_path: str) -> Memo[bytes, RequestLine]:
    return Memo(partial(request.parse_request_line, root_path=root_path), 256, longest=256)


def _request_limit(config: Config) -> int:
    """Return the number of exchanges until the server stops; 0: unlimited."""
    if not config.limit_max_requests:
        return 0
    return config.limit_max_requests + random.randint(0, config.limit_max_requests_jitter)


def _request_ids(config: Config) -> "RequestIds | None":
    if config.request_id_header is None:
        return None
    from .request_id import RequestIds  # an optional feature

    return RequestIds(config.request_id_header)


class Context:
    """One app on one event loop.

    A timer counts seconds in `ticks` while there are connections, so an idle server does not wake
    up. If the loop was blocked, a late tick counts once: a peer does not time out because of the
    server's own delay.
    """

    # Slots are faster than so many attributes in a dict: 1,200 instructions for each GET.
    # fmt: off
    __slots__ = (
        "__dict__",  # for `trust`, `forwarded` and `http2`
        "_errors", "_hooks", "_on_error", "_on_tick", "_requests_left", "_state", "_timer",
        "access", "app", "body_pace", "concurrency", "config", "connections", "defaults",
        "forwarding", "health_path", "keep_alive", "lifespan_state", "lines_below", "loop",
        "on_finish", "outside", "parser", "request_ids", "request_lines", "running", "stopping",
        "ticks", "timeouts", "unanswered", "variables", "write_pace", "write_timeout",
    )
    # fmt: on

    def __init__(
        self,
        app: App,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        hooks: Hooks = NO_HOOKS,
        parser: Parser | None = None,
        variables: contextvars.Context | None = None,
        lifespan_state: dict[str, Any] | None = None,
    ) -> None:
        """variables, lifespan_state: as lifespan startup has left them."""
        self.app = app
        self.config = config
        self.loop = loop
        self.parser = parser or create_parser(config)
        #: Context variables. Each request runs in a copy.
        self.variables = contextvars.copy_context() if variables is None else variables
        #: The `state` of the scope. Each request gets a copy.
        self.lifespan_state = {} if lifespan_state is None else lifespan_state
        #: For callbacks of the event loop, so that they do not run in the context of a request.
        self.outside = self.variables.copy()
        self.connections: set[ManagedConnection] = set()
        self.running: set[Exchange] = set()
        #: Running exchanges without a complete response, counted only for `limit_concurrency`.
        self.unanswered = 0
        self._state = ServerState.SERVING
        #: Connections are kept alive after a response. False from LEAVING on.
        self.keep_alive = config.timeout_keep_alive != 0
        #: Streaming responses and idle connections end. True from STOPPING on.
        self.stopping = False
        #: The headers in which trusted peers describe their clients.
        fields = FORWARDED_HEADERS[config.forwarded_fields] if config.proxy_headers else ()
        self.forwarding = frozenset(fields)
        self.request_ids = _request_ids(config)
        #: Maximum number of unanswered exchanges; 0: unlimited.
        self.concurrency = config.limit_concurrency
        #: Path of the health check, which is exempt from that limit.
        self.health_path = config.health_path
        #: Exchanges until the server stops; 0: unlimited, or reached.
        self._requests_left = _request_limit(config)
        self._hooks = hooks
        #: Called with each exchange that has ended or was refused; None if nothing observes them.
        self.access = None if hooks.access is None else shielded(hooks.access)
        #: Called with each exchange that is COMPLETE or LOST, if something depends on that.
        self.on_finish = self._count_finished if self.access or self.concurrency else None
        self._on_error = shielded(hooks.on_error)
        self._on_tick = shielded(hooks.on_tick)
        self.ticks = 0
        self.timeouts = timeouts.timeouts(config)
        self.write_timeout = timeouts.ticks(config.timeout_write)
        self.body_pace = timeouts.pace(config.min_rate_body, config.timeout_body)
        self.write_pace = timeouts.pace(config.min_rate_write, config.timeout_write)
        self._timer: asyncio.TimerHandle | None = None
        self._errors = 0  # of clients in this second
        self.defaults = default_headers(config, time.time())
        #: Cache of parsed request lines.
        self.request_lines = _request_lines(config.root_path)
        #: Such caches for other root paths (`X-Forwarded-Prefix`).
        self.lines_below = Memo(_request_lines, 16, longest=256)

    @property
    def state(self) -> ServerState:
        """State of the server."""
        return self._state

    def enter(self, state: ServerState) -> None:
        """Enter a state of the server, unless a later one was reached already."""
        self._state = max(self._state, state)
        self.keep_alive = False
        self.stopping = self._state >= ServerState.STOPPING

    def on_gone(self) -> None:
        """Report that a connection, a handshake or an exchange has ended."""
        self._hooks.on_gone()

    # An app runs in its own context, and an event loop stores the current context with each
    # callback. A callback that may outlast the request is therefore registered outside of it.

    def run_outside(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in a copy of `outside`, because a callback may have entered `outside`."""
        self.outside.copy().run(function, *args)

    # Exchanges.

    def start(self, exchange: Exchange) -> None:
        """Run the app for an exchange, in a new task."""
        self.running.add(exchange)
        if self.concurrency:
            self.unanswered += 1
        if self.access is not None:
            exchange.started = time.perf_counter()
            exchange.client = exchange.stream.client
        # Not `loop.create_task`, which is slower.
        name, variables = exchange.line.text, self.variables.copy()
        exchange.task = _Task(self._run(exchange), loop=self.loop, name=name, context=variables)
        if EAGER:
            exchange.wait_begins()
        if self._requests_left and not exchange.is_health_check(self.health_path):
            self._requests_left -= 1
            if not self._requests_left:
                limit = self.config.limit_max_requests
                logger.info("stopping: --limit-max-requests (%d) reached", limit)
                self._hooks.on_stop()

    async def _run(self, exchange: Exchange) -> None:
        """Run the app. An exception, even SystemExit, ends only its own exchange."""
        app = self.app  # CPython 3.11 is slow to call the value of a slot
        try:
            if EAGER:
                await app(exchange.scope, exchange.receive, exchange.send)
            else:
                steps = app(exchange.scope, exchange.receive, exchange.send).__await__()
                awaited = next(steps, FINISHED)
                if awaited is not FINISHED:
                    exchange.wait_begins()
                    await resume(steps, awaited)
        except BaseException as error:
            self._report(exchange, exchange.ended(error))
            if self._state is ServerState.OVERDUE and isinstance(error, asyncio.CancelledError):
                self._on_error(exchange.line.text, error)
        else:
            if exchange.phase is not COMPLETE:
                self._report(exchange, exchange.ended(None))
        finally:
            self.running.discard(exchange)
            if self.concurrency and exchange.phase is not COMPLETE:
                self.unanswered -= 1  # the client has disconnected, but the app has run until now
            if not self.keep_alive:
                self.on_gone()

    def _report(self, exchange: Exchange, error: BaseException | None) -> None:
        if error is None:
            return
        logger.error("%s: exception in the app", exchange.line.text, exc_info=error)
        self._on_error(exchange.line.text, error)

    def _count_finished(self, exchange: Exchange) -> None:
        """Count a COMPLETE or LOST exchange, and write its access line."""
        if self.concurrency and exchange.phase is COMPLETE:
            self.unanswered -= 1
        if self.access is not None:
            self.access(exchange)

    def refused(self, peer: ClientInfo, head: bytes, status: int, answer: bytes) -> None:
        """Write the access line of a request that was refused before it became an exchange.

        head: the bytes that have arrived.
        """
        if self.access is not None:
            line, headers = refusal.read(head, self.request_lines, self.parser)
            client = self.client_info(headers, peer)
            sent = len(answer) - answer.index(b"\r\n\r\n") - 4
            self.access(refusal.Refusal(client, line, headers, status, sent))

    def log_refusal(self, refused: refusal.Refusal) -> None:
        """Write the access line of a refused request."""
        if self.access is not None:
            self.access(refused)

    def describe(self) -> list[str]:
        """Return a text for each running exchange. Another thread may call this."""
        running = list(self.running)
        others = len(self.connections) - len(running)
        return [exchange.line.text for exchange in running] + (
            [f"{others} connection{'s' * (others > 1)} to close"] if others > 0 else []
        )

    # Connections and their timeouts.

    @cached_property
    def trust(self) -> "Trust":
        """The peers that are trusted to forward client addresses."""
        from ..proxy.trust import Trust  # not before it is needed

        return Trust(self.config)

    @cached_property
    def forwarded(self) -> "Forwarded":
        """Reader of the headers in which a trusted peer describes its client."""
        from ..proxy.forwarded import Forwarded  # not before it is needed: 2 ms at start

        return Forwarded(self.trust, self.log_peer_error)

    @cached_property
    def http2(self) -> "Shared":
        """State of the HTTP/2 connections."""
        from .http2.shared import Shared  # an optional package

        return Shared(self)

    def client_info(self, headers: Headers, peer: ClientInfo) -> ClientInfo:
        """Return the client that a trusted peer names, otherwise the peer itself."""
        if self.forwarding.isdisjoint(dict(headers)) or not self.trust.trusts(peer.address):
            return peer
        return self.forwarded(peer, headers)

    def log_peer_error(self, peer: str, error: object) -> None:
        """Log an error of a peer, at most MAX_ERROR_LINES in a second."""
        self._errors += 1
        if self._errors <= MAX_ERROR_LINES:
            logger.warning("%s: %s", peer, error)

    def opened(self, connection: ManagedConnection) -> None:
        """Register a new connection."""
        self.connections.add(connection)
        if self._timer is None:
            self.defaults = default_headers(self.config, time.time())
            self._timer = self.loop.call_later(1.0, self._tick)

    def closed(self, connection: ManagedConnection) -> None:
        """Unregister a connection."""
        self.connections.discard(connection)
        self.on_gone()

    def _tick(self) -> None:
        assert self._timer is not None
        late = self.loop.time() - self._timer.when()
        self.ticks += 1
        self._timer = None
        self._log_more_errors()
        if self.connections:
            self.defaults = default_headers(self.config, time.time())
            self._timer = self.loop.call_later(1.0, self._tick)
            # After two iterations of the loop, all data that has arrived by now is read.
            connections = list(self.connections)
            self.loop.call_soon(self.loop.call_soon, self._check_timeouts, connections)
        self._on_tick(late)

    def close(self) -> None:
        """Cancel the timer. Call this when no connection is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._log_more_errors()

    def _log_more_errors(self) -> None:
        """Log how many errors were not logged in this second."""
        if (more := self._errors - MAX_ERROR_LINES) > 0:
            logger.warning("%d more client errors in the last second, not shown", more)
        self._errors = 0

    def _check_timeouts(self, waiting: list[ManagedConnection]) -> None:
        """Check a few connections in each iteration. Ten thousand at once would block the loop."""
        for connection in waiting[-SLICE:]:
            if connection in self.connections:
                connection.check_timeouts(self.ticks)
        del waiting[-SLICE:]
        if waiting:
            self.loop.call_soon(self._check_timeouts, waiting)
