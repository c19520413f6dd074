"""HTTP/1.1 on one connection (RFC 9112): transport ↔ parser, exchanges, encoder."""

import asyncio
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from . import decoder, encoder, rules
from .config import Config
from .context import Context
from .exchange import COMPLETE, LOST, STREAMING, Exchange
from .parsers import BadRequest

__all__ = ["LINGER", "HTTP1Connection"]

#: Bytes of request body that may wait for the app before reading pauses.
HIGH_WATER = 64 * 1024
#: Most bytes of a request body that are read and dropped so that the connection persists.
MAX_DROPPED = 256 * 1024
#: Seconds in which a peer that may still be sending can read the last response, before unread
#: data would reset the connection (RFC 9112 §9.6).
LINGER = 2

# What a connection waits for: plain numbers, they index its time limits.
FIRST: Final = 0  # the first byte of the first request
NEXT: Final = 1  # the first byte of a further request
HEAD: Final = 2  # the rest of a head
BODY: Final = 3  # body that the app asked for, or that is dropped
APP: Final = 4  # the app
CLOSE: Final = 5  # the peer's end of a connection that serves no more
WRITE: Final = 6  # the peer to read what is written; judged besides the others


@lru_cache(maxsize=8)
def _limits(config: Config) -> tuple[float, ...]:
    """Time limits in ticks, in the order of the above; 0 is none."""
    head, keep_alive, body = config.timeout_head, config.timeout_keep_alive, config.timeout_body
    limits = (head, keep_alive, head, body, 0, LINGER, config.timeout_write)
    return tuple(math.ceil(limit) or math.inf for limit in limits)


