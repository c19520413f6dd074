"""What the connections of one event loop share, and their one coarse clock."""

import asyncio
import contextvars
import random
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from .._version import __version__
from ..config.config import Config
from ..http import parsers, request
from ..http.client import FORWARDED_HEADERS, ClientInfo
from ..http.memo import Memo
from ..http.request import RequestLine
from ..http.response import DefaultHeaders
from ..server_log import logger
from ..typing import App, Headers
from . import refusal, timeouts
from .exchange import COMPLETE, Exchange

if TYPE_CHECKING:
    from ..proxy.forwarded import Forwarded
    from ..proxy.trust import Trust

__all__ = ["Context", "Swept"]

#: From Python 3.12 on a task can take its first step at once; an app that need not wait is done
#: with that.
_EAGER: Any = {"eager_start": True} if sys.version_info >= (3, 12) else {}

#: Most log lines a second about the faults of peers.
NOTES = 20
#: Connections that are judged in one turn of the loop.
SLICE = 200


def _lines(root_path: str) -> Memo[bytes, RequestLine]:
    return Memo(partial(request.parse_request_line, root_path=root_path), 256, longest=256)


class Swept(Protocol):
    """A connection as its context sees it."""

    @property
    def fresh(self) -> bool:
        """Nothing has arrived on it yet."""

    @property
    def busy(self) -> bool:
        """It must still send something, or carries an exchange."""

    @property
    def unsent(self) -> int:
        """0 when the peer has taken all that was written, as far as is known."""

    def fileno(self) -> int:
        """The descriptor of its socket, negative without one."""

    def sweep(self, ticks: int) -> None:
        """Gives up what has waited for too long."""

    def stop(self) -> None:
        """Closes at once when idle, else when the running exchange is complete."""

    def close(self) -> None:
        """Closes at once, whatever is running."""


