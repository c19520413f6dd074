"""HTTP/1.1 on one connection (RFC 9112): transport ↔ parser, exchanges, encoder."""

from typing import TYPE_CHECKING

from ..http import request, response
from ..http.body import BodyDecoder, create_decoder
from ..http.buffer import HeadBuffer
from ..http.parsers import BadRequest
from ..typing import HeaderPairs, Headers
from .connection import Connection
from .context import Context
from .exchange import COMPLETE, LOST, STREAMING, Exchange
from .timeouts import APP, BODY, CLOSE, HEAD, NEXT

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import Header
    from .websocket import WebSocketExchange

__all__ = ["HTTP1Connection"]

#: Most bytes of a request body that are read and dropped so that the connection persists.
MAX_DROPPED = 256 * 1024
#: Most bytes of a head that a connection keeps, to know them again; and how it knows none.
MAX_KNOWN = 2048
NOTHING: tuple[bytes, tuple[Headers, request.Framing]] = (b"", ([], request.Framing(0)))


class HTTP1Connection(Connection):
    """One connection; it carries one exchange at a time.

    What a client sends ahead of the response it is owed stays in `_unread`, which holds no more
    than one read, and beyond that in the kernel.
    """

    __slots__ = ("_continue", "_decoder", "_dropped", "_exchange", "_head", "_known", "_lines",
                 "_tail", "_unread")  # fmt: skip

    def __init__(
        self, context: Context, unix: bool = False, header: "Header | None" = None
    ) -> None:
        super().__init__(context, unix, header)
        self._exchange: Exchange | None = None
        self._decoder: BodyDecoder | None = None  # while request body is to come
        self._continue = False  # the client waits for 100 (Continue) to send its body
        self._dropped = 0  # bytes of a body that the app did not take
        self._head: HeadBuffer | None = None  # of which the rest is to come
        self._unread = b""
        # A head from its version on, its headers and what they mean: clients repeat themselves. The
        # origin, and what is known of request lines below its root path, stay the same with it.
        self._tail, self._known = NOTHING
        self._lines = context.request_lines

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        if self._wait > HEAD or self.paused:
            self._read_more(data)
            return
        try:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or data[0] < 33 or self._head is not None:
                self._keep_head(data)
            else:
                self._begin(data, end)
        except BadRequest as refused:
            self._decoder = None
            self._refuse(refused, data)

    def eof_received(self) -> bool:
        """Keep the connection for a response to be written: a half-close may look like a close."""
        super().eof_received()
        exchange, cancel = self._exchange, self._context.config.cancel_on_disconnect
        if cancel or exchange is None or self._decoder is not None or not exchange.unwritten:
            return False
        exchange.persistent = False
        exchange.wake()
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._exchange is not None:
            self._client_left(self._exchange)
        self._decoder = self._head = None
        self._unread = b""

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.wake()
        else:
            self._since = self._context.ticks  # what has arrived meanwhile was not read
            self._context.run_outside(self._proceed)

    # Reading.

    def _read_more(self, data: bytes) -> None:
        """Data while no head is expected."""
        if self._decoder is not None:
            self._read_body(data)
        elif self._wait == CLOSE:
            self._drop()
        else:
            self._unread += data
            self._pause_reading()

    def _keep_head(self, data: bytes) -> None:
        """Keep the beginning of a head until the rest of it arrives."""
        if self._head is None:
            self._head = HeadBuffer(
                self._context.request_lines, self._context.config.limit_head_size
            )
        whole = self._head.receive(data)
        if whole is None:
            if self._wait == NEXT:
                self._since = self._context.ticks
            self._wait = HEAD
        else:
            self._head = None
            self._wait = min(self._wait, NEXT)
            if whole:
                self.data_received(whole)

    def _begin(self, data: bytes, end: int) -> None:
        """Starts the exchange whose head is `data[:end]`."""
        context = self._context
        config = context.config
        if end > config.limit_head_size:
            request.check_size(data[:end], config.limit_head_size)
        start = data.find(b"\r\n") + 2
        line = self._lines[data[: start - 2]]
        tail = data[start - 5 : end]
        if tail == self._tail and line.host is None:
            headers, framing = self._known
        else:
            headers = context.parser.parse_headers(data[:end], start)
            if len(headers) > config.limit_head_fields:
                raise BadRequest(431, f"more than {config.limit_head_fields} fields")
            framing = request.parse_framing(line.version, headers)
            if line.host is not None:
                headers = request.replace_host(headers, line.host)
            self.client = context.client_info(headers, self.peer)
            if self.client.host is not None:
                headers = request.replace_host(headers, self.client.host)
            root = self.client.root_path
            lines = context.request_lines if root is None else context.lines_below[root]
            if lines is not self._lines:
                self._lines, line = lines, lines[data[: start - 2]]
            keep = len(tail) <= MAX_KNOWN and line.host is None
            self._tail, self._known = (tail, (headers, framing)) if keep else NOTHING
        headers = headers.copy()  # the app may write to it
        websocket = framing.wants_websocket and line.method == "GET" and config.ws != "none"
        full = context.concurrency and context.unanswered >= context.concurrency
        if full and (websocket or line.route != context.health_path):
            raise BadRequest(503, f"{context.unanswered} requests are running")
        scope = line.scope | self.client.scope
        scope["headers"] = headers
        scope["state"] = context.state.copy()
        if websocket:
            from .websocket import WebSocketExchange  # not before it is needed: 10 ms at start

            exchange: Exchange = WebSocketExchange(self, scope, line, framing.persistent, config)
        else:
            exchange = Exchange(self, scope, line, framing.persistent)
        rest = data[end:]
        if framing.length:
            self._decoder = create_decoder(framing.length, config.limit_body_size, context.parser)
            self._continue = framing.expects_continue
            exchange.expect_body()
            self._behind = 0
            if rest:
                rest = self._take_body(exchange, rest)
        self._exchange = exchange
        self._wait = APP
        self._unread = rest
        # A disconnect is noticed only while reading.
        if rest or self._decoder is not None or not self._reading:
            self._set_reading(not rest and not exchange.full)
        context.start(exchange)
        if self.burst and self._exchange is exchange:
            context.loop.call_soon(self._flush_before, exchange, context=context.outside)

    def _take_body(self, exchange: Exchange | None, data: bytes) -> bytes:
        """Takes what there is of a request body; what follows it. Raises BadRequest."""
        assert self._decoder is not None
        body, rest = self._decoder.decode(data)
        self._since = self._context.ticks
        self._behind -= len(body)
        if rest is not None:
            self._decoder = None
        if exchange is None:
            self._dropped += len(body)
        elif body or rest is not None:
            self._wait = APP
            self._continue = False
            exchange.feed(body, rest is not None)
        return rest or b""

    def _read_body(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            rest = self._take_body(exchange, data)
        except BadRequest as refused:
            self._refuse(refused)
            return
        self._unread = rest
        if exchange is not None:
            self._set_reading(not rest and not exchange.full)
        elif self._decoder is None:
            self._wait = NEXT
            self._proceed()
        elif self._dropped > MAX_DROPPED:
            self._end()

    def _flush_before(self, exchange: Exchange) -> None:
        """Answers that were collected do not wait for one that takes longer than its first step."""
        if self._exchange is exchange:
            self._flush()

    def _proceed(self) -> None:
        """Ready for the next request, which may have been read already."""
        if self._wait > HEAD or self.paused:  # who reads no response gets no further one
            return
        if self._unread:
            unread, self._unread = self._unread, b""
            self.data_received(unread)
        if self._wait <= HEAD and not self._unread:
            self._flush()
            self._resume_reading()

    # What an exchange calls.

    def write_head(
        self, exchange: Exchange, headers: HeaderPairs, body: bytes, more_body: bool
    ) -> None:
        context = self._context
        head, framing, persistent = response.encode_head(
            exchange.status,
            headers,
            context.defaults,
            exchange.line,
            exchange.persistent and not context.leaving and not self._continue,
            None if more_body else len(body),
        )
        exchange.persistent = persistent
        if framing != response.NO_BODY:
            exchange.sent = len(body)
        if more_body or framing < 0:
            body, exchange.framing = response.encode_body(framing, body, more_body)
        # Else it is whole, and of the length that the head says.
        if self._unread and not more_body:
            self._collect(head + body)  # `_proceed` goes on with the next
        elif more_body or self.burst:
            self._write(head + body, more_body)
        else:
            self._transport.write(head + body)
        if not more_body:
            self._finish(exchange)
            return
        exchange.phase = STREAMING
        if self.eof and not exchange.unwritten:
            self._end()
        elif context.stopping:
            exchange.wake()

    def write_body(self, exchange: Exchange, body: bytes, more_body: bool) -> None:
        if self._transport.is_closing():  # broken, and the loop had no turn to say so
            self._client_left(exchange)
            return
        data, exchange.framing = response.encode_body(exchange.framing, body, more_body)
        if data:
            self._write(data, more_body)
            exchange.sent += len(body)
        if not more_body:
            self._finish(exchange)
        elif self.eof and not data:  # there may never be a write that fails
            self._client_left(exchange)
            self._end()

    def want_body(self, exchange: Exchange) -> None:
        if self._continue and exchange.phase < STREAMING:
            self._continue = False
            self._write(response.CONTINUE, False)
        self._wait_for(BODY)
        self._resume_reading()

    def switch(self, exchange: "WebSocketExchange", headers: HeaderPairs) -> None:
        """Writes 101 (Switching Protocols); the exchange goes on with another connection.

        Raises TypeError or ValueError.
        """
        from .websocket import WebSocketConnection

        head = response.encode_switch(b"websocket", headers, self._context.defaults)
        self._write(head, False)
        successor = WebSocketConnection(self._context, exchange)
        unread, self._exchange = self._unread, None
        self.hand_over(successor)
        successor.begin(unread)

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < STREAMING:
            exchange.status = 500
            self.write_head(exchange, [response.PLAIN_TEXT], b"Internal Server Error", False)
        else:
            self._flush()  # what there is of it
            self._lose(exchange)
            self._transport.abort()

    # Ends.

    def _finish(self, exchange: Exchange) -> None:
        """The response is complete."""
        context = self._context
        self._exchange = None
        context.finish(exchange, COMPLETE)
        if not exchange.persistent or context.stopping:
            self._end()
            return
        self._since = context.ticks
        if self._decoder is not None:
            self._dropped = 0
            self._wait = BODY
            self._resume_reading()
        else:
            self._wait = NEXT
            if not self._reading:  # not from here: an app may be deep in its `send`
                context.loop.call_soon(self._proceed, context=context.outside)

    def _lose(self, exchange: Exchange) -> None:
        """The response stays incomplete."""
        self._exchange = None
        self._context.finish(exchange, LOST)

    def _client_left(self, exchange: Exchange) -> None:
        """The client is gone, or was given up: nothing can be sent to it any more."""
        self._lose(exchange)
        if self._context.config.cancel_on_disconnect:
            exchange.cancel()

    def _refuse(self, refused: BadRequest, head: bytes = b"") -> None:
        """Answers what is no request, unless the answer would follow the beginning of another."""
        self._context.note(self.peer.name, refused)
        exchange = self._exchange
        if exchange is not None:
            if exchange.phase >= STREAMING:
                self._flush()  # what there is of the response
                self.close()
                return
            method = exchange.line.method
            exchange.status = refused.status
            self._client_left(exchange)
        elif self._decoder is not None:  # the body was only being dropped
            self._end()
            return
        else:
            head = head if self._head is None else bytes(self._head.data)
            method = head.partition(b" ")[0].decode("latin-1")
        context = self._context
        answer = response.encode_refusal(refused.status, refused.reason, context.defaults, method)
        self._write(answer, False)
        self._end(linger=True)
        if exchange is None:
            context.refused(self.peer, head, refused.status, answer)

    def _end(self, linger: bool = False) -> None:
        """No further exchange."""
        linger = linger or self._decoder is not None or bool(self._unread)
        self._decoder = self._head = None
        self._unread = b""
        super()._end(linger)

    # What the context calls.

    @property
    def busy(self) -> bool:
        return self._exchange is not None or super().busy

    def stop(self) -> None:
        """Closes at once when idle, else when the running exchange is complete."""
        if self._exchange is not None:
            self._exchange.wake()
        elif self._wait not in (HEAD, CLOSE):
            self._end()

    def close(self) -> None:
        if self._exchange is not None:
            self._client_left(self._exchange)
        super().close()

    def _unread_end(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            self.eof = True
            exchange.wake()
            if self._context.config.cancel_on_disconnect or not exchange.unwritten:
                self.close()

    def _charge_for_body(self) -> None:
        if self._exchange is None or self._exchange.awaited:
            super()._charge_for_body()

    def _expire(self) -> None:
        if self._wait == HEAD:
            self._refuse(BadRequest(408, "the head did not arrive in time"))
        elif self._wait == BODY and self._exchange is not None:
            if self._exchange.awaited:
                self._refuse(BadRequest(408, "the body did not arrive in time"))
        elif self._wait == CLOSE:
            super()._expire()
        else:
            self._end()
