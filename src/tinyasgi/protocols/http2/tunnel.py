"""A stream as the transport of another protocol: WebSocket over HTTP/2 (RFC 8441)."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...typing import HeaderPairs
from .frames import ErrorCode
from .response import encode_head

if TYPE_CHECKING:
    from ..websocket import WebSocketConnection, WebSocketExchange
    from .multiplexer import Multiplexer
    from .stream import HTTP2Stream

#: Unsent bytes above which the protocol should stop writing.
HIGH_WATER: Final = 64 * 1024


class StreamTransport(asyncio.Transport):
    """The transport of a protocol whose data is the DATA of a stream."""

    def __init__(self, stream: "HTTP2Stream", connection: "Multiplexer") -> None:
        super().__init__()
        self._stream = stream
        self._connection = connection
        self._protocol: WebSocketConnection | None = None  # from the handshake to the end
        self._is_reading = True
        self._held = bytearray()  # data that has arrived while reading was paused
        self._eof = False  # END_STREAM has arrived
        self._has_ended = False  # END_STREAM was sent
        self._is_closing = False

    # Called by the stream.

    def accept(self, exchange: "WebSocketExchange", headers: HeaderPairs) -> None:
        """Accept the handshake with status 200 (RFC 8441 §5). Raises TypeError or ValueError."""
        from ..websocket import WebSocketConnection

        stream, context = self._stream, self._connection.context
        block, _ = encode_head(context.http2.heads, 200, headers, "GET", None, exchange.request_id)
        self._connection.send_headers(stream.id, block, False)
        stream.exchange = None
        self._protocol = protocol = WebSocketConnection(context, exchange)
        protocol.take_over(self, self._connection.peer, stream.client)
        protocol.begin(b"")
        self._deliver()

    def receive(self, data: bytes, end_stream: bool) -> None:
        """Pass data to the protocol."""
        self._held += data
        self._eof = end_stream
        self._deliver()

    def _deliver(self) -> None:
        protocol = self._protocol
        if protocol is None or not self._is_reading:
            return
        if self._held:
            data, self._held = bytes(self._held), bytearray()
            protocol.data_received(data)
        if self._is_reading:
            self._stream.replenish(len(self._held))
            if self._eof and not self._held and self._protocol is not None:
                protocol.eof_received()
                self.close()

    def on_drained(self) -> None:
        """Continue after everything was sent."""
        if self._protocol is not None and self._protocol.paused:
            self._protocol.resume_writing()

    def lose(self) -> None:
        """Report that the stream is closed."""
        protocol, self._protocol = self._protocol, None
        self._is_closing = True
        if protocol is not None:  # not at once: the server may be closing all its connections
            self._connection.call_soon(partial(protocol.connection_lost, None))

    # Called by the protocol.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._protocol is not None and not self._has_ended:
            self._connection.sender.write(self._stream, bytes(data), end_stream=False)
            if self._stream.unsent > HIGH_WATER and not self._protocol.paused:
                self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._protocol is not None and not self._has_ended:
            self._has_ended = True
            self._connection.sender.write(self._stream, b"", end_stream=True)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.write_eof()
            self._connection.call_soon(self._stream.end_tunnel)

    def abort(self) -> None:
        if self._protocol is not None:
            self._stream.reset(ErrorCode.CANCEL)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._connection.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return self._stream.unsent

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