class HTTP1Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time.

    What a client sends ahead of the response it is owed stays in `_unread`, which holds no more
    than one read, and beyond that in the kernel.
    """

    __slots__ = (
        "_client",
        "_context",
        "_continue",
        "_decoder",
        "_dropped",
        "_exchange",
        "_progress",
        "_reading",
        "_scheme",
        "_server",
        "_since",
        "_transport",
        "_unread",
        "_unsent",
        "_wait",
        "eof",
        "paused",
    )

    _transport: asyncio.Transport

    def __init__(self, context: Context) -> None:
        self._context = context
        self._exchange: Exchange | None = None
        self._decoder: decoder.Decoder | None = None  # while request body is to come
        self._continue = False  # the client waits for 100 (Continue) to send its body
        self._dropped = 0  # bytes of a body that the app did not take
        self._unread = b""
        self._reading = True
        self.paused = False
        self.eof = False
        self._wait: int = FIRST
        self._since = context.ticks
        self._unsent = 0  # bytes in the transport's buffer, as of the last sweep
        self._progress = 0  # the tick at which that number last changed

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a BaseTransport cannot write
        peer = transport.get_extra_info("peername")
        host = transport.get_extra_info("sockname")
        self._server = (host, None) if isinstance(host, str) else tuple(host[:2])
        self._client = tuple(peer[:2]) if isinstance(peer, tuple) else None
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._context.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._wait > HEAD or self.paused:
            self._read_more(data)
            return
        seen = 0
        if self._unread:
            seen = max(len(self._unread) - 3, 0)
            data = self._unread + data
        try:
            end = data.find(b"\r\n\r\n", seen) + 4
            if end < 4 or data[0] < 33:
                self._keep_head(data, seen)
            else:
                self._begin(data, end)
        except BadRequest as refused:
            self._refuse(refused, "HEAD" if data.startswith(b"HEAD ") else "GET")

    def eof_received(self) -> bool:
        """A half-close and a close look alike: who has asked for all gets its answer."""
        self.eof = True
        exchange = self._exchange
        if exchange is None or self._decoder is not None or self._scheme == "https":
            return False
        if self._context.config.cancel_on_disconnect:
            return False
        exchange.persistent = False
        exchange.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._lose(exchange)
            if self._context.config.cancel_on_disconnect:
                exchange.cancel()
        self._wait = CLOSE
        self._decoder = None
        self._unread = b""
        del self._transport
        self._context.closed(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._unsent = 0
        if self._exchange is not None:
            self._exchange.wake()
        elif self._wait == NEXT:
            self._proceed()

    # Reading.

    def _read_more(self, data: bytes) -> None:
        """Data while no head is expected."""
        if self._decoder is not None:
            self._read_body(data)
        elif self._wait != CLOSE:
            self._unread += data
            self._pause_reading()

    def _keep_head(self, data: bytes, seen: int) -> None:
        """Keeps the beginning of a head until the rest of it arrives, without empty lines."""
        if data.startswith(b"\r\n"):
            self._unread = b""
            data = rules.EMPTY_LINES.sub(b"", data, 1)
            if data:
                self.data_received(data)
            return
        rules.unfinished_head(data, seen, self._context.config.limit_head_size)
        self._unread = data
        if self._wait == NEXT:
            self._since = self._context.ticks
        self._wait = HEAD

    def _begin(self, data: bytes, end: int) -> None:
        """Starts the exchange whose head is `data[:end]`."""
        context = self._context
        config = context.config
        if end > config.limit_head_size:
            rules.unfinished_head(data[:end], 0, config.limit_head_size)
        start = data.find(b"\r\n") + 2
        line = context.request_lines[data[: start - 2]]
        fields = context.parser.fields(data[:end], start)
        if len(fields) > config.limit_head_fields:
            raise BadRequest(431, f"{len(fields)} fields where {config.limit_head_fields} may be")
        length, persistent, wants_continue = rules.judge(line.version, fields)
        if line.host is not None:
            fields = rules.with_host(fields, line.host)
        if len(context.running) >= context.concurrency:
            raise BadRequest(503, f"{len(context.running)} requests are running")
        scope = line.scope.copy()
        scope["server"] = self._server
        scope["client"] = self._client
        scope["scheme"] = self._scheme
        scope["headers"] = fields
        scope["state"] = context.state.copy()
        self._exchange = exchange = Exchange(self, scope, line, persistent)
        self._wait = APP
        if length:
            self._continue = wants_continue and end == len(data)
            self._decoder = decoder.choose(length, config.limit_body_size, context.parser)
            exchange.expect_body()
        context.start(exchange)
        self._unread = b""
        if end < len(data):
            self._read_more(data[end:])

    def _read_body(self, data: bytes) -> None:
        assert self._decoder is not None
        try:
            body, rest = self._decoder.decode(data)
        except BadRequest as refused:
            self._refuse(refused)
            return
        self._since = self._context.ticks
        if rest is not None:
            self._decoder = None
        exchange = self._exchange
        if exchange is None:
            self._dropped += len(body)
            if rest is not None:
                self._unread = rest
                self._wait = NEXT
                self._proceed()
            elif self._dropped > MAX_DROPPED:
                self._end()
        elif body or rest is not None:
            self._wait = APP
            self._continue = False
            if exchange.feed(body, rest is not None) > HIGH_WATER:
                self._pause_reading()
            if rest:
                self._read_more(rest)

    def _proceed(self) -> None:
        """Ready for the next request, which may have been read already."""
        if self.paused:  # who does not read the last response gets no further one
            return
        if self._unread:
            unread, self._unread = self._unread, b""
            self.data_received(unread)
        if self._wait <= HEAD:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    # What an exchange calls.

    @property
    def stopping(self) -> bool:
        return self._context.stopping

    def write_head(
        self,
        exchange: Exchange,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
        more_body: bool,
    ) -> None:
        context = self._context
        head, exchange.framing, exchange.persistent = encoder.encode_head(
            exchange.status,
            fields,
            context.defaults,
            exchange.line,
            exchange.persistent and not context.stopping and not self._continue,
            None if more_body else len(body),
        )
        if not more_body and exchange.framing >= 0:  # whole, and of the length that the head says
            self._transport.write(head + body)
            exchange.sent = len(body)
            self._finish(exchange)
            return
        exchange.phase = STREAMING
        self.write_body(exchange, body, more_body, head)
        if context.stopping:
            exchange.wake()

    def write_body(
        self, exchange: Exchange, body: bytes, more_body: bool, head: bytes = b""
    ) -> None:
        data, exchange.framing = encoder.encode_body(exchange.framing, body, more_body)
        if data or head:
            self._transport.write(head + data)
            exchange.sent += len(body) if data else 0
        if not more_body:
            self._finish(exchange)

    def want_body(self, exchange: Exchange) -> None:
        if self._continue and exchange.phase < STREAMING:
            self._continue = False
            self._transport.write(encoder.CONTINUE)
        self._wait = BODY
        self._since = self._context.ticks
        self._resume_reading()

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < STREAMING:
            exchange.status = 500
            fields = [(b"content-type", b"text/plain; charset=utf-8")]
            self.write_head(exchange, fields, b"Internal Server Error", False)
        else:
            self._lose(exchange)
            self._transport.abort()

    # Ends.

    def _finish(self, exchange: Exchange) -> None:
        """The response is complete."""
        context = self._context
        self._exchange = None
        exchange.finish(COMPLETE)
        if context.access is not None:
            context.access(exchange)
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
            if not self._reading or self.paused:
                self._proceed()

    def _lose(self, exchange: Exchange) -> None:
        """The response stays incomplete."""
        self._exchange = None
        exchange.finish(LOST)
        if self._context.access is not None:
            self._context.access(exchange)

    def _refuse(self, refused: BadRequest, method: str = "GET") -> None:
        """Answers what is no request, unless the answer would follow the beginning of another."""
        self._context.refused(self._client, refused)
        exchange = self._exchange
        if exchange is not None:
            if exchange.phase >= STREAMING:
                self.abort(exchange)
                return
            method = exchange.line.method
            exchange.status = refused.status
            self._lose(exchange)
        elif self._decoder is not None:  # the body was only being dropped
            self._end()
            return
        self._transport.write(
            encoder.encode_refusal(refused.status, refused.reason, self._context.defaults, method)
        )
        self._end(linger=True)

    def _end(self, linger: bool = False) -> None:
        """No further exchange: closes once all that was written is sent.

        linger: the peer may be sending; the close waits for it to see the response.
        """
        linger = linger or self._decoder is not None or bool(self._unread)
        self._wait = CLOSE
        self._since = self._context.ticks
        self._decoder = None
        self._unread = b""
        if linger and not self.eof and self._transport.can_write_eof():
            self._transport.write_eof()
            self._resume_reading()
        else:
            self._transport.close()

    # What the context calls.

    def sweep(self, ticks: int) -> None:
        limits = _limits(self._context.config)
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._progress = ticks
        elif unsent:
            if ticks - self._progress > limits[WRITE]:
                self._context.note(self._client, "does not read its response")
                self.close()
        elif ticks - self._since > limits[self._wait]:
            self._expire()

    def _expire(self) -> None:
        wait = self._wait
        if wait == HEAD:
            self._refuse(BadRequest(408, "the head did not arrive in time"))
        elif wait == BODY and self._exchange is not None:
            if self._exchange.awaited:
                self._refuse(BadRequest(408, "the body did not arrive in time"))
        elif wait == CLOSE:
            self._transport.abort()
        else:
            self._end()

    def stop(self) -> None:
        if self._exchange is not None:
            self._exchange.wake()
        elif self._wait <= NEXT:
            self._end()

    def close(self) -> None:
        if self._exchange is not None:
            self._lose(self._exchange)
        self._transport.abort()
