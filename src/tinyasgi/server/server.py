"""`Server`: one app on one event loop: start, serve, drain, stop."""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..app import load
from ..app.lifespan import Lifespan
from ..config.config import Config
from ..logs.access import logger as access_logger
from ..logs.access import record_logger, without
from ..net import listen
from ..net.accept import Acceptor, let_loop_read
from ..protocols.context import Context
from ..protocols.exchange import Exchange
from ..server_log import logger
from ..typing import App
from .health import Health

if TYPE_CHECKING:
    from ..metrics.prometheus import Metrics
    from ..metrics.store import MetricsStore

__all__ = ["Server", "serve"]

#: Called with a function that returns what is waited for, a text for each, and the seconds for it.
OnWait: TypeAlias = Callable[[Callable[[], list[str]], float], None]

#: Seconds for what is cut short to come to its end.
LAST = 1.0
#: Seconds in which peers may close when all is done, and in which they may stop reading.
SETTLE, STALL = 0.15, 0.3
#: Seconds between two looks at that.
LOOK = 0.05
#: Seconds in which idle clients of a server that is replaced may send one more request.
LEAVE = 5.0


class Server:
    """An app served in the running event loop.

        async with Server(app, port=0) as server:
            print(server.url)

    On entry it is ready, on exit it has stopped as `config` says. app: an ASGI application of
    version 3 or 2, or a WSGI application. options: fields of `Config`. sockets: bound sockets to
    listen on instead of the configured address; they are closed at the end. access: called with
    each exchange that is over; by default it becomes a log record if `tinyasgi.access` is enabled
    for INFO when startup is complete. on_error: called with a request line, or the name of a
    lifespan event, and the exception with which the app has ended it; a CancelledError is that of a
    request that did not end in time for a stop.
    on_wait: called when a stop begins to wait, with a function that lists what for, and seconds.
    metrics_store: shared by the processes of one service; without it, a server with `metrics_bind`
    makes its own.

    It touches nothing but its loop: no signals, no logging set-up, no exit. Raises OptionError
    and LoadError when made; ListenError, LifespanFailed and OSError on entry; LifespanFailed on
    exit. An exception of a request, even SystemExit or KeyboardInterrupt, is not raised but logged.
    """

    def __init__(
        self,
        app: Any,
        config: Config | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        access: Callable[[Exchange], None] | None = None,
        on_error: Callable[[str, BaseException], None] = lambda what, error: None,
        on_wait: OnWait = lambda what, seconds: None,
        metrics_store: "MetricsStore | None" = None,
        **options: Any,
    ) -> None:
        self.config = (config or Config()).replace(**options).resolved()
        #: Released after the lifespan shutdown.
        self._beside = contextlib.AsyncExitStack()
        self._app: App = load.as_asgi3(app, self.config, self._beside)
        self._tls = None
        if self.config.speaks_tls:
            from ..tls import contexts  # not before it is needed: 3 ms at start

            self._tls = contexts.TLSContexts(self.config)
        if self.config.speaks_tls or self.config.proxy_protocol:
            from ..tls import extension

            self._app = extension.with_extension(self._app)
        self._sockets = list(sockets)
        self.files: list[str] = []
        """Of unix sockets, to be removed in the end."""
        self._health: Health | None = None
        if self.config.health_path is not None:
            self._app = self._health = Health(self._app, self.config)
        self._access = access
        self._log_record = record_logger(self.config)
        self._on_error = on_error
        self._on_wait = on_wait
        self.metrics_store = metrics_store
        """What is counted, once the server is ready; None without `metrics_bind`."""
        self._lifespan = Lifespan(self._app, self.config.lifespan, self._on_lifespan_error)
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()
        self._hurry = False
        self._replaced = False
        self._timeout: asyncio.Timeout | None = None
        self._page: Server | None = None  # serves the metrics
        self._page_end: asyncio.Task[None] | None = None  # of a server that leaves
        self.addresses: list[str] = []
        """Where the server listens, each a URL or `unix:PATH`."""
        self.host = ""
        """The first of the addresses without the rest of its URL; empty with a unix socket."""
        self.port = 0
        """The TCP port, the real one where 0 was asked for."""

    @property
    def parser(self) -> str:
        """The name of the HTTP parser in use."""
        return type(self._context.parser).__module__.rpartition(".")[2]

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that it listens on."""
        return self._sockets

    def descriptors(self) -> list[int]:
        """Of listening sockets and connections, for `forks`."""
        sockets = [
            *self._sockets,
            *(self.metrics_store.listeners if self.metrics_store is not None else ()),
        ]
        return [each.fileno() for each in (*sockets, *self._context.connections)]

    @property
    def url(self) -> str:
        """The first of the addresses."""
        return self.addresses[0]

    @property
    def ws_url(self) -> str:
        """The same for WebSocket: `ws` or `wss` instead of `http` or `https`."""
        return re.sub("^http", "ws", self.url)

    @property
    def app_state(self) -> dict[str, Any]:
        """What the app has put into `scope["state"]` in its lifespan startup."""
        return self._lifespan.state

    @property
    def metrics_url(self) -> str:
        """Where the metrics are: a URL or `unix:PATH`; empty without them."""
        return self.metrics_store.url if self.metrics_store is not None else ""

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        self._context = context = Context(self._app, self.config, loop)
        context.on_stop = self._stop.set
        context.on_error = self._on_error
        context.on_gone = self._on_gone
        self._acceptor = Acceptor(context, self._tls)
        if self.config.request_id_header is not None:
            from . import request_id  # not before it is needed

            request_id.install(context, self._acceptor)
        try:
            metrics = self._count() if self.config.metrics_bind is not None else None
            if not self._sockets:
                self._sockets = listen.bind(self.config)
                self.files = listen.socket_files(self._sockets)
            self.addresses = [listen.address(sock, self._tls is not None) for sock in self._sockets]
            if self._sockets[0].family != socket.AF_UNIX:
                self.host, self.port = self._sockets[0].getsockname()[:2]
            await self._lifespan.startup()
            context.variables = self._lifespan.variables
            context.state = self._lifespan.state
            context.access = self._find_access(metrics)
            for sock in self._sockets:
                await self._acceptor.listen(sock)
            if metrics is not None:
                self._page = await self._make_page(metrics).__aenter__()
        except BaseException:
            await self._end_app()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._drain()
        finally:
            await self._end_app()

    def _find_access(self, metrics: "Metrics | None") -> Callable[[Exchange], None] | None:
        """What observes exchanges that are over; the app may have set up logging by now."""
        access = self._access
        if access is None and self.config.access_log and access_logger.isEnabledFor(logging.INFO):
            access = self._log_record
        if access is not None and self.config.access_log_exclude:
            access = without(self.config, access)
        if metrics is not None:
            access = metrics.counting(access)
        if access is not None and self._health is not None:
            access = _without_health_checks(self._context, access)
        return access

    def _count(self) -> "Metrics":
        """Lets what happens be counted. Raises ListenError."""
        from ..metrics.prometheus import Metrics
        from ..metrics.store import MetricsStore

        if self.metrics_store is None:
            self.metrics_store = MetricsStore.create(self.config, shard=1)
            self._beside.callback(self.metrics_store.close)
        return Metrics(self._context, self._acceptor, self.metrics_store)

    def _make_page(self, metrics: "Metrics") -> "Server":
        """The server that shows what is counted, for one whose app is up."""
        from ..metrics.store import page_config

        metrics.app_started()
        assert self.metrics_store is not None
        return Server(metrics.page, page_config(self.config), sockets=self.metrics_store.listeners)

    async def stopped(self) -> None:
        """Waits until the server is to stop; leaving the context then stops it."""
        await self._stop.wait()

    def stop(self) -> None:
        """Makes `stopped` return."""
        self._replaced = False
        self._stop.set()
        self._gone.set()
        if self._page is not None:
            self._page.stop()

    def leave(self) -> None:
        """Like `stop`, for a server whose place another one has taken on the same sockets.

        Idle clients have the time for one more request, whose response tells them to come anew:
        a connection that closes as a request arrives would fail it.
        """
        self._replaced = True
        self._stop.set()
        if self._page is not None:
            self._page.leave()

    def quit(self) -> None:
        """Like `stop`, and cuts short what a stop would wait for."""
        self._hurry = True
        self._stop.set()
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())
        if self._page is not None:
            self._page.quit()

    def _on_lifespan_error(self, what: str, error: BaseException) -> None:
        self._context.observe(self._on_error, what, error)

    # Accepting.

    async def take(self, sockets: Sequence[socket.socket]) -> None:
        """Listens on further sockets, which are closed at the end."""
        for sock in sockets:
            self._sockets.append(sock)
            await self._acceptor.listen(sock)

    def give_back(self, sock: socket.socket) -> None:
        """End a `take`: another process accepts from this socket."""
        if sock in self._sockets:
            self._sockets.remove(sock)
            self._acceptor.release(sock)

    def _on_gone(self) -> None:
        """A connection or an exchange has ended."""
        self._gone.set()
        self._acceptor.resume()

    # Stopping.

    async def _drain(self) -> None:
        """Ends all connections and exchanges; when it returns, none is left but for a log line."""
        context = self._context
        context.leaving = True
        if self._health is not None:
            self._health.stopping = not self._replaced
        if self._replaced:
            if self._page is not None:  # it has the same time for requests that are on their way
                self._page_end = context.loop.create_task(self._page.__aexit__(None, None, None))
            await self._acceptor.finish()
            await self._within(LEAVE, self._until_left(), context.describe)
        elif (delay := self.config.shutdown_delay) and not self._hurry:
            await self._within(delay, asyncio.Event().wait(), lambda: ["the shutdown delay"])
            await self._acceptor.finish()
            await self._within(LAST, self._until_asked(), context.describe)
        await self._acceptor.finish()
        for handshake in self._acceptor.handshakes:
            handshake.cancel()
        context.stopping = True
        await let_loop_read()
        for connection in list(context.connections):
            connection.stop()
        grace = 0 if self._hurry else self.config.timeout_graceful_shutdown
        if not await self._within(grace, self._until_settled(), context.describe):
            context.overdue = grace > 0 and not self._hurry
            if context.overdue and (late := context.describe()):
                logger.warning("not ended within %g s: %s", grace, ", ".join(late))
            for exchange in list(context.running):
                exchange.cancel()
            await self._within(LAST, self._until_settled(), context.describe)
            if context.running:
                logger.warning("%d requests did not end when cancelled", len(context.running))
        for connection in list(context.connections):
            connection.close()
        await self._within(LAST, self._until(lambda: not context.connections), context.describe)

    async def _until_left(self) -> None:
        """Until all clients are gone, or the server is to stop after all."""
        context = self._context
        present: tuple[set[Any], ...]
        present = context.connections, context.running, self._acceptor.handshakes
        await self._until(lambda: not (self._replaced and any(present)))

    async def _until_asked(self) -> None:
        """Until whoever has come has asked for something: a request may be on its way."""
        connections, acceptor = self._context.connections, self._acceptor
        await self._until(lambda: not (acceptor.handshakes or any(c.fresh for c in connections)))

    async def _until_settled(self) -> None:
        """Until nothing runs, and peers that have not left yet do not read any more either.

        Such a peer has sent half a head, does not answer a Close frame, or goes on sending.
        """
        context, loop = self._context, asyncio.get_running_loop()
        since, left = loop.time(), self._left()
        while context.connections or context.running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._until(lambda: not (context.connections or context.running))
            before, left = left, self._left()
            if left is None or left != before:
                since = loop.time()
            elif loop.time() - since > (STALL if left else SETTLE):
                break

    def _left(self) -> int | None:
        """Bytes that peers have still to read if nothing else is to be done, else None."""
        context = self._context
        if context.running or any(connection.busy for connection in context.connections):
            return None
        return sum(connection.unsent for connection in context.connections)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Until something holds; the end of a connection or an exchange may have changed it."""
        while not holds():
            self._gone.clear()
            await self._gone.wait()

    async def _within(
        self, seconds: float, work: Awaitable[object], what: Callable[[], list[str]]
    ) -> bool:
        """Whether work ends in time; `quit` makes the time short. what: is waited for."""
        try:
            limit = min(seconds, LAST) if self._hurry else seconds
            self._context.observe(self._on_wait, what, limit)
            async with asyncio.timeout(limit) as self._timeout:
                await work
        except TimeoutError:
            return False
        finally:
            self._timeout = None
        return True

    async def _end_app(self) -> None:
        """Shuts the app down, as far as it is up, and closes what was opened for it."""
        try:
            seconds = max(self.config.timeout_graceful_shutdown, LAST)
            shutdown = self._lifespan.shutdown()
            if not await self._within(seconds, shutdown, lambda: ["the lifespan shutdown"]):
                level = logging.WARNING if self._hurry else logging.ERROR
                logger.log(level, "lifespan shutdown did not end in time")
        finally:
            await self._lifespan.cancel()
            await self._end_page()
            await self._beside.aclose()
            self._close()

    async def _end_page(self) -> None:
        """Stop the metrics page. If the server leaves, that has begun before."""
        if self._page is not None:
            end = self._page_end or self._page.__aexit__(None, None, None)
            self._page_end = None
            await self._within(LEAVE + LAST, end, self._page._context.describe)

    def _close(self) -> None:
        self._acceptor.stop()
        self._context.close()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        listen.remove_files(self.files)


def _without_health_checks(
    context: Context, access: Callable[[Exchange], None]
) -> Callable[[Exchange], None]:
    def hook(exchange: Exchange) -> None:
        if not context.is_health_check(exchange):
            access(exchange)

    return hook


async def serve(app: Any, config: Config | None = None, **options: Any) -> None:
    """Serves an app in the running loop until the task is cancelled or the server stops.

    Arguments and errors as for `Server`.
    """
    async with Server(app, config, **options) as server:
        await server.stopped()
