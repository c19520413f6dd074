"""Listening sockets → connections: PROXY headers, TLS handshakes, and a limit that holds."""

import asyncio
import errno
import math
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..http.client import ClientInfo, peer_address, peer_name
from ..http.response import encode_refusal
from ..peek import peek
from ..protocols.context import Context
from ..protocols.http1 import HTTP1Connection
from ..protocols.timeouts import LINGER
from ..server_log import logger
from . import listen

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import Header
    from ..tls.contexts import TLSContexts

__all__ = ["Acceptor", "let_loop_read"]

_UNIX = getattr(socket, "AF_UNIX", None)  # Windows has none
#: Bytes that the kernel takes of what a peer's window has no room for, and then a transport.
MAX_UNSENT = 64 * 1024
#: Descriptors that connections leave to the app, and to the server itself.
SPARE = 32


class Acceptor:
    """Accepts connections for a context.

    The event loops' own servers are not used: without a free descriptor asyncio's writes thousands
    of log lines, and uvloop's closes connections without a word. Here clients wait until there is
    room, as they do with `limit_connections`. Some descriptors stay free, as an app opens files
    and imports modules, too.
    """

    def __init__(self, context: Context, tls: "TLSContexts | None") -> None:
        self._context = context
        self._tls = tls
        #: Listening sockets, and whether connections are accepted from them at the moment.
        self._readers: dict[socket.socket, bool] = {}
        #: Set while a connection could not be accepted in the last second.
        self._retrial: asyncio.TimerHandle | None = None
        self._spare = math.inf  # the first descriptor that connections are not to take
        self._scarce = False  # the last connection has a spare descriptor
        self.handshakes: set[asyncio.Task[None]] = set()
        #: Makes the protocol of a connection that is accepted. It is called with whether the
        #: listening socket is a unix socket, and perhaps with a PROXY header.
        self.connect: Callable[..., asyncio.BaseProtocol] = partial(HTTP1Connection, context)

    async def listen(self, sock: socket.socket) -> None:
        """Accepts from a bound socket, from now on. Raises ListenError."""
        loop, config = self._context.loop, self._context.config
        sock.setblocking(False)
        tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        if tcp and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # What is accepted inherits it. By default the kernel takes megabytes for each slow
            # client: memory, time until a stop or a disconnect is seen, and cold caches.
            with suppress(OSError):  # a kernel without this option, as in some sandboxes
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        self._spare = _first_spare()  # the app may have set the limit
        listen.listen(sock, config)  # uvloop would not raise the error
        loop.add_reader(sock, self._accept, sock)
        self._readers[sock] = True

    def release(self, sock: socket.socket) -> None:
        """Accept no more from a socket, which another process goes on with, and close it."""
        if self._readers.pop(sock, None):
            self._context.loop.remove_reader(sock)
        sock.close()

    def _accept(self, sock: socket.socket) -> bool:
        """Accepts a connection, if one waits and there is room for it; whether it has."""
        loop = self._context.loop
        if self._is_full():
            self._pause(sock)
            return False
        try:
            if self._scarce:
                self._check_descriptors(sock)
            accepted, peer = sock.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:  # the client has left
            return True
        except OSError as error:  # out of file descriptors, for one
            self._pause(sock)
            self._retry_later(error)
            return False
        self._scarce = accepted.fileno() >= self._spare
        accepted.setblocking(False)
        task = loop.create_task(self._begin(accepted, peer))
        self.handshakes.add(task)
        task.add_done_callback(self._on_shaken)
        return True

    @property
    def _is_plain(self) -> bool:
        """Connections begin with a request."""
        return self._tls is None and not self._context.config.proxy_protocol

    def _is_full(self) -> bool:
        limit = self._context.config.limit_connections
        return 0 < limit <= len(self._context.connections) + len(self.handshakes)

    def _check_descriptors(self, sock: socket.socket) -> None:
        """Raise OSError if only spare descriptors are left."""
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        if lowest >= self._spare:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _pause(self, sock: socket.socket) -> None:
        self._context.loop.remove_reader(sock)
        self._readers[sock] = False

    def _on_shaken(self, task: asyncio.Task[None]) -> None:
        self.handshakes.discard(task)
        self._context.on_gone()

    def _retry_later(self, error: OSError) -> None:
        if self._retrial is None:
            logger.error("can't accept connections, they have to wait: %s", error)
            self._retrial = self._context.loop.call_later(1.0, self._retry)

    def _retry(self) -> None:
        self._retrial = None
        self.resume()

    def resume(self) -> None:
        """Accepts again, if that was paused and there is room now."""
        for sock, reading in self._readers.items():
            if not reading and not self._is_full():
                try:
                    self._context.run_outside(
                        self._context.loop.add_reader, sock, self._accept, sock
                    )
                except OSError as error:  # the kernel is out of memory for it
                    self._retry_later(error)
                else:
                    self._readers[sock] = True

    async def _begin(self, accepted: socket.socket, peer: Any) -> None:
        unix = accepted.family == _UNIX
        try:
            if self._is_plain:
                connect = partial(self.connect, unix)
                await self._context.loop.connect_accepted_socket(connect, accepted)
                return
            name = peer_name(peer, unix)
            if not self._context.config.proxy_protocol:
                await self._shake_hands(accepted, name, partial(self.connect, unix))
            elif header := await self._read_header(accepted, _proxy(peer, unix)):
                if header.client is not None:
                    name = peer_name(header.client)
                await self._shake_hands(accepted, name, partial(self.connect, unix, header))
            else:
                accepted.close()
        except (OSError, asyncio.CancelledError):
            accepted.close()

    async def _read_header(self, accepted: socket.socket, proxy: ClientInfo) -> "Header | None":
        """What a proxy says of its client; None for who is not let in, or has left."""
        from ..proxy import proxy_protocol  # not before it is needed

        context = self._context
        try:
            async with asyncio.timeout(context.config.timeout_head or None):
                if context.trust.of(proxy.address):
                    return await proxy_protocol.read(accepted)
            fault = "PROXY headers are not taken from this address"
        except proxy_protocol.HeaderError as error:
            fault = str(error)
        except TimeoutError:
            fault = "no PROXY header in time"
        context.note(proxy.name, fault)
        if self._tls is None:
            answer = encode_refusal(400, fault, context.defaults, "GET")
            context.refused(proxy, b"", 400, answer)
            async with asyncio.timeout(LINGER):
                await proxy_protocol.refuse(accepted, answer)
        return None

    async def _shake_hands(
        self, accepted: socket.socket, name: str, connect: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Goes on to the first request. name: of the peer, for the log. Raises OSError."""
        loop = self._context.loop
        tls: dict[str, Any] = {}
        if self._tls is not None:
            # For None the loops would take 60 seconds.
            limit = self._context.config.timeout_head or math.inf
            begin = loop.time()
            async with asyncio.timeout(self._context.config.timeout_head or None):
                await peek(accepted, 1)  # asyncio has a buffer of 256 KiB for each handshake
            tls["ssl"] = self._tls.current()
            tls["ssl_handshake_timeout"] = max(begin + limit - loop.time(), 0.001)
            # A connection ends by its own time limits: a slow reader needs time for the response.
            tls["ssl_shutdown_timeout"] = 3600
        try:
            transport, _ = await loop.connect_accepted_socket(connect, accepted, **tls)
            if tls:  # the event loops would take 512 KiB
                transport.set_write_buffer_limits(MAX_UNSENT)
        except ssl.SSLError as error:
            from ..tls.contexts import explain  # which is there, as there are handshakes

            self._context.note(name, f"no TLS handshake: {explain(error)}")
            accepted.close()

    async def finish(self) -> None:
        """Accepts until no connection waits, which would be reset; then no more."""
        for sock in self._readers:
            for _ in range(self._context.config.backlog):
                if not self._accept(sock):
                    break
        self.stop()
        while self._is_plain and self.handshakes:  # a few turns of the loop
            await asyncio.sleep(0)
        await let_loop_read()

    def stop(self) -> None:
        """Accepts no more, and closes the sockets: who comes later is to go elsewhere."""
        for sock in self._readers:
            self._pause(sock)
            sock.close()
        self._readers.clear()
        if self._retrial is not None:
            self._retrial.cancel()


def _first_spare() -> float:
    """Return the lowest descriptor that connections do not take."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return limit - min(SPARE, limit // 4)


def _proxy(peer: Any, unix: bool) -> ClientInfo:
    """A peer that is to send a PROXY header."""
    client = tuple(peer[:2]) if isinstance(peer, tuple) else None
    return ClientInfo({"client": client}, peer_name(peer, unix), peer_address(peer, unix))


async def let_loop_read() -> None:
    """Twice around the event loop: what has arrived by now is read."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
