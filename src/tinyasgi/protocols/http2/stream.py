"""One stream of an HTTP/2 connection (RFC 9113 §5): the connection of one exchange."""

from collections import deque
from typing import TYPE_CHECKING, Final

from ...http import response as http1
from ...http.client import ClientInfo
from ...http.parsers import BadRequest
from ...http.request import CHUNKED, Framing
from ...http.response import NO_BODY
from ...typing import HeaderPairs
from ..connection import BODY
from ..context import Context
from ..exchange import STREAMING, Exchange
from . import frames, response
from .frames import DATA, END_STREAM, INITIAL_WINDOW, MAX_PAYLOAD, ErrorCode, StreamFault

if TYPE_CHECKING:
    from .connection import HTTP2Connection

#: Window for the body of a request whose app reads it, in bytes.
STREAM_WINDOW: Final = 256 * 1024
#: By how much such a window is larger than the initial one.
GROWTH: Final = STREAM_WINDOW - INITIAL_WINDOW


class HTTP2Stream:
    """A stream: the connection of one exchange (`Stream`).

    It stays open after the exchange until the whole response is sent.
    """

    # fmt: off
    __slots__ = (
        "_body_behind", "_connection", "_context", "_continue", "_credit", "_left", "_length",
        "_since", "_trailers", "_waits", "_window_size", "_write_behind", "client", "end_stream",
        "exchange", "id", "is_receiving", "pieces", "takes_turns", "unsent", "window",
    )
    # fmt: on

    def __init__(
        self, connection: "HTTP2Connection", context: Context, stream_id: int, client: ClientInfo
    ) -> None:
        self._connection = connection
        self._context = context
        self.id = stream_id
        self.client = client
        self.exchange: Exchange | None = None  # until it has ended
        # The request body.
        self.is_receiving = False
        self._length = CHUNKED  # as announced
        self._left = 0  # bytes until that length, or until --limit-body-size
        self._continue = False  # the client waits for 100 (Continue)
        self._window_size = INITIAL_WINDOW
        self._credit = INITIAL_WINDOW  # bytes that the client may send
        self._waits = False  # the app waits for body
        # The response body.
        self.window = connection.sender.initial_window  # bytes that the client allows
        self.pieces: deque[memoryview] = deque()
        self.unsent = 0  # size of the pieces
        self.end_stream = False  # nothing follows the pieces
        self._trailers = b""  # header block that follows the pieces
        self.takes_turns = False  # the sender has it in its queue
        # For timeouts.
        self._since = 0  # the tick at which the app began to wait, or data was sent last
        # Bytes by which the client is behind the minimum rate of sending or reading.
        self._body_behind = self._write_behind = 0

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

    def expect_body(self, framing: Framing, limit: int) -> None:
        """Expect a body. limit: its maximum size in bytes, 0 for no limit."""
        self.is_receiving = True
        self._length = framing.length
        self._left = limit if framing.length == CHUNKED else framing.length
        self._continue = framing.expects_continue

    def receive(self, data: bytes, size: int, end_stream: bool) -> None:
        """Receive DATA. size: of the payload with its padding. Raise StreamFault or BadRequest."""
        if not self.is_receiving:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the body")
        self._credit -= size
        if self._credit < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        self._left -= len(data)
        if self._length != CHUNKED:
            if self._left < 0 or (end_stream and self._left):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "body differs from content-length")
        elif self._left < 0 and (limit := self._context.config.limit_body_size):
            raise BadRequest(413, f"request body exceeds --limit-body-size ({limit})")
        self.is_receiving = not end_stream
        exchange = self.exchange
        if exchange is None:  # the window stays closed until the response is sent
            return
        if data or end_stream:
            self._waits = False
            self._body_behind -= len(data)
            self._continue = False
            exchange.feed(data, end_stream)
        self._replenish(exchange)

    @property
    def growth(self) -> int:
        """By how much the window of the client was enlarged, in bytes."""
        return self._window_size - INITIAL_WINDOW

    def _replenish(self, exchange: Exchange) -> None:
        """Enlarge the window if the app has taken half of it."""
        if not self.is_receiving:
            return
        size = self._window_size
        open_size = self._credit + exchange.waiting
        if open_size > size // 2:
            return
        if size == INITIAL_WINDOW and self._connection.spare_window >= GROWTH:
            self._connection.spare_window -= GROWTH
            self._window_size = size = STREAM_WINDOW
        self._credit += size - open_size
        self._connection.send(frames.window_update(self.id, size - open_size))

    def want_body(self, exchange: Exchange) -> None:
        connection = self._connection
        if self._continue and exchange.phase < STREAMING:
            self._continue = False
            connection.send_headers(self.id, response.CONTINUE, False)
        self._waits = True
        self._since = self._context.ticks
        self._replenish(exchange)

    # The response.

    def write_interim(self, exchange: Exchange, status: int, headers: HeaderPairs) -> None:
        block = response.encode_interim(status, headers)
        self._connection.send_headers(self.id, block, False)

    def write_head(
        self,
        exchange: Exchange,
        headers: HeaderPairs,
        body: bytes,
        more_body: bool,
        length: int | None = None,
    ) -> None:
        if exchange.request_id is not None:
            headers = http1.with_default(headers, exchange.request_id)
        connection = self._connection
        block, framing = response.encode_head(
            exchange.status,
            headers,
            self._context.http2.defaults,
            exchange.line.method,
            length if more_body else len(body),
        )
        if framing == NO_BODY:
            body = b""
            end_stream = True
        else:
            end_stream = not more_body
        exchange.framing = framing
        if more_body:
            body, exchange.framing = http1.encode_body(framing, body, True)
        exchange.sent = len(body)
        self._write_response(block, body, end_stream)
        if not more_body:
            self._finish(exchange)
            return
        exchange.phase = STREAMING
        if connection.stopping:
            exchange.wake()

    def _write_response(self, block: bytes, body: bytes, end_stream: bool) -> None:
        """Write the header block and the first piece of the body."""
        connection = self._connection
        size = len(body)
        sender = connection.sender
        if (
            0 < size <= MAX_PAYLOAD
            and size <= self.window
            and size <= sender.window
            and not connection.paused
        ):
            self.window -= size
            sender.window -= size
            data = frames.header(DATA, END_STREAM if end_stream else 0, self.id, size) + body
            connection.send_headers(self.id, block, False, data)
            return
        connection.send_headers(self.id, block, end_stream and not size)
        if size:
            sender.write(self, body, end_stream)

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
        http1.encode_body(exchange.framing, b"", False)  # is it complete?
        self.exchange = None
        self._connection.finish(exchange)
        if self.unsent:
            self._trailers = block
        else:
            self._send_trailers(block)

    def _send_trailers(self, block: bytes) -> None:
        self._connection.send_headers(self.id, block, True)
        self._close()

    def queue(self, data: bytes, end_stream: bool) -> None:
        """Keep data until the windows allow to send it. end_stream: nothing follows."""
        if not self.unsent:
            self._since = self._context.ticks
            self._write_behind = 0
        self.end_stream = end_stream
        if data:
            self.pieces.append(memoryview(data))
            self.unsent += len(data)

    def take(self, size: int) -> memoryview:
        """Remove and return at most `size` bytes of what is unsent."""
        piece = self.pieces[0]
        if len(piece) > size:
            self.pieces[0] = piece[size:]
            piece = piece[:size]
        else:
            self.pieces.popleft()
        self.window -= len(piece)
        self.unsent -= len(piece)
        self._since = self._context.ticks
        self._write_behind -= len(piece)
        return piece

    def on_drained(self) -> None:
        """Continue after everything was sent."""
        if self.exchange is not None:
            self.exchange.wake()
        elif self._trailers:
            self._send_trailers(self._trailers)
        elif self.end_stream:
            self._close()

    def _finish(self, exchange: Exchange) -> None:
        """Finish a complete response, although some of it may be unsent."""
        self.exchange = None
        self.end_stream = True
        self._connection.finish(exchange)
        if not self.unsent:
            self._close()

    def _close(self) -> None:
        """Close after the response. The client must send no more of its body (RFC 9113 §8.1)."""
        if self.is_receiving:
            self._connection.send_reset(self.id, ErrorCode.NO_ERROR)
        self._connection.forget(self)

    # Errors.

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < STREAMING:
            exchange.status = 500
            self.write_head(exchange, [http1.PLAIN_TEXT], b"Internal Server Error", False)
        else:
            self.reset(ErrorCode.INTERNAL_ERROR)

    def refuse(self, refused: BadRequest) -> None:
        """Answer an invalid request, unless a response has already started."""
        self._context.log_peer_error(self._connection.peer.name, refused)
        exchange = self.exchange
        assert exchange is not None
        if exchange.phase >= STREAMING:
            self.reset(ErrorCode.CANCEL)
            return
        method = exchange.line.method
        exchange.status = refused.status
        self.lose()
        self.respond(refused, method)

    def respond(self, refused: BadRequest, method: str) -> int:
        """Write an error response without an exchange; return the size of its body."""
        headers, body = http1.error_response(refused.status, refused.reason)
        block, framing = response.encode_head(
            refused.status, headers, self._context.http2.defaults, method, len(body)
        )
        if framing == NO_BODY:
            body = b""
        self.end_stream = True
        self._write_response(block, body, True)
        if not self.unsent:
            self._close()
        return len(body)

    def reset(self, code: ErrorCode) -> None:
        """End the stream and its exchange."""
        self._connection.send_reset(self.id, code)
        self.drop()

    def drop(self) -> None:
        """End the exchange of a stream that was reset."""
        self.pieces.clear()
        self.unsent = 0
        self._connection.forget(self)
        self.lose()

    def lose(self) -> None:
        """Give up the exchange, because nothing can be sent to the client any more."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._connection.lose(exchange)

    # Timeouts.

    def check_timeouts(self, ticks: int) -> None:
        """End what has waited for too long. Called once a second."""
        context = self._context
        waited = ticks - self._since
        if self.unsent:
            if self.window > 0:  # the whole connection waits for the client
                return
            self._write_behind = max(self._write_behind, 0) + context.write_pace.rate
            if waited > context.write_timeout or self._write_behind > context.write_pace.slack:
                reason = "read nothing, or too slowly (--timeout-write, --min-rate-write)"
                text = f"stream {self.id} reset, the client {reason}"
                context.log_peer_error(self._connection.peer.name, text)
                self.reset(ErrorCode.CANCEL)
        elif self._waits and self.exchange is not None and self.exchange.awaited:
            self._body_behind = max(self._body_behind, 0) + context.body_pace.rate
            if waited > context.timeouts[BODY] or self._body_behind > context.body_pace.slack:
                self.refuse(BadRequest(408, "the body did not arrive in time"))
