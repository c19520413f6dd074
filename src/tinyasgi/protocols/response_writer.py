"""The writing half of HTTP/1.1 (RFC 9112): responses of exchanges, and their end."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from ..http import response
from ..http.body import BodyDecoder
from ..typing import HeaderPairs
from .connection import Connection
from .context import Context
from .exchange import Exchange
from .states import BODY, COMPLETE, IDLE, LOST, STREAMING
from .stream import FilePart, FileWriter

if TYPE_CHECKING:
    from ..proxy.proxy_protocol import ProxyHeader


class ResponseWriter(Connection):
    """The part of an HTTP/1.1 connection that writes the response of its exchange."""

    __slots__ = ("_continue", "_decoder", "_dropped", "_exchange", "_unread")

    def __init__(
        self, context: Context, unix: bool = False, header: "ProxyHeader | None" = None
    ) -> None:
        super().__init__(context, unix, header)
        self._exchange: Exchange | None = None
        self._decoder: BodyDecoder | None = None  # until the request body is complete
        self._continue = False  # the client waits for 100 (Continue) before it sends the body
        self._dropped = 0  # bytes of a body that the app has not read
        self._unread = b""

    @abstractmethod
    def _proceed(self) -> None:
        """Begin the next request, which may have been read already, or wait for it."""

    # Called by the exchange.

    def write_interim(self, exchange: Exchange, status: int, headers: HeaderPairs) -> None:
        data = response.encode_interim(status, headers)
        if exchange.line.version != "1.0":
            self._write(data, True)

    def write_head(
        self,
        exchange: Exchange,
        headers: HeaderPairs,
        body: bytes,
        more_body: bool,
        length: int | None = None,
    ) -> None:
        context = self._context
        head, framing, persistent = response.encode_head(
            exchange.status,
            headers,
            context.defaults,
            exchange.line,
            exchange.persistent and context.keep_alive and not self._continue,
            length if more_body else len(body),
            exchange.request_id,
        )
        exchange.persistent = persistent
        if more_body or framing < 0:
            exchange.sent = 0 if framing == response.NO_BODY else len(body)
            body, exchange.framing = response.encode_body(framing, body, more_body)
        else:  # the body is complete
            exchange.sent = framing
        if more_body:
            self._write(head + body, True)
            exchange.phase = STREAMING
            if self.eof and not exchange.unwritten:
                self._end()
            elif context.stopping:
                exchange.wake()
            return
        if self._unread:
            self._buffer(head + body)  # `_proceed` begins the next request
        elif self.write_buffer:
            self._write(head + body, False)
        else:
            self._transport.write(head + body)
        self._finish(exchange)

    def write_body(self, exchange: Exchange, body: bytes, more_body: bool) -> None:
        if self._transport.is_closing():  # broken, and `connection_lost` has not been called yet
            self._client_left(exchange)
            return
        data, exchange.framing = response.encode_body(exchange.framing, body, more_body)
        if data:
            self._write(data, more_body)
            exchange.sent += len(body)
        elif not more_body:
            self._flush()  # the buffer may contain responses to earlier pipelined requests
        if not more_body:
            self._finish(exchange)
        elif self.eof and exchange.trailers is None:
            self._check_half_closed(exchange, data)

    def _check_half_closed(self, exchange: Exchange, data: bytes) -> None:
        """Give up a half-closed client if the app sends only empty pieces for too long.

        Only a write shows whether such a client still reads. A compressor may need many pieces
        before it has data, so one empty piece is no reason.
        """
        if data:
            self._since = self._context.ticks
        elif self._context.ticks - self._since > self._context.write_timeout:
            self._client_left(exchange)
            self._end()

    @property
    def file_writer(self) -> FileWriter | None:
        from .extensions.sendfile import has_socket

        return self._write_file if has_socket(self._transport) else None

    async def _write_file(self, exchange: Exchange, part: FilePart) -> None:
        from .extensions.sendfile import sendfile

        begin, end, framing = response.frame_part(exchange.framing, part.size)
        exchange.framing = framing
        self._write(begin, True)
        self._flush()
        self._unsent_file = part.size

        def on_sent(size: int) -> None:
            self._unsent_file -= size
            exchange.sent += size

        try:
            await sendfile(self._transport, exchange, part, on_sent)
        except ConnectionError:
            if self._exchange is exchange:
                self._client_left(exchange)
                self._transport.abort()
        finally:
            self._unsent_file = 0
        if self._exchange is exchange:
            self._write(end, True)

    def write_trailers(self, exchange: Exchange, trailers: HeaderPairs) -> None:
        if self._transport.is_closing():
            self._client_left(exchange)
            return
        if data := response.encode_trailers(exchange.framing, trailers):
            self._write(data, False)
        self._finish(exchange)

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < STREAMING:
            exchange.status = 500
            self.write_head(exchange, [response.PLAIN_TEXT], b"Internal Server Error", False)
        else:
            self._flush()
            self._lose(exchange)
            self._transport.abort()

    # Ending.

    def _finish(self, exchange: Exchange) -> None:
        """Finish a complete response."""
        context = self._context
        self._exchange = None
        exchange.finish(COMPLETE, context.on_finish)
        if not exchange.persistent or context.stopping:
            self._end()
            return
        self._since = context.ticks
        if self._decoder is not None:
            self._dropped = 0
            self._state = BODY
            self._resume_reading()
        else:
            self._state = IDLE
            if not self._reading:  # not a direct call, because the app may be in its `send`
                context.loop.call_soon(self._proceed, context=context.outside)

    def _lose(self, exchange: Exchange) -> None:
        """Give up an incomplete response."""
        self._exchange = None
        exchange.finish(LOST, self._context.on_finish)

    def _client_left(self, exchange: Exchange) -> None:
        """Give up the exchange, because nothing can be sent to the client any more."""
        self._lose(exchange)
        if self._context.config.cancel_on_disconnect:
            exchange.cancel()
