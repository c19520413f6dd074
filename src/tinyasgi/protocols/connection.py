"""Base class of connections: flow control, timeouts and closing, for any protocol."""

import asyncio
import math
import sys
from typing import TYPE_CHECKING, Any, Final

from ..http.client import ClientInfo, peer_address, peer_name
from .context import Context
from .delivery import delivery
from .states import APP, BODY, CLOSING, NEW, ConnectionState
from .stream import EXTENSIONS, PATHSEND
from .timeouts import MAX_LINGER

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import ProxyHeader

#: Size in bytes at which the write buffer is written at once.
MAX_BUFFERED = 16 * 1024

#: Middleware that compresses responses. It leaves files that are sent by `http.response.pathsend`
#: as they are, or drops the message.
COMPRESSORS: Final = ("starlette.middleware.gzip", "asgi_gzip", "brotli_asgi", "zstd_asgi",
                      "starlette_compress", "gradio.brotli_middleware")  # fmt: skip


def offers_pathsend(wanted: bool | None) -> bool:
    """Return whether apps may use `http.response.pathsend`. wanted: `--pathsend`."""
    if wanted is None:
        return not any(name in sys.modules for name in COMPRESSORS)
    return wanted


def read_client(transport: asyncio.BaseTransport, unix: bool) -> ClientInfo | None:
    """Return the client info of a transport, or None if the peer has already disconnected.

    On some systems, the server's address is then unknown, too.

    unix: the listener is a unix socket.
    """
    peer = transport.get_extra_info("peername")
    host = transport.get_extra_info("sockname")
    address = peer_address(peer, unix)
    if address is None or host is None:
        return None
    tls = transport.get_extra_info("ssl_object")
    scope: dict[str, Any] = {
        "client": None if unix else tuple(peer[:2]),
        "server": (host, None) if unix else tuple(host[:2]),
        "scheme": "https" if tls is not None else "http",
        "extensions": {name: {} for name in EXTENSIONS},
    }
    if tls is not None:
        from ..tls.extension import TLSExtension  # an optional package

        scope["extensions"]["tls"] = TLSExtension(tls)
    return ClientInfo(scope, peer_name(peer, unix), address)


