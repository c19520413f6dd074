"""One stream of an HTTP/2 connection (RFC 9113 §5): the connection of one exchange."""

from typing import TYPE_CHECKING

from ...http import response as http1
from ...http.client import ClientInfo
from ...http.parsers import BadRequest
from ...http.request import Framing
from ...http.response import NO_BODY
from ...typing import HeaderPairs
from ..context import Context
from ..exchange import Exchange
from ..states import STREAMING
from . import frames, response
from .frames import ErrorCode, StreamFault
from .outgoing import OutgoingData
from .tunnel import StreamTransport
from .upload import Upload

if TYPE_CHECKING:
    from ..websocket import WebSocketExchange
    from .connection import HTTP2Connection


class HTTP2Stream(OutgoingData):
    """A stream: the connection of one exchange (`Stream`).

    It stays open after the exchange until the whole response is sent.
    """

    __slots__ = ("_connection", "_trailers", "_tunnel", "_upload", "client", "exchange")

    def __init__(
        self, connection: "HTTP2Connection", context: Context, stream_id: int, client: ClientInfo
    ) -> None:
        self._connection = connection
        self._context = context
        self.id = stream_id
        self.window = connection.sender.initial_window
        self.unsent = 0
        self.end_stream = self.takes_turns = False
        self.client = client
        self.exchange: Exchange | None = None  # until it has ended
        self._upload: Upload | None = None  # until the request body is complete
        self._tunnel: StreamTransport | None = None  # for WebSocket
        self._trailers = b""  # header block that follows the response body

    # Attributes of the interface `Stream`.

    @property
    def paused(self) -> bool:
        """Data waits for the windows of the client, or for the transport."""
        return self.unsent > 0 or self._connection.paused

    @property
    def eof(self) -> bool:
        """The client has closed its sending side of the connection."""
        return self._connection.eof

    @property
    def file_writer(self) -> None:
        """None: the exchange reads files."""
        return None

    @property
    def stopping(self) -> bool:
        """The server is stopping."""
        return self._connection.stopping

    # The request body.

    @property
    def is_receiving(self) -> bool:
        """The end of the request body has not arrived."""
        return self._upload is not None

    def expect_body(self, framing: Framing, limit: int) -> None:
        """Expect a body. limit: its maximum size in bytes, 0 for no limit."""
        self._upload = Upload(self._context, framing, limit)

    def receive(self, data: bytes, size: int, end_stream: bool) -> None:
        """Receive DATA. size: of the payload with its padding. Raises StreamFault."""
        upload = self._upload
        if upload is None:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the body")
        try:
            upload.receive(data, size, end_stream)
        except BadRequest as error:
            self.refuse(error)
        if end_stream and self._upload is not None:
            self._connection.spare_window += upload.growth
            self._upload = None
        if self._tunnel is not None:
            self._tunnel.receive(data, end_stream)
        elif self.exchange is not None:  # otherwise the window stays closed
            if data or end_stream:
                self.exchange.feed(data, end_stream)
            self.replenish(self.exchange.waiting)
        elif upload.rest is not None:
            self._close()

    def replenish(self, waiting: int) -> None:
        """Enlarge the window of the client. waiting: bytes that the app has not taken."""
        upload, connection = self._upload, self._connection
        if upload is not None:
            growth = upload.growth
            increment = upload.replenish(waiting, connection.spare_window)
            if increment:
                connection.spare_window -= upload.growth - growth
                connection.send(frames.window_update(self.id, increment))

    def want_body(self, exchange: Exchange) -> None:
        upload = self._upload
        assert upload is not None
        if upload.expects_continue and exchange.phase < STREAMING:
            upload.expects_continue = False
            self._connection.send_headers(self.id, response.CONTINUE, False)
        upload.expect()
        self.replenish(exchange.waiting)

    # The response.

    def write_interim(self, exchange: Exchange, status: int, headers: HeaderPairs) -> None:
        self._connection.send_headers(self.id, response.encode_interim(status, headers), False)

    def write_head(
        self,
        exchange: Exchange,
        headers: HeaderPairs,
        body: bytes,
        more_body: bool,
        length: int | None = None,
    ) -> None:
        connection = self._connection
        block, framing = response.encode_head(
            self._context.http2.heads,
            exchange.status,
            headers,
            exchange.line.method,
            length if more_body else len(body),
            exchange.request_id,
        )
        end_stream = framing == NO_BODY or not more_body
        if framing == NO_BODY:
            body = b""
        exchange.framing = framing
        if more_body:
            body, exchange.framing = http1.encode_body(framing, body, True)
        exchange.sent = len(body)
        connection.sender.write_head(self, block, body, end_stream)
        if not more_body:
            self._finish(exchange)
            return
        exchange.phase = STREAMING
        if connection.stopping:
            exchange.wake()

    def write_body(self, exchange: Exchange, body: bytes, more_body: bool) -> None:
        if self._connection.is_closing:  # broken, and `connection_lost` has not been called yet
            self.lose()
            return
        data, exchange.framing = http1.encode_body(exchange.framing, body, more_body)
        if exchange.framing != NO_BODY and (data or not more_body):
            self._connection.sender.write(self, data, not more_body)
            exchange.sent += len(data)
        if not more_body:
            self._finish(exchange)

    def write_trailers(self, exchange: Exchange, trailers: HeaderPairs) -> None:
        block = response.encode_fields(trailers)
        if not block or exchange.framing == NO_BODY or self._connection.is_closing:
            self.write_body(exchange, b"", False)
            return
        http1.encode_body(exchange.framing, b"", False)  # raises ValueError if it is too short
        self.exchange = None
        self._connection.finish(exchange)
        if self.unsent:
            self._trailers = block
        else:
            self._send_trailers(block)

    def _send_trailers(self, block: bytes) -> None:
        self._connection.send_headers(self.id, block, True)
        self._close()

    def on_drained(self) -> None:
        """Continue after everything was sent."""
        if self.exchange is not None:
            self.exchange.wake()
        elif self._tunnel is not None:
            self._tunnel.on_drained()
        elif self._trailers:
            self._send_trailers(self._trailers)
        elif self.end_stream:
            self._close()

    def _finish(self, exchange: Exchange) -> None:
        """Finish a complete response, although some of it may be unsent."""
        self.exchange = self._tunnel = None
        self.end_stream = True
        self._connection.finish(exchange)
        if not self.unsent:
            self._close()

    def _close(self) -> None:
        """Close after the response, and after a request body that ends soon."""
        if self._upload is None:
            self._connection.forget(self)
        elif self._upload.drop() and not self.stopping:
            self.replenish(0)
        else:
            self.reset(ErrorCode.NO_ERROR)

    def _forget(self) -> None:
        if self._upload is not None:
            self._connection.spare_window += self._upload.growth
            self._upload = None
        self._connection.forget(self)

    # WebSocket.

    def expect_tunnel(self, end_stream: bool) -> None:
        """Keep the data that arrives for a WebSocket, until the app accepts it."""
        self._tunnel = StreamTransport(self, self._connection)
        self._tunnel.receive(b"", end_stream)

    def switch(self, exchange: "WebSocketExchange", headers: HeaderPairs) -> None:
        """Accept a WebSocket. Raises TypeError or ValueError."""
        assert self._tunnel is not None
        self._tunnel.accept(exchange, headers)

    def end_tunnel(self) -> None:
        """Close after the last data of a WebSocket, once it is sent."""
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.lose()
            if not self.unsent:
                self._close()

    # Errors.

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < STREAMING:
            exchange.status = 500
            self.write_head(exchange, [http1.PLAIN_TEXT], b"Internal Server Error", False)
        else:
            self.reset(ErrorCode.INTERNAL_ERROR)

    def refuse(self, refused: BadRequest) -> None:
        """Answer an invalid request, unless a response has already started."""
        exchange = self.exchange
        if exchange is None:  # the response is complete, but unsent
            return
        self._context.log_peer_error(self._connection.peer.name, refused)
        if exchange.phase >= STREAMING:
            self.reset(ErrorCode.CANCEL)
            return
        exchange.status = refused.status
        self.lose()
        self.respond(refused, exchange.line.method)

    def respond(self, refused: BadRequest, method: str) -> int:
        """Write an error response without an exchange; return the size of its body."""
        headers, body = http1.error_response(refused.status, refused.reason)
        block, framing = response.encode_head(
            self._context.http2.heads, refused.status, headers, method, len(body)
        )
        if framing == NO_BODY:
            body = b""
        self.end_stream = True
        self._connection.sender.write_head(self, block, body, True)
        if not self.unsent:
            self._close()
        return len(body)

    def reset(self, code: ErrorCode) -> None:
        """End the stream and its exchange."""
        self._connection.send_reset(self.id, code)
        self.drop()

    def drop(self) -> None:
        """End the exchange of a stream that was reset."""
        self.discard()
        self._forget()
        self.lose()

    def lose(self) -> None:
        """Give up the exchange, because nothing can be sent to the client any more."""
        exchange, self.exchange = self.exchange, None
        tunnel, self._tunnel = self._tunnel, None
        if exchange is not None:
            self._connection.lose(exchange)
        if tunnel is not None:
            tunnel.lose()

    # Timeouts.

    def check_timeouts(self, ticks: int) -> None:
        """Apply the timeouts. Called once a second."""
        upload, exchange = self._upload, self.exchange
        awaited = exchange is not None and exchange.awaited
        if self.is_stalled(ticks):
            reason = "read nothing, or too slowly (--timeout-write, --min-rate-write)"
            text = f"stream {self.id} reset, the client {reason}"
            self._context.log_peer_error(self._connection.peer.name, text)
            self.reset(ErrorCode.CANCEL)
        elif upload is not None and upload.is_awaited and awaited and upload.is_late(ticks):
            self.refuse(BadRequest(408, "the body did not arrive in time"))
        elif upload is not None and upload.drops_for_too_long(ticks):
            self.reset(ErrorCode.NO_ERROR)