class Context:
    """One app on one event loop.

    The clock counts seconds in `ticks` while there are connections and stands still otherwise: an
    idle server does not wake up. A tick that comes late because the loop was held up counts once,
    so no peer is given up for what the server itself has kept waiting.
    """

    # Slots are quicker to read than so many attributes in a dict: 1,200 instructions for each GET.
    # fmt: off
    __slots__ = (
        "__dict__",  # for `trust` and `forwarded`, and for a `start` that adds request ids
        "_failed", "_left", "_notes", "_timer", "access", "app", "body_pace", "concurrency",
        "config", "connections", "defaults", "forwarding", "health_path", "leaving", "limits",
        "lines_below", "loop", "on_error", "on_gone", "on_stop", "on_tick", "overdue", "parser",
        "request_lines", "running", "state", "stopping", "ticks", "unanswered", "variables",
        "write_pace",
    )
    # fmt: on

    def __init__(self, app: App, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.config = config
        self.loop = loop
        try:
            self.parser = parsers.create_parser(config.http)
        except ImportError:
            raise config.error(
                "http", config.http, f"needs {config.http}: pip install {config.http}"
            ) from None
        #: Each request runs in a copy of it; taken anew once lifespan startup is complete.
        self.variables = contextvars.copy_context()
        #: What lifespan startup left behind; each request gets a copy.
        self.state: dict[str, Any] = {}
        self.connections: set[Swept] = set()
        self.running: set[Exchange] = set()
        #: How many of them have no complete response yet; counted only for `limit_concurrency`.
        self.unanswered = 0
        #: No connection persists any more; those that are there get their next response.
        self.leaving = config.timeout_keep_alive == 0
        #: And whoever streams is told to end.
        self.stopping = False
        #: The headers in which trusted peers describe their clients.
        self.forwarding = frozenset(
            FORWARDED_HEADERS[config.forwarded_fields] if config.proxy_headers else ()
        )
        #: Exchanges that may be unanswered at once; 0 without that limit.
        self.concurrency = config.limit_concurrency
        #: The path that is answered whatever else is running.
        self.health_path = config.health_path
        #: Exchanges until the server stops by itself; 0 without that limit, or once it has.
        self._left = 0
        if config.limit_max_requests:
            jitter = random.randint(0, config.limit_max_requests_jitter)
            self._left = config.limit_max_requests + jitter
        #: Writes the access line of an exchange that is over or refused; None if nobody reads it.
        self.access: Callable[[Exchange], None] | None = None
        #: Called when the server is to stop.
        self.on_stop: Callable[[], None] = lambda: None
        #: Called with a request line and the exception that the app has ended it with.
        self.on_error: Callable[[str, BaseException], None] = lambda what, error: None
        #: Observers that have raised an exception, by their identity.
        self._failed: set[int] = set()
        #: The time for a stop is over: what still runs is being cancelled.
        self.overdue = False
        #: Called at each tick, with the seconds that it comes late.
        self.on_tick: Callable[[float], None] = lambda late: None
        #: Called when a connection or an exchange is gone.
        self.on_gone: Callable[[], None] = lambda: None
        self.ticks = 0
        #: How many ticks a connection may wait for what (`timeouts`).
        self.limits = timeouts.limits(config)
        self.body_pace = timeouts.pace(config.min_rate_body, config.timeout_body)
        self.write_pace = timeouts.pace(config.min_rate_write, config.timeout_write)
        self._timer: asyncio.TimerHandle | None = None
        self._notes = 0
        self.defaults = self._make_defaults()
        #: What is known of request lines.
        self.request_lines = _lines(config.root_path)
        #: The same below another root path.
        self.lines_below = Memo(_lines, 16, longest=256)

    # What an app calls runs in its context of variables, and an event loop keeps the current
    # context with each callback. So what may outlast a request is registered outside of it.

    @cached_property
    def outside(self) -> contextvars.Context:
        """For callbacks of the loop: no context of a request. First used after lifespan startup."""
        return self.variables.copy()

    def run_outside(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in a copy of `outside`, which may have been entered by a callback."""
        self.outside.copy().run(function, *args)

    # Exchanges.

    def start(self, exchange: Exchange) -> None:
        """Runs the app for an exchange, in a task of its own."""
        self.running.add(exchange)
        if self.concurrency:
            self.unanswered += 1
        if self.access is not None:
            exchange.started = time.perf_counter()
            exchange.client = exchange.connection.client
        # Not by `loop.create_task`: that goes a longer way to the same end.
        run, variables = self._run(exchange), self.variables.copy()
        name = exchange.line.text
        exchange.task = asyncio.Task(run, loop=self.loop, name=name, context=variables, **_EAGER)
        if self._left and not self.is_health_check(exchange):
            self._left -= 1
            if not self._left:
                logger.info("stopping after %d requests", self.config.limit_max_requests)
                self.on_stop()

    def is_health_check(self, exchange: Exchange) -> bool:
        """Tell whether the server answers this by itself; a WebSocket on the path is the app's."""
        return type(exchange) is Exchange and exchange.line.route == self.health_path

    async def _run(self, exchange: Exchange) -> None:
        """Run the app. Whatever it raises, even SystemExit, ends only its own exchange."""
        app = self.app  # CPython 3.11 is slow to call what is in a slot
        try:
            await app(exchange.scope, exchange.receive, exchange.send)
        except BaseException as error:
            self._report(exchange, exchange.ended(error))
            if self.overdue and isinstance(error, asyncio.CancelledError):
                self.observe(self.on_error, exchange.line.text, error)
        else:
            if exchange.phase < COMPLETE:
                self._report(exchange, exchange.ended(None))
        finally:
            self.running.discard(exchange)
            if self.concurrency and exchange.phase != COMPLETE:
                self.unanswered -= 1  # its client has left, and its work has ended only now
            if self.leaving:
                self.on_gone()

    def _report(self, exchange: Exchange, error: BaseException | None) -> None:
        if error is None:
            return
        logger.error("%s: the app failed", exchange.line.text, exc_info=error)
        self.observe(self.on_error, exchange.line.text, error)

    def finish(self, exchange: Exchange, phase: int) -> None:
        """Part a COMPLETE or LOST exchange from its connection, and write its access line."""
        exchange.leave(phase)
        if self.concurrency and phase == COMPLETE:
            self.unanswered -= 1
        if self.access is not None:
            self.observe(self.access, exchange)

    def refused(self, peer: ClientInfo, head: bytes, status: int, answer: bytes) -> None:
        """Write the access line of a request that did not become an exchange.

        head: as much as has arrived.
        """
        if self.access is not None:
            line, headers = refusal.read(head, self.request_lines, self.parser)
            client = self.client_info(headers, peer)
            self.observe(self.access, refusal.Refusal(client, line, headers, status, answer))

    def observe(self, observer: Callable[..., None], *args: object) -> None:
        """Call an observer, which must not affect what it observes.

        An exception that it raises is logged, the first one of each observer.
        """
        try:
            observer(*args)
        except BaseException as error:
            if id(observer) not in self._failed:
                self._failed.add(id(observer))
                logger.error(
                    "%r raised an exception, further ones are not logged", observer, exc_info=error
                )

    def describe(self) -> list[str]:
        """What runs, a text for each; another thread may ask."""
        running = list(self.running)
        others = len(self.connections) - len(running)
        return [exchange.line.text for exchange in running] + (
            [f"{others} connection{'s' * (others > 1)} to close"] if others > 0 else []
        )

    # Connections and the clock.

    @cached_property
    def trust(self) -> "Trust":
        """The peers that may describe their clients."""
        from ..proxy.trust import Trust  # not before it is needed

        return Trust(self.config)

    @cached_property
    def forwarded(self) -> "Forwarded":
        """Reads what a trusted peer says of its own client."""
        from ..proxy.forwarded import Forwarded  # not before it is needed: 2 ms at start

        return Forwarded(self.trust, self.note)

    def client_info(self, headers: Headers, peer: ClientInfo) -> ClientInfo:
        """The client of a trusted peer, or the peer itself, if the headers do not name one."""
        if self.forwarding.isdisjoint(dict(headers)) or not self.trust.of(peer.address):
            return peer
        return self.forwarded(peer, headers)

    def note(self, peer: str, fault: object) -> None:
        """Logs a peer's fault; a flood of them gives no more than NOTES lines a second."""
        self._notes += 1
        if self._notes <= NOTES:
            logger.warning("%s: %s", peer, fault)

    def opened(self, connection: Swept) -> None:
        """A connection has begun."""
        self.connections.add(connection)
        if self._timer is None:
            self.defaults = self._make_defaults()
            self._timer = self.loop.call_later(1.0, self._tick)

    def closed(self, connection: Swept) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.on_gone()

    def _tick(self) -> None:
        assert self._timer is not None
        late = self.loop.time() - self._timer.when()
        self.ticks += 1
        self._timer = None
        self._count_notes()
        if self.connections:
            self.defaults = self._make_defaults()
            self._timer = self.loop.call_later(1.0, self._tick)
            # Twice around the loop: what peers have sent by now is read before they are judged.
            self.loop.call_soon(self.loop.call_soon, self._sweep, list(self.connections))
        self.observe(self.on_tick, late)

    def close(self) -> None:
        """Cancel the timer. Call this when no connection is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._count_notes()

    def _count_notes(self) -> None:
        """Log how many faults of peers were not logged."""
        if self._notes > NOTES:
            logger.warning("%d more faults of peers in the last second", self._notes - NOTES)
        self._notes = 0

    def _sweep(self, waiting: list[Swept]) -> None:
        """Lets connections judge themselves, a few in a turn: ten thousand would hold others up."""
        for connection in waiting[-SLICE:]:
            if connection in self.connections:
                connection.sweep(self.ticks)
        del waiting[-SLICE:]
        if waiting:
            self.loop.call_soon(self._sweep, waiting)

    # What requests and responses have in common.

    def _make_defaults(self) -> DefaultHeaders:
        """The headers that responses get unless the app sets them."""
        headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in self.config.header
        ]
        names = {name for name, _ in headers}
        if self.config.date_header and b"date" not in names:
            headers.insert(0, (b"date", _imf_fixdate(time.time())))
        if self.config.server_header and b"server" not in names:
            headers.insert(0, (b"server", f"tinyasgi/{__version__}".encode()))
        return DefaultHeaders(headers)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _imf_fixdate(seconds: float) -> bytes:
    """RFC 9110 §5.6.7. Not by `email.utils`, whose import costs 10 ms and 2 MiB."""
    t = time.gmtime(seconds)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{day}, {t.tm_mday:02} {month} {t.tm_year} {clock} GMT".encode()