class Connection(asyncio.Protocol):
    """Base class of the connections of all protocols.

    The connection has been in its state since tick `_since`, or was last active then.
    `check_timeouts` compares that with the timeouts.
    """

    # fmt: off
    __slots__ = (
        "_behind",
        "_context",
        "_drained",
        "_ended",
        "_header",
        "_progress",
        "_reading",
        "_since",
        "_state",
        "_taken",
        "_transport",
        "_unix",
        "_unsent_file",
        "client",
        "eof",
        "paused",
        "peer",
        "write_buffer",
    )
    # fmt: on

    _first_state: ConnectionState = NEW
    _transport: asyncio.Transport
    peer: ClientInfo
    """The other end of the transport."""
    client: ClientInfo
    """Source of the current request: the peer, or the client that it names."""

    def __init__(
        self, context: Context, unix: bool = False, header: "ProxyHeader | None" = None
    ) -> None:
        """unix: the listener is a unix socket. header: the PROXY header, if there was one."""
        self._context = context
        self._unix = unix
        self._header = header
        self._reading = True
        self.write_buffer = bytearray()
        self._unsent_file = 0  # bytes that sendfile will write after those of the transport
        self.paused = False
        self.eof = False
        self._drained = False  # everything that the peer has sent was read, including the end
        self._state = self._first_state
        self._since = context.ticks
        self._ended = math.inf  # the tick at which the server has closed its sending side
        # While there is unread data: the count of bytes that the peer has read, and the tick at
        # which it changed.
        self._taken: int | None = None
        self._progress = 0
        # Bytes by which the peer is behind the minimum rate of reading or sending. Being ahead does
        # not carry over to the next second.
        self._behind = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a BaseTransport cannot write
        peer = read_client(transport, self._unix)
        if peer is None:  # already reset
            self._state = CLOSING
            self._transport.abort()
            return
        if self._header is not None:
            peer = self._header.replace(peer)
        if not offers_pathsend(self._context.config.pathsend):
            peer = peer.without_extensions((PATHSEND,))
        self.peer = self.client = peer
        self._context.opened(self)

    def eof_received(self) -> bool:
        """Return whether the transport stays open after the end of the peer's data."""
        self.eof = self._drained = True
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = CLOSING
        self.write_buffer.clear()
        del self._transport
        self._context.closed(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._taken = None
        self._behind = 0

    def _write(self, data: bytes, more: bool) -> None:
        """Write now, or together with other writes of this iteration of the loop.

        more: more data may follow soon. Each write of a transport is a system call, which costs as
        much as a small request.
        """
        if self.write_buffer or (more and len(data) < MAX_BUFFERED):
            if not self.write_buffer:
                self._context.loop.call_soon(self._flush, context=self._context.outside)
            self._buffer(data)
            if not more:
                self._flush()
        else:
            self._transport.write(data)

    def _buffer(self, data: bytes) -> None:
        """Add data to the write buffer. A call of `_flush` must follow."""
        self.write_buffer += data
        if len(self.write_buffer) >= MAX_BUFFERED:
            self._flush()

    def _flush(self) -> None:
        """Write the write buffer to the transport."""
        if self.write_buffer:
            data, self.write_buffer = self.write_buffer, bytearray()
            self._transport.write(data)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._context.run_outside(self._transport.resume_reading)

    def _set_reading(self, wanted: bool) -> None:
        if wanted:
            self._resume_reading()
        else:
            self._pause_reading()

    def _enter(self, state: ConnectionState) -> None:
        self._state = state
        self._since = self._context.ticks

    def _end(self, linger: bool = False) -> None:
        """Close once all written data is sent.

        linger: the peer may still be sending. Closing would reset the connection, and the peer
        could lose data that it has not read yet. So the server reads and drops data until the peer
        closes or is silent (RFC 9112 §9.6).
        """
        self._enter(CLOSING)
        self._flush()
        if not linger or self._drained:
            if not self._transport.is_closing():  # twice would break a TLS transport of asyncio
                self._transport.close()
            return
        self._ended = self._context.ticks
        self._resume_reading()
        if self._transport.can_write_eof():  # not with TLS
            try:
                self._transport.write_eof()
            except OSError:  # the peer has reset the connection while reading was paused
                self._transport.abort()

    def _drop(self) -> None:
        """Drop data that has arrived after the end."""
        self._since = self._context.ticks

    def hand_over(self, successor: "Connection") -> None:
        """Pass the transport to a connection of another protocol."""
        self._transport.set_protocol(successor)
        successor.paused = self.paused
        successor._reading = self._reading
        successor.take_over(self._transport, self.peer, self.client)
        self.connection_lost(None)

    def take_over(self, transport: asyncio.Transport, peer: ClientInfo, client: ClientInfo) -> None:
        """Use a transport on which another protocol has begun."""
        self._transport = transport
        self.peer, self.client = peer, client
        self._context.opened(self)

    # Called by context and server.

    def fileno(self) -> int:
        """Return the descriptor of the socket, or a negative number without a socket."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else sock.fileno()

    @property
    def trusted(self) -> bool:
        """The peer is trusted to forward client addresses."""
        return self._context.trust.trusts(self.peer.address)

    @property
    def fresh(self) -> bool:
        """Nothing has arrived yet."""
        return self._state is NEW

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not read, as far as is known."""
        return delivery(self._transport, self._unsent_file).left

    @property
    def busy(self) -> bool:
        """It has an exchange, or data that the peer has not read."""
        return self.unsent > 0

    @property
    def stopping(self) -> bool:
        """The server is stopping."""
        return self._context.stopping

    def stop(self) -> None:
        """Close now if idle, otherwise as soon as possible."""
        self._end()

    def close(self) -> None:
        """Close now, even if an exchange is running."""
        self._transport.abort()

    # Timeouts.

    def check_timeouts(self, ticks: int) -> None:
        """Apply the timeouts."""
        timeouts = self._context.timeouts
        unwritten = self._transport.get_write_buffer_size() + self._unsent_file
        if self._state is not CLOSING and not unwritten:
            if self._taken is not None:  # the peer has read everything; its timeout starts now
                self._taken = None
                self._behind = 0
                self._since = ticks
            if ticks - self._since > timeouts[self._state]:
                self._expire()
            elif self._state is BODY:
                self._check_body_rate()
            elif self._state is APP and not self._reading and not self.eof:
                self._check_unread_end()
            return
        left = self._measure_reading(ticks)
        if left and ticks - self._progress > self._context.write_timeout:
            seconds = self._context.config.timeout_write
            self._give_up(f"closed, the client read nothing for {seconds:g} s (--timeout-write)")
        elif left and self._behind > self._context.write_pace.slack:
            rate = self._context.config.min_rate_write
            self._give_up(f"closed, the client read too slowly (--min-rate-write {rate})")
        elif not left and (
            ticks - max(self._since, self._progress) > timeouts[CLOSING]
            or ticks - max(self._ended, self._progress) > MAX_LINGER
        ):
            self._expire()

    def _check_unread_end(self) -> None:
        """Handle the end of the peer's data, which follows data that is not read yet."""

    def _measure_reading(self, ticks: int) -> int:
        """Update progress and rate of the peer's reading; return the bytes that it has not read."""
        taken, left = delivery(self._transport, self._unsent_file)
        if self._taken is None:
            self._progress = ticks
            self._behind = 0
        elif taken != self._taken:  # may decrease, if it is the size of the write buffer
            self._progress = ticks
            self._behind -= abs(taken - self._taken)
        self._taken = taken
        self._behind = max(self._behind, 0) + self._context.write_pace.rate
        return left

    def _check_body_rate(self) -> None:
        """Expire if the peer sends a request body too slowly. Called once a second."""
        self._behind = max(self._behind, 0) + self._context.body_pace.rate
        if self._behind > self._context.body_pace.slack:
            self._expire()

    def _give_up(self, reason: str) -> None:
        self._context.log_peer_error(self.peer.name, reason)
        self.close()

    def _expire(self) -> None:
        """End the connection, or what it waits for, because of a timeout."""
        if self._transport.is_closing():
            self._transport.abort()
        else:
            self._enter(CLOSING)
            self._transport.close()
