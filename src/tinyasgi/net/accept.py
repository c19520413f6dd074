"""Accept loop: connection limit, PROXY headers, TLS handshakes."""

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
from ..protocols.hooks import ignore
from ..protocols.http1 import HTTP1Connection
from ..protocols.timeouts import LINGER
from ..server_log import logger
from . import listen

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import ProxyHeader
    from ..tls.contexts import TLSContexts

_UNIX = getattr(socket, "AF_UNIX", None)  # Windows has none
#: Maximum bytes of unsent data in the kernel, and high-water mark of a TLS transport.
MAX_UNSENT = 64 * 1024
#: Descriptors that are reserved for the app and for the server itself.
RESERVED = 32


class Acceptor:
    """Accept loop for a context.

    The servers of the event loops are not used. Without a free descriptor, asyncio's server writes
    thousands of log lines, and uvloop's server closes connections silently. With this class,
    clients wait in the accept queue, as they do with `limit_connections`. Some descriptors are
    reserved, because an app opens files and imports modules, too.
    """

    def __init__(
        self,
        context: Context,
        tls: "TLSContexts | None",
        on_connection: Callable[[], None] = ignore,
    ) -> None:
        """on_connection: called for each connection that passes the PROXY header, if required."""
        self._context = context
        self._tls = tls
        self._on_connection = on_connection
        #: Whether the event loop watches each listener; False while accepting is paused.
        self._readers: dict[socket.socket, bool] = {}
        #: Timer for the next attempt, after accepting has failed.
        self._retry_timer: asyncio.TimerHandle | None = None
        self._reserved = math.inf  # the first reserved descriptor
        self._scarce = False  # the last connection has a reserved descriptor
        self.handshakes: set[asyncio.Task[None]] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Begin to accept from a bound socket. Raises ListenError."""
        loop, config = self._context.loop, self._context.config
        sock.setblocking(False)
        tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        if tcp and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Accepted connections inherit this. By default the kernel buffers megabytes for each
            # slow client. That costs memory and CPU cache, and a disconnect is noticed later.
            with suppress(OSError):  # a kernel without this option, as in some sandboxes
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        self._reserved = _first_reserved()  # the app may have changed the limit
        listen.listen(sock, config)  # uvloop would hide the error
        loop.add_reader(sock, self._accept, sock)
        self._readers[sock] = True

    def release(self, sock: socket.socket) -> None:
        """Stop accepting from a socket, because another process continues, and close it."""
        if self._readers.pop(sock, None):
            self._context.loop.remove_reader(sock)
        sock.close()

    def _accept(self, sock: socket.socket) -> bool:
        """Accept a connection. Return False if none waits or there is no room."""
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
        except ConnectionAbortedError:  # the client has disconnected
            return True
        except OSError as error:  # for example, no descriptor is left
            self._pause(sock)
            self._retry_later(error)
            return False
        self._scarce = accepted.fileno() >= self._reserved
        accepted.setblocking(False)
        task = loop.create_task(self._begin(accepted, peer))
        self.handshakes.add(task)
        task.add_done_callback(self._on_handshake_end)
        return True

    @property
    def _is_plain(self) -> bool:
        """Whether connections begin with a request: no TLS handshake, no PROXY header."""
        return self._tls is None and not self._context.config.proxy_protocol

    def _is_full(self) -> bool:
        limit = self._context.config.limit_connections
        return 0 < limit <= len(self._context.connections) + len(self.handshakes)

    def _check_descriptors(self, sock: socket.socket) -> None:
        """Raise OSError if only reserved descriptors are left."""
        lowest = os.dup(sock.fileno())
        os.close(lowest)
        if lowest >= self._reserved:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _pause(self, sock: socket.socket) -> None:
        self._context.loop.remove_reader(sock)
        self._readers[sock] = False

    def _on_handshake_end(self, task: asyncio.Task[None]) -> None:
        self.handshakes.discard(task)
        self._context.on_gone()

    def _retry_later(self, error: OSError) -> None:
        if self._retry_timer is None:
            logger.error("can't accept connections, clients have to wait: %s", error)
            self._retry_timer = self._context.loop.call_later(1.0, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self.resume()

    def resume(self) -> None:
        """Continue to accept from paused listeners, if the connection limit allows it."""
        for sock, reading in self._readers.items():
            if not reading and not self._is_full():
                try:
                    self._context.run_outside(
                        self._context.loop.add_reader, sock, self._accept, sock
                    )
                except OSError as error:  # the kernel has no memory to watch the socket
                    self._retry_later(error)
                else:
                    self._readers[sock] = True

    def _connect(self, unix: bool, header: "ProxyHeader | None" = None) -> asyncio.Protocol:
        """Return the protocol of a new connection. unix: the listener is a unix socket."""
        self._on_connection()
        if self._tls is not None and self._context.config.http2:
            return _Negotiated(self._context, unix, header)
        return HTTP1Connection(self._context, unix, header)

    async def _begin(self, accepted: socket.socket, peer: Any) -> None:
        unix = accepted.family == _UNIX
        try:
            if self._is_plain:
                connect = partial(self._connect, unix)
                await self._context.loop.connect_accepted_socket(connect, accepted)
                return
            name = peer_name(peer, unix)
            if not self._context.config.proxy_protocol:
                await self._handshake(accepted, name, partial(self._connect, unix))
            elif header := await self._read_header(accepted, _proxy(peer, unix)):
                if header.client is not None:
                    name = peer_name(header.client)
                await self._handshake(accepted, name, partial(self._connect, unix, header))
            else:
                accepted.close()
        except (OSError, asyncio.CancelledError):
            accepted.close()

    async def _read_header(
        self, accepted: socket.socket, proxy: ClientInfo
    ) -> "ProxyHeader | None":
        """Read the PROXY header. Return None if it is refused or the proxy has disconnected."""
        from ..proxy import proxy_protocol  # an optional package

        context = self._context
        try:
            async with asyncio.timeout(context.config.timeout_head or None):
                if context.trust.trusts(proxy.address):
                    return await proxy_protocol.read(accepted)
            fault = "PROXY header refused: the address is not in --forwarded-allow-ips"
        except proxy_protocol.HeaderError as error:
            fault = str(error)
        except TimeoutError:
            fault = f"no PROXY header within {context.config.timeout_head:g} s (--timeout-head)"
        context.log_peer_error(proxy.name, fault)
        if self._tls is None:
            answer = encode_refusal(400, fault, context.defaults, "GET")
            context.refused(proxy, b"", 400, answer)
            async with asyncio.timeout(LINGER):
                await proxy_protocol.refuse(accepted, answer)
        return None

    async def _handshake(
        self, accepted: socket.socket, name: str, connect: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Do the TLS handshake, if any, and connect the protocol. Raises OSError.

        name: the peer in log lines.
        """
        loop = self._context.loop
        tls: dict[str, Any] = {}
        if self._tls is not None:
            # None would mean 60 seconds to the event loops.
            limit = self._context.config.timeout_head or math.inf
            begin = loop.time()
            async with asyncio.timeout(self._context.config.timeout_head or None):
                await peek(accepted, 1)  # first, because asyncio allocates 256 KiB for a handshake
            tls["ssl"] = self._tls.current()
            tls["ssl_handshake_timeout"] = max(begin + limit - loop.time(), 0.001)
            # A connection has its own timeouts, which allow a slow client to read its response.
            tls["ssl_shutdown_timeout"] = 3600
        try:
            transport, _ = await loop.connect_accepted_socket(connect, accepted, **tls)
            if tls:  # the default of asyncio is 512 KiB
                transport.set_write_buffer_limits(MAX_UNSENT)
        except ssl.SSLError as error:
            from ..tls.contexts import handshake_error

            self._context.log_peer_error(name, f"TLS handshake failed: {handshake_error(error)}")
            accepted.close()

    async def finish(self) -> None:
        """Accept all connections that wait, because closing would reset them; then stop."""
        for sock in self._readers:
            for _ in range(self._context.config.backlog):
                if not self._accept(sock):
                    break
        self.stop()
        while self._is_plain and self.handshakes:  # a few iterations of the loop
            await asyncio.sleep(0)
        await let_loop_read()

    def stop(self) -> None:
        """Stop accepting and close the listeners, so that new clients are refused at once."""
        for sock in self._readers:
            self._pause(sock)
            sock.close()
        self._readers.clear()
        if self._retry_timer is not None:
            self._retry_timer.cancel()


class _Negotiated(asyncio.Protocol):
    """Protocol of a TLS connection until ALPN has selected HTTP/2 or HTTP/1.1 (RFC 7301)."""

    def __init__(self, context: Context, unix: bool, header: "ProxyHeader | None") -> None:
        self._arguments = context, unix, header

    def connection_made(self, transport: Any) -> None:
        connection: asyncio.Protocol
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            from ..protocols.http2 import HTTP2Connection  # an optional package

            connection = HTTP2Connection(*self._arguments)
        else:
            connection = HTTP1Connection(*self._arguments)
        transport.set_protocol(connection)
        connection.connection_made(transport)


def _first_reserved() -> float:
    """Return the lowest descriptor that connections must not use."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return limit - min(RESERVED, limit // 4)


def _proxy(peer: Any, unix: bool) -> ClientInfo:
    """Return the client info of a peer that must send a PROXY header."""
    client = tuple(peer[:2]) if isinstance(peer, tuple) else None
    return ClientInfo({"client": client}, peer_name(peer, unix), peer_address(peer, unix))


async def let_loop_read() -> None:
    """Run the event loop twice, so that all data that has arrived by now is read."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
