"""`Server`: one app on one event loop: start, serve, drain, stop."""

import asyncio
import logging
import re
import selectors
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any

from . import listen, load, log
from .config import Config
from .context import Context, peer_name
from .deadlines import LINGER
from .exchange import Exchange
from .health import Health
from .http1 import HTTP1Connection
from .lifespan import Lifespan
from .typing import App

__all__ = ["Server", "serve"]

logger = logging.getLogger("tinyasgi.server")

#: Bytes that the kernel takes of what a peer's window has no room for.
MAX_UNSENT = 64 * 1024
#: Seconds for what is cut short to come to its end.
LAST = 1.0
#: Seconds in which idle clients of a server that is replaced may send one more request.
LEAVE = 5.0


class Server:
    """An app served in the running event loop.

        async with Server(app, port=0) as server:
            print(server.url)

    On entry it is ready, on exit it has stopped as `config` says. app: an ASGI application of
    version 3 or 2. options: fields of `Config`. sockets: bound sockets to listen on instead of
    the configured address; they are closed at the end. access: called with each exchange that is
    over; by default it becomes a log record if `tinyasgi.access` is enabled for INFO. on_error:
    called with a request line, or the name of a lifespan event, and the exception with which the
    app has ended it; a CancelledError is that of a request that did not end in time for a stop.

    It touches nothing but its loop: no signals, no logging set-up, no exit. Raises OptionError
    and LoadError when made; ListenError, LifespanFailed and OSError on entry; on exit
    LifespanFailed, and SystemExit or KeyboardInterrupt when an app has raised it.
    """

    def __init__(
        self,
        app: Any,
        config: Config | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        access: Callable[[Exchange], None] | None = None,
        on_error: Callable[[str, BaseException], None] = lambda what, error: None,
        **options: Any,
    ) -> None:
        self.config = (config or Config()).replace(**options)
        self._app: App = load.as_asgi3(app, self.config.interface)
        self._tls = listen.tls_context(self.config)
        self._sockets = list(sockets)
        self._files: list[str] = []
        if access is None and log.wants_records(self.config):
            access = log.record_access
        self._health: Health | None = None
        if self.config.health_path is not None:
            self._app = self._health = Health(self._app, self.config)
            access = access and self._health.unlogged(access)
        self._access = access
        self._on_error = on_error
        self._listeners: list[asyncio.AbstractServer] = []
        #: Sockets that are accepted from here, and whether they are at the moment.
        self._readers: dict[socket.socket, bool] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._lifespan = Lifespan(self._app, self.config.lifespan, on_error)
        self._stop = asyncio.Event()
        self._gone = asyncio.Event()
        self._hurry = False
        self._replaced = False
        self._timeout: asyncio.Timeout | None = None
        self._error: BaseException | None = None
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

    async def __aenter__(self) -> "Server":
        loop = asyncio.get_running_loop()
        self._context = context = Context(self._app, self.config, loop)
        context.on_stop = self._fail
        context.on_error = self._on_error
        context.on_gone = self._on_gone
        context.access = self._access
        if not self._sockets:
            self._sockets = listen.bind(self.config)
            self._files = listen.files(self._sockets)
        self.addresses = [listen.address(sock, self._tls is not None) for sock in self._sockets]
        if self._sockets[0].family != socket.AF_UNIX:
            self.host, self.port = self._sockets[0].getsockname()[:2]
        try:
            await self._lifespan.startup()
            context.variables = self._lifespan.variables
            context.state = self._lifespan.state
            for sock in self._sockets:
                await self._listen(sock)
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
        if self._error is not None:
            raise self._error

    async def stopped(self) -> None:
        """Waits until the server is to stop; leaving the context then stops it."""
        await self._stop.wait()

    def stop(self) -> None:
        """Makes `stopped` return."""
        self._replaced = False
        self._stop.set()
        self._gone.set()

    def leave(self) -> None:
        """Like `stop`, for a server whose place another one has taken on the same sockets.

        Idle clients have the time for one more request, whose response tells them to come anew:
        a connection that closes as a request arrives would fail it.
        """
        self._replaced = True
        self._stop.set()

    def quit(self) -> None:
        """Like `stop`, and cuts short what a stop would wait for."""
        self._hurry = True
        self._stop.set()
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _fail(self, error: BaseException | None) -> None:
        self._error = error
        self._stop.set()

    # Accepting.

    async def take(self, sockets: Sequence[socket.socket]) -> None:
        """Listens on further sockets, which are closed at the end."""
        for sock in sockets:
            self._sockets.append(sock)
            await self._listen(sock)

    async def _listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        backlog = self.config.backlog
        sock.setblocking(False)
        tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        if tcp and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # What is accepted inherits it. By default the kernel takes megabytes for each slow
            # client: memory, time until a stop or a disconnect is seen, and cold caches.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        if self._tls is not None or self.config.limit_connections:
            sock.listen(backlog)
            loop.add_reader(sock, self._accept, sock)
            self._readers[sock] = True
            return
        unix = sock.family == socket.AF_UNIX
        create: Any = loop.create_unix_server if unix else loop.create_server
        # From Python 3.13 on a loop would remove the file, which may be another process's by then.
        more = {"cleanup_socket": False} if unix and sys.version_info >= (3, 13) else {}
        self._listeners.append(await create(self._connect, sock=sock, backlog=backlog, **more))

    def _connect(self) -> HTTP1Connection:
        return HTTP1Connection(self._context)

    def _accept(self, sock: socket.socket) -> None:
        """Accepts one by one: for a limit that holds, and to see TLS handshakes that fail."""
        loop = asyncio.get_running_loop()
        if self._is_full():
            self._pause_accepting(sock)
            return
        try:
            accepted, peer = sock.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of file descriptors, for one
            logger.error("can't accept a connection: %s", error)
            self._pause_accepting(sock)
            loop.call_later(1.0, self._on_gone)
            return
        accepted.setblocking(False)
        task = loop.create_task(self._shake_hands(accepted, peer))
        self._handshakes.add(task)
        task.add_done_callback(self._on_shaken)

    def _is_full(self) -> bool:
        limit = self.config.limit_connections
        return 0 < limit <= len(self._context.connections) + len(self._handshakes)

    def _pause_accepting(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock)
        self._readers[sock] = False

    def _on_shaken(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._on_gone()

    def _on_gone(self) -> None:
        """A connection or an exchange has ended."""
        self._gone.set()
        for sock, reading in self._readers.items():
            if not reading and not self._is_full():
                self._readers[sock] = True
                asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    async def _shake_hands(self, accepted: socket.socket, peer: Any) -> None:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_shutdown_timeout": LINGER}
            tls["ssl_handshake_timeout"] = self.config.timeout_head or None
        try:
            await loop.connect_accepted_socket(self._connect, accepted, **tls)
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            if reason == "HTTP_REQUEST":
                reason = "a request without TLS on a port with TLS"
            self._context.note(peer_name(peer), f"no TLS handshake: {reason}")
            accepted.close()
        except (OSError, asyncio.CancelledError):
            accepted.close()

    # Stopping.

    async def _drain(self) -> None:
        """Ends all connections and exchanges; when it returns, none is left but for a log line."""
        context = self._context
        context.leaving = True
        if self._health is not None:
            self._health.stopping = not self._replaced
        await _let_loop_read()
        if self._replaced:
            await self._finish_accepting()
            await self._within(LEAVE, self._until_left())
        elif self.config.shutdown_delay and not self._hurry:
            await self._within(self.config.shutdown_delay, asyncio.Event().wait())
        await self._finish_accepting()
        for handshake in self._handshakes:
            handshake.cancel()
        context.stopping = True
        await _let_loop_read()
        for connection in list(context.connections):
            connection.stop()
        grace = 0 if self._hurry else self.config.timeout_graceful_shutdown
        if await self._within(grace, self._until_gone()):
            return
        context.overdue = grace > 0 and not self._hurry
        for exchange in list(context.running):
            exchange.cancel()
        if not await self._within(LAST, self._until_gone()):
            for connection in list(context.connections):
                connection.close()
            if context.running:
                logger.error("%d requests did not end when cancelled", len(context.running))

    async def _finish_accepting(self) -> None:
        """Accepts until no connection waits, as a loop may take one in each turn; then no more."""
        if not self._listeners and not self._readers:
            return
        with selectors.DefaultSelector() as selector:
            for sock in self._sockets:
                selector.register(sock, selectors.EVENT_READ)
            for _ in range(self.config.backlog):
                if not selector.select(0):
                    break
                await asyncio.sleep(0)
        await _let_loop_read()
        self._stop_listening()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for sock in self._readers:
            self._pause_accepting(sock)
        self._readers.clear()

    async def _until_left(self) -> None:
        """Until all clients are gone, or the server is to stop after all."""
        context = self._context
        while self._replaced and (context.connections or context.running or self._handshakes):
            self._gone.clear()
            await self._gone.wait()

    async def _until_gone(self) -> None:
        while self._context.connections or self._context.running:
            self._gone.clear()
            await self._gone.wait()

    async def _within(self, seconds: float, work: Coroutine[Any, Any, object]) -> bool:
        """Whether work ends in time; `quit` makes the time short."""
        try:
            limit = min(seconds, LAST) if self._hurry else seconds
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
            if not await self._within(seconds, self._lifespan.shutdown()):
                logger.error("lifespan shutdown did not end in time")
        finally:
            await self._lifespan.cancel()
            self._close()

    def _close(self) -> None:
        self._stop_listening()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        listen.release(self._files)


async def _let_loop_read() -> None:
    """Twice around the event loop: what has arrived by now is read."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def serve(app: Any, config: Config | None = None, **options: Any) -> None:
    """Serves an app in the running loop until the task is cancelled or the server stops.

    Arguments and errors as for `Server`.
    """
    async with Server(app, config, **options) as server:
        await server.stopped()
