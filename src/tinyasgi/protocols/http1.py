"""HTTP/1.1 on one connection (RFC 9112): from transport to exchanges and back."""

import asyncio
from typing import TYPE_CHECKING

from ..http import response
from ..http.body import create_decoder
from ..http.buffer import HeadBuffer
from ..http.parsers import BadRequest
from ..http.request import Framing
from ..typing import HeaderPairs
from .context import Context
from .delivery import has_ended
from .exchange import Exchange
from .request_head import Head, HeadParser
from .response_writer import ResponseWriter
from .states import APP, BODY, CLOSING, HEAD, IDLE, NEW, STREAMING

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import ProxyHeader
    from .websocket import WebSocketExchange

#: Maximum bytes of a request body that are read and dropped to keep the connection alive.
MAX_DROPPED = 256 * 1024

#: The states in which data is the beginning, or the rest, of a head.
READS_HEAD = (IDLE, NEW, HEAD)


class HTTP1Connection(ResponseWriter):
    """A connection that carries one exchange at a time: it reads requests and begins exchanges.

    Pipelined requests wait in `_unread`, which holds at most one read; further ones wait in the
    kernel.
    """

    __slots__ = ("_head", "_heads", "_pipelines")

    _heads: HeadParser

    def __init__(
        self, context: Context, unix: bool = False, header: "ProxyHeader | None" = None
    ) -> None:
        super().__init__(context, unix, header)
        self._head: HeadBuffer | None = None  # an incomplete head
        self._pipelines = False  # the client has sent a request ahead of a response

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._state is NEW:
            self._heads = HeadParser(self._context, self.peer)

    def data_received(self, data: bytes) -> None:
        if self._state not in READS_HEAD or self.paused:
            self._receive_other(data)
            return
        try:
            head = self._heads.parse(data) if self._head is None else None
            if head is None:
                self._receive_head(data)
            else:
                self._begin(head)
        except BadRequest as refused:
            if refused.status == 505 and self._is_http2(data):
                return
            self._decoder = None
            self._refuse(refused, data)

    def eof_received(self) -> bool:
        """Return whether to stay open for a response: the client may only have stopped sending."""
        super().eof_received()
        exchange, cancel = self._exchange, self._context.config.cancel_on_disconnect
        if cancel or exchange is None or self._decoder is not None or not exchange.unwritten:
            return False
        exchange.persistent = False
        self._since = self._context.ticks
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
            self._since = self._context.ticks  # data that has arrived meanwhile was not read
            self._context.run_outside(self._proceed)

    # Reading.

    def _receive_other(self, data: bytes) -> None:
        """Receive data in a state in which no head is expected, or while writing is paused."""
        if self._decoder is not None:
            self._receive_body(data)
        elif self._state is CLOSING:
            self._drop()
        else:
            self._unread += data
            self._pipelines = True
            self._pause_reading()

    def _receive_head(self, data: bytes) -> None:
        """Receive an incomplete head, or the rest of one. Raises BadRequest."""
        if self._head is None:
            self._head = HeadBuffer(
                self._context.request_lines, self._context.config.limit_head_size
            )
        whole = self._head.receive(data)
        if whole is None:
            if self._state is IDLE:
                self._since = self._context.ticks
            self._state = HEAD
            return
        self._head = None
        if whole:
            self.data_received(whole)
        elif self._state is HEAD:  # only empty lines
            self._state = IDLE

    def _is_http2(self, data: bytes) -> bool:
        """Continue with HTTP/2 if this is its preface (RFC 9113 §3.3); return whether it is.

        data: bytes of the last read.
        """
        data = data if self._head is None else bytes(self._head.data)
        plain = self._transport.get_extra_info("ssl_object") is None
        if not (
            self._context.config.http2
            and plain
            and self._heads.is_unused
            and data.startswith(b"PRI * HTTP/2.0\r\n")
        ):
            return False
        from .http2 import HTTP2Connection  # an optional package

        successor = HTTP2Connection(self._context)
        self.hand_over(successor)
        successor.begin(data)
        return True

    def _begin(self, head: Head) -> None:
        """Begin the exchange of a request. Raises BadRequest."""
        context = self._context
        config = context.config
        line, headers, framing, rest = head
        self.client = client = self._heads.client
        websocket = framing.wants_websocket and line.method == "GET" and config.ws != "none"
        full = context.concurrency and context.unanswered >= context.concurrency
        if full and (websocket or line.route != context.health_path):
            raise BadRequest(503, f"--limit-concurrency ({context.concurrency}) reached")
        scope = line.scope | client.scope
        scope["headers"] = headers
        scope["state"] = context.lifespan_state.copy()
        if websocket:
            from .websocket import WebSocketExchange  # optional; its import takes 10 ms

            exchange: Exchange = WebSocketExchange(self, scope, line, framing.persistent, config)
        else:
            exchange = Exchange(self, scope, line, framing.persistent)
        if context.request_ids is not None:
            context.request_ids.assign(exchange, self.trusted)
        if framing.length:
            rest = self._begin_body(exchange, framing, rest)
        self._exchange = exchange
        self._state = APP
        self._unread = rest
        # A disconnect is noticed only while reading.
        if rest or self._decoder is not None or not self._reading:
            self._set_reading(not rest and not exchange.full)
            if rest:
                self._pipelines = True
        context.start(exchange)
        if self.write_buffer and self._exchange is exchange:
            context.loop.call_soon(self._flush_before, exchange, context=context.outside)

    def _begin_body(self, exchange: Exchange, framing: Framing, data: bytes) -> bytes:
        """Expect a request body that begins with `data`; return the data after it."""
        context = self._context
        self._decoder = create_decoder(
            framing.length, context.config.limit_body_size, context.parser
        )
        self._continue = framing.expects_continue
        exchange.expect_body()
        self._behind = 0
        return self._take_body(exchange, data) if data else data

    def _take_body(self, exchange: Exchange | None, data: bytes) -> bytes:
        """Decode request body for the exchange, or drop it; return the data after the body.

        Raises BadRequest.
        """
        assert self._decoder is not None
        body, rest = self._decoder.decode(data)
        self._since = self._context.ticks
        self._behind -= len(body)
        if rest is not None:
            self._decoder = None
        if exchange is None:
            self._dropped += len(body)
        elif body or rest is not None:
            self._state = APP
            self._continue = False
            exchange.feed(body, rest is not None)
        return rest or b""

    def _receive_body(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            rest = self._take_body(exchange, data)
        except BadRequest as refused:
            self._refuse(refused)
            return
        self._unread = rest
        self._pipelines = self._pipelines or bool(rest)
        if exchange is not None:
            self._set_reading(not rest and not exchange.full)
        elif self._decoder is None:
            self._state = IDLE
            self._proceed()
        elif self._dropped > MAX_DROPPED:
            self._end()

    def _flush_before(self, exchange: Exchange) -> None:
        """Write buffered responses if the first step of its app did not complete `exchange`."""
        if self._exchange is exchange:
            self._flush()

    def _proceed(self) -> None:
        """Begin the next request, which may have been read already, or wait for it."""
        if self._state not in READS_HEAD or self.paused:  # first the client must read its responses
            return
        if self._unread:
            unread, self._unread = self._unread, b""
            self.data_received(unread)
        if self._state in READS_HEAD and not self._unread:
            self._flush()
            self._resume_reading()

    # Called by the exchange.

    def want_body(self, exchange: Exchange) -> None:
        if self._continue and exchange.phase < STREAMING:
            self._continue = False
            self._write(response.CONTINUE, False)
        self._enter(BODY)
        self._resume_reading()

    def switch(self, exchange: "WebSocketExchange", headers: HeaderPairs) -> None:
        """Write 101 (Switching Protocols); pass the exchange to a WebSocketConnection.

        Raises TypeError or ValueError.
        """
        from .websocket import WebSocketConnection

        head = response.encode_switch(
            b"websocket", headers, self._context.defaults, exchange.request_id
        )
        self._write(head, False)
        successor = WebSocketConnection(self._context, exchange)
        unread, self._exchange = self._unread, None
        self.hand_over(successor)
        successor.begin(unread)

    # Ending.

    def _refuse(self, refused: BadRequest, head: bytes = b"") -> None:
        """Answer an invalid request and close, unless a response has already started."""
        self._context.log_peer_error(self.peer.name, refused)
        exchange = self._exchange
        if exchange is not None:
            if exchange.phase >= STREAMING:
                self._flush()
                self.close()
                return
            method = exchange.line.method
            exchange.status = refused.status
            self._client_left(exchange)
        elif self._decoder is not None:  # in a body that is dropped
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
        """Close after what was written; begin no other exchange."""
        # A client that pipelines may have sent more than was read.
        linger = linger or self._decoder is not None or self._pipelines
        self._decoder = self._head = None
        self._unread = b""
        super()._end(linger)

    # Called by context and server.

    @property
    def busy(self) -> bool:
        return self._exchange is not None or super().busy

    def stop(self) -> None:
        """Close now if idle, otherwise after the running exchange."""
        if self._exchange is not None:
            self._exchange.wake()
        elif self._state not in (HEAD, CLOSING):
            self._end()

    def close(self) -> None:
        if self._exchange is not None:
            self._client_left(self._exchange)
        super().close()

    def _check_unread_end(self) -> None:
        exchange = self._exchange
        if exchange is not None and has_ended(self._transport):
            self.eof = True
            self._since = self._context.ticks
            exchange.wake()
            if self._context.config.cancel_on_disconnect or not exchange.unwritten:
                self.close()

    def _check_body_rate(self) -> None:
        if self._exchange is None or self._exchange.awaited:
            super()._check_body_rate()

    def _expire(self) -> None:
        if self._state is HEAD:
            self._refuse(BadRequest(408, "the head did not arrive in time"))
        elif self._state is BODY and self._exchange is not None:
            if self._exchange.awaited:
                self._refuse(BadRequest(408, "the body did not arrive in time"))
        elif self._state is CLOSING:
            super()._expire()
        else:
            self._end()
