"""A connection that speaks WebSocket: frames either way, and the closing handshake."""

from collections.abc import Sized
from contextlib import suppress
from typing import NamedTuple

from ...errors import ClientDisconnected
from ..connection import Connection
from ..context import Context
from ..exchange import COMPLETE, LOST, Exchange
from ..timeouts import CLOSE, CLOSING, FAREWELL, FRAME, PONG
from . import frames
from .deflate import SMALL
from .exchange import WebSocketExchange
from .frames import BINARY, COMPRESSED, ProtocolError, read_frames

__all__ = ["WebSocketConnection"]


class Ending(NamedTuple):
    """The end of a WebSocket, as its app and its access line get it, and our Close frame."""

    phase: int
    code: int
    reason: str
    answer: bytes = b""


class WebSocketConnection(Connection):
    """What follows the handshake: frames either way, and the closing handshake (RFC 6455 §7)."""

    __slots__ = ("_deflate", "_ending", "_exchange", "_pong", "_reader")

    def __init__(self, context: Context, exchange: WebSocketExchange) -> None:
        super().__init__(context)
        self._exchange: WebSocketExchange | None = exchange  # until either side closes
        self._deflate = deflate = exchange.deflate
        inflater = None if deflate is None else deflate.inflater
        self._reader = read_frames(context.config.ws_max_size, inflater)
        next(self._reader)
        self._pong: bytes | None = None  # for a peer that does not read at the moment
        self._ending: Ending | None = None  # it has arrived; the app takes the messages before it
        self._wait = FRAME

    def begin(self, unread: bytes) -> None:
        """From here on the exchange is carried by this connection.

        unread: what has followed the handshake.
        """
        assert self._exchange is not None
        self._exchange.open(self)
        if self.stopping:
            self.stop()
        self.data_received(unread)

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        if self._wait >= FRAME:
            self._wait = FRAME
            self._since = self._context.ticks
        elif self._wait == CLOSE:
            if self._exchange is None:
                self._drop()
            return
        self.read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lose()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong is not None:
            self._write(frames.encode(frames.PONG, self._pong), more=False)
            self._pong = None
        if self._exchange is not None:
            self._exchange.wake()

    # Reading.

    def read(self, data: bytes = b"") -> None:
        """Reads frames until no whole one is there, or the app has enough to do.

        data: what has arrived of late.
        """
        if self._ending is not None:
            self._answer_ending()
            return
        try:
            frame = self._reader.send(data)
            while frame is not None:
                opcode, payload, more = frame
                if opcode <= BINARY:
                    if self._exchange is not None and not self._exchange.deliver(payload):
                        self._pause_reading()
                        return
                elif opcode == frames.PING:
                    self._answer_ping(payload)
                elif opcode == frames.CLOSE:
                    code, reason = payload
                    self._end_by(Ending(COMPLETE, code, reason, frames.encode_close(code)))
                    return
                frame = self._reader.send(b"") if more else None
        except ProtocolError as fault:
            self._end_by(self._fault(fault))
            return
        self._resume_reading()

    def _end_by(self, ending: Ending) -> None:
        """End once the app has taken the messages before `ending`, and has had time to answer."""
        self._wait_for(CLOSE)
        self._pong = None
        self._ending = ending
        if self._exchange is None or not self._exchange.hold():
            self._answer_ending()

    def _answer_ending(self) -> None:
        """Send the Close frame, unless that is done, and close the connection."""
        assert self._ending is not None
        ending, self._ending = self._ending, None
        if self._exchange is not None:
            self._write(ending.answer, more=False)
            self._client_left(ending)
        self._end(linger=ending.phase == LOST)  # nothing follows the peer's Close frame

    def _fault(self, fault: ProtocolError) -> Ending:
        """Log a fault of the peer; return the end that it leads to."""
        self._context.note(self.peer.name, f"WebSocket closed: {fault}")
        answer = frames.encode_close(fault.code, fault.reason)
        return Ending(LOST, fault.code, fault.reason, answer)

    def _answer_ping(self, payload: bytes) -> None:
        """While the peer does not read, only the last of its pings is answered (§5.5.3)."""
        if self.paused:
            self._pong = payload
        else:
            self._write(frames.encode(frames.PONG, payload), more=True)

    # What an exchange calls.

    def write(self, opcode: int, message: bytes, more: Sized) -> None:
        """Sends a message. Raises ClientDisconnected.

        more: what the app has still to answer; if anything, that may leave in the same write.
        """
        if self._transport.is_closing():  # broken, and the loop had no turn to say so
            self._lose()
            raise ClientDisconnected("the client has left")
        if self._deflate is not None and len(message) >= SMALL:
            data = frames.encode(opcode, self._deflate.compress(message), COMPRESSED)
        else:
            data = frames.encode(opcode, message)
        if more or self.burst:
            self._write(data, more=bool(more))
        else:
            self._transport.write(data)

    def close_with(self, code: int, reason: str = "") -> None:
        """Begins the closing handshake, which the peer has two seconds for. Raises ValueError."""
        self._write(frames.encode_close(code, reason), more=False)
        self._part(COMPLETE, code, reason)
        self._wait_for(CLOSING)
        self.read()

    def abort(self, exchange: Exchange) -> None:
        self.close_with(1001)

    # Ends.

    def _lose(self) -> None:
        """The transport is gone. A Close frame that has arrived counts (RFC 6455 §7.1.5)."""
        if self._exchange is not None:
            self._client_left(self._ending or self._read_rest(self._exchange))
        self._ending = None

    def _read_rest(self, exchange: WebSocketExchange) -> Ending:
        """Give the app all messages that have arrived; return what ends them."""
        with suppress(ProtocolError):
            while (frame := self._reader.send(b"")) is not None:
                opcode, payload, _ = frame
                if opcode <= BINARY:
                    exchange.deliver(payload)
                elif opcode == frames.CLOSE:
                    return Ending(COMPLETE, *payload)
        return Ending(LOST, 1006, "")

    def _client_left(self, ending: Ending) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._part(ending.phase, ending.code, ending.reason)
        if self._context.config.cancel_on_disconnect:
            exchange.cancel()

    def _part(self, phase: int, code: int, reason: str) -> None:
        """The app has no further part in this."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.end(code, reason)
        self._context.finish(exchange, phase)

    # What the context calls.

    @property
    def busy(self) -> bool:
        """It carries an exchange. Without one, nobody has to wait for a peer that does not read."""
        return self._exchange is not None

    def stop(self) -> None:
        """Tells the app, which may say goodbye until the next tick."""
        if self._ending is not None:
            self._answer_ending()
        elif self._exchange is not None:
            self._exchange.end(1001, "")
            self._wait_for(FAREWELL)

    def sweep(self, ticks: int) -> None:
        if self._wait == FAREWELL and ticks > self._since:  # whether or not the peer reads
            self.close_with(1001)
            return
        if self._wait >= FRAME and not self._reading:
            self._since = ticks  # the peer is not silent: it is not listened to
        super().sweep(ticks)

    def _expire(self) -> None:
        if self._wait == FRAME:
            self._write(frames.encode(frames.PING, b""), more=False)
            self._wait_for(PONG)
        elif self._wait == PONG:
            self._ending = self._fault(ProtocolError(1011, "no sign of life after a ping"))
            self._answer_ending()
        elif self._ending is not None:
            self._answer_ending()
        else:
            super()._expire()
