"""A transport under watch, whatever protocol is spoken on it: flow control, time limits, ends."""

import asyncio
import math
from typing import TYPE_CHECKING, Any

from ..http.client import ClientInfo, peer_address, peer_name
from .context import Context
from .delivery import delivery, has_ended
from .timeouts import APP, BODY, CLOSE, FIRST, MAX_LINGER, WRITE

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import Header

__all__ = ["Connection"]

#: Bytes that are not kept to be written with others.
BURST = 16 * 1024


def read_client(transport: asyncio.BaseTransport, unix: bool) -> ClientInfo | None:
    """Read a transport; None if its peer is not connected any more.

    Some systems do not even know the address of the own end then.

    unix: the connection was accepted from a unix socket.
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
    }
    if tls is not None:
        from ..tls.extension import TLSExtension  # not before it is needed

        scope["extensions"] = {"tls": TLSExtension(tls)}
    return ClientInfo(scope, peer_name(peer, unix), address)


class Connection(asyncio.Protocol):
    """What a protocol needs of its transport.

    `_wait` and `_since` say what it waits for (`timeouts`) and from which tick on; `sweep` holds
    that against the time limits.
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
        "_taken",
        "_transport",
        "_unix",
        "_wait",
        "burst",
        "client",
        "eof",
        "paused",
        "peer",
    )
    # fmt: on

    _transport: asyncio.Transport
    peer: ClientInfo
    """Who is at the other end of the transport."""
    client: ClientInfo
    """Where the request that is carried comes from: the peer, or a client of it."""

    def __init__(
        self, context: Context, unix: bool = False, header: "Header | None" = None
    ) -> None:
        """unix: the listening socket is a unix socket.

        header: what came before all else by the PROXY protocol, if that is spoken.
        """
        self._context = context
        self._unix = unix
        self._header = header
        self._reading = True
        self.burst = bytearray()  # collected to be written together
        self.paused = False
        self.eof = False
        self._drained = False  # all has been read that the peer will ever have sent
        self._wait: int = FIRST
        self._since = context.ticks
        self._ended = math.inf  # the tick from which on it only waits for the peer to leave
        # While the peer has something to read: how much it has taken, and since which tick no more.
        self._taken: int | None = None
        self._progress = 0
        # Bytes by which it is behind the slowest pace, in reading or in sending; being ahead counts
        # for nothing once a second is over.
        self._behind = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a BaseTransport cannot write
        peer = read_client(transport, self._unix)
        if peer is None:  # reset by now: nobody is there to answer
            self._wait = CLOSE
            self._transport.abort()
            return
        if self._header is not None:
            peer = self._header.replace(peer)
        self.peer = self.client = peer
        self._context.opened(self)

    def eof_received(self) -> bool:
        """The peer sends no more. The transport closes, unless a protocol says otherwise."""
        self.eof = self._drained = True
        self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait = CLOSE
        self.burst.clear()
        del self._transport
        self._context.closed(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._taken = None
        self._behind = 0

    def _write(self, data: bytes, more: bool) -> None:
        """Writes: at once, or with what follows in this turn of the loop when there may be `more`.

        Each write of a transport is a system call, which costs as much as a small request.
        """
        if self.burst or (more and len(data) < BURST):
            if not self.burst:
                self._context.loop.call_soon(self._flush, context=self._context.outside)
            self._collect(data)
            if not more:
                self._flush()
        else:
            self._transport.write(data)

    def _collect(self, data: bytes) -> None:
        """Keeps data to be written together; `_flush` is to follow soon."""
        self.burst += data
        if len(self.burst) >= BURST:
            self._flush()

    def _flush(self) -> None:
        """Hands what was collected to the transport."""
        if self.burst:
            burst, self.burst = self.burst, bytearray()
            self._transport.write(burst)

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

    def _wait_for(self, what: int) -> None:
        self._wait = what
        self._since = self._context.ticks

    def _end(self, linger: bool) -> None:
        """Close once all that was written is sent.

        linger: the peer may be sending. A close would reset the connection, and the peer could
        lose what it has not read yet. So the server reads on, and drops what it reads, until the
        peer leaves or is silent (RFC 9112 §9.6).
        """
        self._wait_for(CLOSE)
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
            except OSError:  # reset by a peer that had left while reading was paused
                self._transport.abort()

    def _drop(self) -> None:
        """Something has arrived after the end."""
        self._since = self._context.ticks

    def hand_over(self, successor: "Connection") -> None:
        """Leaves the transport to a connection that speaks another protocol on it."""
        self._transport.set_protocol(successor)
        successor._transport = self._transport
        successor.peer, successor.client = self.peer, self.client
        successor.paused = self.paused
        successor._reading = self._reading
        self._context.opened(successor)
        self.connection_lost(None)

    def fileno(self) -> int:
        """The descriptor of its socket, negative without one."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else sock.fileno()

    @property
    def trusted(self) -> bool:
        """The peer may describe its clients."""
        return self._context.trust.of(self.peer.address)

    @property
    def fresh(self) -> bool:
        """Nothing has arrived on it yet."""
        return self._wait == FIRST

    @property
    def unsent(self) -> int:
        """0 when the peer has taken all that was written, as far as is known."""
        return delivery(self._transport).left

    @property
    def busy(self) -> bool:
        """It must still send something, or carries an exchange."""
        return self.unsent > 0

    @property
    def stopping(self) -> bool:
        """The server stops."""
        return self._context.stopping

    def stop(self) -> None:
        """Closes at once when idle, else when it next can."""
        self._end(linger=False)

    def close(self) -> None:
        """Closes at once, whatever is running."""
        self._transport.abort()

    def sweep(self, ticks: int) -> None:
        """Gives up what has waited for too long."""
        limits = self._context.limits
        if self._wait != CLOSE and not self._transport.get_write_buffer_size():
            if self._taken is not None:  # the peer has read all, so its own time begins
                self._taken = None
                self._behind = 0
                self._since = ticks
            if ticks - self._since > limits[self._wait]:
                self._expire()
            elif self._wait == BODY:
                self._charge_for_body()
            elif (
                self._wait == APP and not (self._reading or self.eof) and has_ended(self._transport)
            ):
                self._unread_end()
            return
        left = self._charge_for_reading(ticks)
        if left and ticks - self._progress > limits[WRITE]:
            self._give_up("does not read its response")
        elif left and self._behind > self._context.write_pace.slack:
            self._give_up("reads its response too slowly")
        elif not left and (
            ticks - max(self._since, self._progress) > limits[CLOSE]
            or ticks - max(self._ended, self._progress) > MAX_LINGER
        ):
            self._expire()

    def _unread_end(self) -> None:
        """The peer sends no more than it has sent; reading is paused before that."""

    def _charge_for_reading(self, ticks: int) -> int:
        """Count a second in which the peer was to read; return how much it has still to read."""
        taken, left = delivery(self._transport)
        if self._taken is None:
            self._progress = ticks
            self._behind = 0
        elif taken != self._taken:  # smaller: of a buffer alone, to which more was written
            self._progress = ticks
            self._behind -= abs(taken - self._taken)
        self._taken = taken
        self._behind = max(self._behind, 0) + self._context.write_pace.rate
        return left

    def _charge_for_body(self) -> None:
        """Count a second in which the peer was to send its body."""
        self._behind = max(self._behind, 0) + self._context.body_pace.rate
        if self._behind > self._context.body_pace.slack:
            self._expire()

    def _give_up(self, fault: str) -> None:
        self._context.note(self.peer.name, fault)
        self.close()

    def _expire(self) -> None:
        """The time limit of what it waits for has passed."""
        if self._transport.is_closing():
            self._transport.abort()
        else:
            self._wait_for(CLOSE)
            self._transport.close()
