"""A connection that speaks WebSocket: frames either way, and the closing handshake."""

from collections.abc import Callable, Sized
from functools import partial

from ..connection import Connection
from ..context import Context
from ..deadlines import CLOSE, CLOSING, FAREWELL, FRAME, PONG
from ..exchange import COMPLETE, LOST, ClientDisconnected, Exchange
from . import frames
from .deflate import SMALL
from .exchange import WebSocketExchange
from .frames import BINARY, COMPRESSED, ProtocolError, read_frames

__all__ = ["WebSocketConnection"]


class WebSocketConnection(Connection):
    """What follows the handshake: frames either way, and the closing handshake (RFC 6455 §7)."""

    __slots__ = ("_deflate", "_exchange", "_last", "_pong", "_reader")

    def __init__(self, context: Context, exchange: WebSocketExchange) -> None:
        super().__init__(context)
        self._exchange: WebSocketExchange | None = exchange  # until either side closes
        self._deflate = deflate = exchange.deflate
        inflater = None if deflate is None else deflate.inflater
        self._reader = read_frames(context.config.ws_max_size, inflater)
        next(self._reader)
        self._pong: bytes | None = None  # for a peer that does not read at the moment
        self._last: Callable[[], None] | None = None  # what is to be done when the app is done
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
            return
        self.read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._last = None
        self._client_left(LOST, 1006)

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
        if self._last is not None:
            last, self._last = self._last, None
            last()
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
                    self._end_by(partial(self._answer_close, *payload))
                    return
                frame = self._reader.send(b"") if more else None
        except ProtocolError as fault:
            self._end_by(partial(self._fail, fault))
            return
        self._resume_reading()

    def _end_by(self, last: Callable[[], None]) -> None:
        """Does what ends this, once the app has had the messages before it and their time."""
        self._wait_for(CLOSE)
        if self._exchange is not None and self._exchange.hold():
            self._last = last
        else:
            last()

    def _answer_ping(self, payload: bytes) -> None:
        """While the peer does not read, only the last of its pings is answered (§5.5.3)."""
        if self.paused:
            self._pong = payload
        else:
            self._write(frames.encode(frames.PONG, payload), more=True)

    def _answer_close(self, code: int, reason: str) -> None:
        if self._exchange is not None:
            self._write(frames.encode_close(code), more=False)
            self._client_left(COMPLETE, code, reason)
        self._end(linger=True)

    def _fail(self, fault: ProtocolError) -> None:
        self._context.note(self.peer.name, f"WebSocket closed: {fault}")
        if self._exchange is not None:
            self._write(frames.encode_close(fault.code, fault.reason), more=False)
            self._client_left(LOST, fault.code, fault.reason)
        self._end(linger=True)

    # What an exchange calls.

    def write(self, opcode: int, message: bytes, more: Sized) -> None:
        """Sends a message. Raises ClientDisconnected.

        more: what the app has still to answer; if anything, that may leave in the same write.
        """
        if self._transport.is_closing():  # broken, and the loop had no turn to say so
            self._client_left(LOST, 1006)
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

    def _client_left(self, phase: int, code: int, reason: str = "") -> None:
        exchange = self._exchange
        if exchange is not None:
            self._part(phase, code, reason)
            if self._context.config.cancel_on_disconnect:
                exchange.cancel()

    def _part(self, phase: int, code: int, reason: str) -> None:
        """The app has no further part in this."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.phase = phase
        exchange.end(code, reason)
        if self._context.access is not None:
            self._context.access(exchange)
        exchange.leave()

    # What the context calls.

    def stop(self) -> None:
        """Tells the app, which may say goodbye until the next tick."""
        if self._last is not None:
            self.read()
        elif self._exchange is not None:
            self._exchange.end(1001, "")
            self._wait_for(FAREWELL)

    def sweep(self, ticks: int) -> None:
        if self._wait >= FRAME and not self._reading:
            self._since = ticks  # the peer is not silent: it is not listened to
        super().sweep(ticks)

    def _expire(self) -> None:
        if self._wait == FRAME:
            self._write(frames.encode(frames.PING, b""), more=False)
            self._wait_for(PONG)
        elif self._wait == PONG:
            self._fail(ProtocolError(1011, "no sign of life after a ping"))
        elif self._wait == FAREWELL:
            self.close_with(1001)
        elif self._last is not None:
            self.read()
        else:
            super()._expire()
