"""WebSocket connection after the opening handshake: frames, pings and closing handshake."""

from collections.abc import Sized
from contextlib import suppress
from typing import NamedTuple

from ...errors import ClientDisconnected
from ..connection import Connection
from ..context import Context
from ..exchange import Exchange
from ..states import CLOSE_SENT, CLOSING, COMPLETE, GOING_AWAY, LOST, OPEN, PONG, Phase
from . import frames
from .deflate import MIN_COMPRESSED_SIZE
from .exchange import WebSocketExchange
from .frames import BINARY, COMPRESSED, ProtocolError, read_frames


class Closure(NamedTuple):
    """End of a WebSocket: phase of the exchange, close code and reason."""

    phase: Phase
    code: int
    reason: str


class WebSocketConnection(Connection):
    """A connection after the opening handshake (RFC 6455 §5 and §7)."""

    _first_state = OPEN
    __slots__ = ("_closure", "_deflate", "_exchange", "_pong", "_reader")

    def __init__(self, context: Context, exchange: WebSocketExchange) -> None:
        super().__init__(context)
        self._exchange: WebSocketExchange | None = exchange  # None after a Close frame
        self._deflate = deflate = exchange.deflate
        inflater = None if deflate is None else deflate.inflater
        self._reader = read_frames(context.config.ws_max_size, inflater)
        next(self._reader)
        self._pong: bytes | None = None  # payload to send when the write buffer is drained
        #: The end has arrived, but the app has not received all messages before it.
        self._closure: Closure | None = None

    def begin(self, unread: bytes) -> None:
        """Take over the exchange and the bytes that followed the handshake."""
        assert self._exchange is not None
        self._exchange.open(self)
        if self.stopping:
            self.stop()
        self.data_received(unread)

    # Called by the transport.

    def data_received(self, data: bytes) -> None:
        if self._state is OPEN or self._state is PONG:
            self._state = OPEN
            self._since = self._context.ticks
        elif self._state is CLOSING:
            if self._exchange is None:
                self._drop()
            return
        self.read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._finish_lost()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong is not None:
            self._write(frames.encode(frames.PONG, self._pong), more=False)
            self._pong = None
        if self._exchange is not None:
            self._exchange.wake()

    # Reading.

    def read(self, data: bytes = b"") -> None:
        """Read frames until one is incomplete, or enough messages wait for the app."""
        if self._closure is not None:
            self._complete_closure()
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
                    self._close_after_messages(Closure(COMPLETE, *payload))
                    return
                frame = self._reader.send(b"") if more else None
        except ProtocolError as error:
            self._close_after_messages(self._log_error(error))
            return
        if not self._reading:
            self._resume_reading()

    def _close_after_messages(self, closure: Closure) -> None:
        """Close when the app has received the earlier messages and has had time to answer."""
        self._enter(CLOSING)
        self._pong = None
        self._closure = closure
        if self._exchange is None or not self._exchange.hold():
            self._complete_closure()

    def _complete_closure(self) -> None:
        """Send a Close frame, unless one was sent, and close the connection."""
        assert self._closure is not None
        closure, self._closure = self._closure, None
        if self._exchange is not None:
            reason = closure.reason if closure.phase is LOST else ""  # an answer has no reason
            self._write(frames.encode_close(closure.code, reason), more=False)
            self._finish(closure, by_client=True)
        self._end(linger=closure.phase is LOST)  # the client sends nothing after its Close frame

    def _log_error(self, error: ProtocolError) -> Closure:
        """Log an error of the client; return the closure that it causes."""
        self._context.log_peer_error(self.peer.name, f"WebSocket closed: {error}")
        return Closure(LOST, error.code, error.reason)

    def _answer_ping(self, payload: bytes) -> None:
        """Send a Pong frame. While the write buffer is full, keep only the last one (§5.5.3)."""
        if self.paused:
            self._pong = payload
        else:
            self._write(frames.encode(frames.PONG, payload), more=True)

    # Called by the exchange.

    def write(self, opcode: int, message: bytes, more: Sized) -> None:
        """Send a message. Raises ClientDisconnected.

        more: messages that the app has not received yet. If there are any, the data may be combined
        with the app's next message in one write.
        """
        if self._transport.is_closing():  # it failed in this iteration of the event loop
            self._finish_lost()
            raise ClientDisconnected("the client has disconnected")
        if self._deflate is not None and len(message) >= MIN_COMPRESSED_SIZE:
            data = frames.encode(opcode, self._deflate.compress(message), COMPRESSED)
        else:
            data = frames.encode(opcode, message)
        if more or self.write_buffer:
            self._write(data, more=bool(more))
        else:
            self._transport.write(data)

    def close_with(self, code: int, reason: str = "") -> None:
        """Start the closing handshake. The client has two seconds to answer. Raises ValueError."""
        self._write(frames.encode_close(code, reason), more=False)
        self._finish(Closure(COMPLETE, code, reason), by_client=False)
        if self._closure is None:
            self._enter(CLOSE_SENT)
        self.read()

    def abort(self, exchange: Exchange) -> None:
        self.close_with(1001)

    # End of the exchange.

    def _finish_lost(self) -> None:
        """Finish the exchange after the transport was closed.

        If a Close frame has arrived, its code is used (RFC 6455 §7.1.5).
        """
        if self._exchange is not None:
            self._finish(self._closure or self._read_rest(self._exchange), by_client=True)
        self._closure = None

    def _read_rest(self, exchange: WebSocketExchange) -> Closure:
        """Deliver all messages that have arrived; return the closure after them."""
        with suppress(ProtocolError):
            while (frame := self._reader.send(b"")) is not None:
                opcode, payload, _ = frame
                if opcode <= BINARY:
                    exchange.deliver(payload)
                elif opcode == frames.CLOSE:
                    return Closure(COMPLETE, *payload)
        return Closure(LOST, 1006, "")

    def _finish(self, closure: Closure, by_client: bool) -> None:
        """Finish the exchange; the app gets `websocket.disconnect`."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.end(closure.code, closure.reason)
        exchange.finish(closure.phase, self._context.on_finish)
        if by_client and self._context.config.cancel_on_disconnect:
            exchange.cancel()

    # Called by the context.

    @property
    def busy(self) -> bool:
        """Whether an exchange is running. Without one, a shutdown does not wait for the client."""
        return self._exchange is not None

    def stop(self) -> None:
        """Send `websocket.disconnect` to the app, which may send messages until the next tick."""
        if self._closure is not None:
            self._complete_closure()
        elif self._exchange is not None:
            self._exchange.end(1001, "")
            self._enter(GOING_AWAY)

    def check_timeouts(self, ticks: int) -> None:
        if self._state is GOING_AWAY and ticks > self._since:  # even if the client does not read
            self.close_with(1001)
            return
        if (self._state is OPEN or self._state is PONG) and not self._reading:
            self._since = ticks  # frames may have arrived while reading was paused
        super().check_timeouts(ticks)

    def _expire(self) -> None:
        if self._state is OPEN:
            self._write(frames.encode(frames.PING, b""), more=False)
            self._enter(PONG)
        elif self._state is PONG:
            limit = self._context.config.ws_ping_timeout
            reason = f"nothing received within {limit:g} s after a ping (--ws-ping-timeout)"
            self._closure = self._log_error(ProtocolError(1011, reason))
            self._complete_closure()
        elif self._closure is not None:
            self._complete_closure()
        else:
            super()._expire()
