"""`Server`: startup, serving and graceful shutdown of one app on one event loop."""

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable, Sequence, Set
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..app import load
from ..app.lifespan import Lifespan
from ..config.config import Config
from ..logs.access import exchange_filter, record_logger
from ..logs.access import logger as access_logger
from ..net import listen
from ..net.accept import Acceptor
from ..protocols.context import Context, ManagedConnection, create_parser
from ..protocols.exchange import Exchange
from ..protocols.hooks import Hooks, ignore, shielded
from ..protocols.states import ServerState
from ..typing import App
from .health import Health
from .shutdown import LAST, LEAVE, OnWait, Shutdown

if TYPE_CHECKING:
    from ..metrics.prometheus import Metrics
    from ..metrics.store import MetricsStore


class Server:
    """Server of one app. It runs in the current event loop for the duration of a block.

        async with Server(app, port=0) as server:
            print(server.url)

    The server is ready on entry, and has shut down gracefully on exit.

    app: an ASGI application of version 3 or 2, or a WSGI application. options: fields of `Config`
    that override `config`. sockets: bound sockets to listen on instead of the configured address;
    they are closed at the end.

    access: called with each finished exchange. By default the server logs a record if the logger
    `tinyasgi.access` is enabled for INFO after startup. on_error: called with a request line, or
    the name of a lifespan event, and with the exception that the app raised. A CancelledError means
    that the request did not finish within the graceful shutdown timeout. on_wait: called when
    shutdown begins to wait, with a function that lists what it waits for, and the limit in seconds.
    metrics_store: shared by the processes of one service; by default a server with `metrics_bind`
    creates its own.

    The server does not change signal handlers or logging, and does not exit the process. The
    constructor raises OptionError and LoadError. Entry raises ListenError, LifespanFailed and
    OSError. Exit raises LifespanFailed. Exceptions of requests, even SystemExit and
    KeyboardInterrupt, are logged, not raised.
    """

    def __init__(
        self,
        app: Any,
        config: Config | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        access: Callable[[Exchange], None] | None = None,
        on_error: Callable[[str, BaseException], None] = ignore,
        on_wait: OnWait = ignore,
        metrics_store: "MetricsStore | None" = None,
        **options: Any,
    ) -> None:
        self.config = (config or Config()).replace(**options).resolved()
        #: Resources of the server, which are released after lifespan shutdown.
        self._beside = contextlib.AsyncExitStack()
        self._app: App = load.as_asgi3(app, self.config, self._beside)
        self._parser = create_parser(self.config)
        self._tls = None
        if self.config.speaks_tls:
            from ..tls import contexts  # an optional package: 3 ms at start

            self._tls = contexts.TLSContexts(self.config)
        if self.config.speaks_tls or self.config.proxy_protocol:
            from ..tls import extension

            self._app = extension.with_extension(self._app)
        self._sockets = list(sockets)
        self.files: list[str] = []
        """Paths of unix sockets, which are removed at the end."""
        if self.config.health_path is not None:
            self._app = Health(self._app, self.config.health_path, self._fails_health_checks)
        self._access = access
        self._log_record = record_logger(self.config)
        self._on_error = shielded(on_error)
        self.metrics_store = metrics_store
        """The metrics, once the server is ready; None without `metrics_bind`."""
        self._lifespan = Lifespan(self._app, self.config.lifespan, self._on_error)
        self.connections: Set[ManagedConnection] = set()
        """The open connections."""
        self.running: Set[Exchange] = set()
        """The requests that are running."""
        self._shutdown = Shutdown(self.config, shielded(on_wait))
        self._page: Server | None = None  # serves the metrics
        self._page_end: asyncio.Task[None] | None = None  # stops the page after `leave`
        self.addresses: list[str] = []
        """The addresses of the listeners, each a URL or `unix:PATH`."""
        self.host = ""
        """Host of the first address; empty for a unix socket."""
        self.port = 0
        """TCP port of the first address; 0 for a unix socket."""

    @property
    def parser(self) -> str:
        """Name of the HTTP parser in use."""
        return type(self._parser).__module__.rpartition(".")[2]

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listeners."""
        return self._sockets

    def descriptors(self) -> list[int]:
        """Return the descriptors of listeners and connections, for `forks`."""
        pages = self.metrics_store.listeners if self.metrics_store is not None else ()
        return [each.fileno() for each in (*self._sockets, *pages, *self.connections)]

    @property
    def url(self) -> str:
        """The first address."""
        return self.addresses[0]

    @property
    def ws_url(self) -> str:
        """The first address for WebSocket: `ws` or `wss` instead of `http` or `https`."""
        return re.sub("^http", "ws", self.url)

    @property
    def app_state(self) -> dict[str, Any]:
        """The `scope["state"]` of the app's lifespan."""
        return self._lifespan.state

    @property
    def metrics_url(self) -> str:
        """Address of the metrics: a URL or `unix:PATH`; empty without metrics."""
        return self.metrics_store.url if self.metrics_store is not None else ""

    # Starting.

    async def __aenter__(self) -> "Server":
        try:
            metrics = self._create_metrics() if self.config.metrics_bind is not None else None
            if not self._sockets:
                self._sockets = listen.bind(self.config)
                self.files = listen.socket_files(self._sockets)
            self.addresses = [listen.address(sock, self._tls is not None) for sock in self._sockets]
            if self._sockets[0].family != socket.AF_UNIX:
                self.host, self.port = self._sockets[0].getsockname()[:2]
            await self._lifespan.startup()
            self._context = context = self._create_context(metrics)
            self.connections, self.running = context.connections, context.running
            self._beside.callback(context.close)
            on_connection = ignore if metrics is None else metrics.count_connection
            self._acceptor = Acceptor(context, self._tls, on_connection)
            self._beside.callback(self._acceptor.stop)
            if metrics is not None:
                metrics.start(context)
            for sock in self._sockets:
                await self._acceptor.listen(sock)
            if metrics is not None:
                self._page = await self._create_page(metrics).__aenter__()
        except BaseException:
            await self._end_app()
            raise
        return self

    def _create_metrics(self) -> "Metrics":
        """Open the metrics store, unless it is shared. Raises ListenError."""
        from ..metrics.prometheus import Metrics
        from ..metrics.store import MetricsStore

        if self.metrics_store is None:
            self.metrics_store = MetricsStore.create(self.config, shard=1)
            self._beside.callback(self.metrics_store.close)
        return Metrics(self.metrics_store)

    def _create_context(self, metrics: "Metrics | None") -> Context:
        """Return the context. Called after lifespan startup, because startup may set up logging."""
        log = self._access
        if log is None and self.config.access_log and access_logger.isEnabledFor(logging.INFO):
            log = self._log_record
        count = None if metrics is None else metrics.count
        hooks = Hooks(
            access=exchange_filter(self.config, count, log),
            on_error=self._on_error,
            on_tick=ignore if metrics is None else metrics.on_tick,
            on_stop=self._shutdown.requested.set,
            on_gone=self._on_gone,
        )
        return Context(
            self._app if metrics is None else metrics.observed(self._app),
            self.config,
            asyncio.get_running_loop(),
            hooks,
            self._parser,
            self._lifespan.variables,
            self._lifespan.state,
        )

    def _create_page(self, metrics: "Metrics") -> "Server":
        """Return the server of the metrics page."""
        from ..metrics.store import page_config

        assert self.metrics_store is not None
        return Server(metrics.page, page_config(self.config), sockets=self.metrics_store.listeners)

    async def take(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on further sockets, which are closed at the end."""
        for sock in sockets:
            self._sockets.append(sock)
            await self._acceptor.listen(sock)

    def give_back(self, sock: socket.socket) -> None:
        """Stop listening on a socket from `take`, because another process accepts from it."""
        if sock in self._sockets:
            self._sockets.remove(sock)
            self._acceptor.release(sock)

    # Stopping.

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._shutdown.replaced and self._page is not None:  # both stop at the same time
                end = self._page.__aexit__(None, None, None)
                self._page_end = asyncio.create_task(end)
            await self._shutdown.drain(self._context, self._acceptor)
        finally:
            await self._end_app()

    async def stopped(self) -> None:
        """Wait until the server should stop. To stop it, leave the `async with` block."""
        await self._shutdown.requested.wait()

    def stop(self) -> None:
        """Make `stopped` return."""
        self._shutdown.stop()
        if self._page is not None:
            self._page.stop()

    def leave(self) -> None:
        """Stop because another server on the same sockets has replaced this one.

        Idle clients have five seconds for one more request, and its response makes them reconnect.
        If the server closed their connections at once, requests that are in transit would fail.
        """
        self._shutdown.leave()
        if self._page is not None:
            self._page.leave()

    def quit(self) -> None:
        """Stop, and shorten each step to at most one second."""
        self._shutdown.quit()
        if self._page is not None:
            self._page.quit()

    def _fails_health_checks(self) -> bool:
        """Return whether load balancers should send no further requests."""
        return self._context.state is not ServerState.SERVING and not self._shutdown.replaced

    def _on_gone(self) -> None:
        """Handle the end of a connection, a handshake or an exchange."""
        self._shutdown.gone.set()
        self._acceptor.resume()

    async def _end_app(self) -> None:
        """Shut down the app, if it has started, and close everything that belongs to it."""
        try:
            await self._shutdown.end_lifespan(self._lifespan)
        finally:
            await self._lifespan.cancel()
            await self._end_page()
            await self._beside.aclose()
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()
            listen.remove_files(self.files)

    async def _end_page(self) -> None:
        """Stop the metrics page, unless it is already leaving; wait for its end."""
        if self._page is not None:
            end = self._page_end or self._page.__aexit__(None, None, None)
            self._page_end = None
            await self._shutdown.within(LEAVE + LAST, end, self._page._context.describe)


async def serve(app: Any, config: Config | None = None, **options: Any) -> None:
    """Serve an app in the running event loop until the task is cancelled or the server stops.

    Arguments and exceptions are those of `Server`.
    """
    async with Server(app, config, **options) as server:
        await server.stopped()
