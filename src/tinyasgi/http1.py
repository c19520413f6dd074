"""HTTP/1.1 on one connection (RFC 9112): transport ↔ parser, exchanges, encoder."""

import asyncio
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from . import decoder, encoder, rules
from .config import Config
from .context import Context
from .exchange import Exchange, Phase
from .parsers import BadRequest
from .typing import Scope

__all__ = ["HTTP1Connection"]

#: Bytes of request body that may wait for the app before reading pauses.
HIGH_WATER = 64 * 1024
#: Most bytes of a request body that are read and dropped so that the connection persists.
MAX_DROPPED = 256 * 1024
#: Seconds in which a peer that may still be sending can read the last response, before unread
#: data would reset the connection (RFC 9112 §9.6).
LINGER = 2


class Wait:
    """What a connection waits for: plain numbers, they index its time limits."""

    FIRST: Final = 0  # the first byte of the first request
    NEXT: Final = 1  # the first byte of a further request
    HEAD: Final = 2  # the rest of a head
    BODY: Final = 3  # body that the app asked for, or that is dropped
    APP: Final = 4  # the app
    CLOSE: Final = 5  # the peer's end of a connection that serves no more
    WRITE: Final = 6  # the peer to read what is written; judged besides the others


@lru_cache(maxsize=8)
def _limits(config: Config) -> tuple[float, ...]:
    """Time limits in ticks, in the order of `Wait`; 0 is none."""
    head, next_, body = config.timeout_head, config.timeout_keep_alive, config.timeout_body
    limits = (head, next_, head, body, 0, LINGER, config.timeout_write)
    return tuple(math.ceil(limit) or math.inf for limit in limits)


class HTTP1Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time.

    What a client sends ahead of the response it is owed stays in `_unread`, which holds no more
    than one read, and beyond that in the kernel.
    """

    __slots__ = (
        "_context",
        "_decoder",
        "_dropped",
        "_exchange",
        "_limits",
        "_progress",
        "_reading",
        "_since",
        "_template",
        "_transport",
        "_unread",
        "_unsent",
        "_wait",
        "eof",
        "paused",
    )

    _transport: asyncio.Transport
    _template: Scope

    def __init__(self, context: Context) -> None:
        self._context = context
        self._limits = _limits(context.config)
        self._exchange: Exchange | None = None
        self._decoder: decoder.Decoder | None = None  # while request body is to come
        self._dropped = 0
        self._unread = b""
        self._reading = True
        self.paused = False
        self.eof = False
        self._wait: int = Wait.FIRST
        self._since = context.ticks
        self._unsent = 0  # bytes in the transport's buffer, as of the last sweep
        self._progress = 0  # the tick at which that number last changed

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # BaseTransport cannot write
        peer = transport.get_extra_info("peername")
        host = transport.get_extra_info("sockname")
        self._template = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "server": (host, None) if isinstance(host, str) else host[:2],
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
            "root_path": self._context.config.root_path,
            "method": "",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": None,
            "state": None,
            "extensions": None,
        }
        self._context.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._decoder is not None:
            self._read_body(data)
        elif self._wait <= Wait.HEAD and not self.paused:
            self._read_head(data)
        elif self._wait != Wait.CLOSE:
            self._unread += data
            self._pause_reading()

    def eof_received(self) -> bool:
        """A half-close and a close look alike: who has asked for all gets its answer."""
        self.eof = True
        exchange = self._exchange
        if exchange is None or self._decoder is not None or self._template["scheme"] == "https":
            return False
        if self._context.config.cancel_on_disconnect:
            return False
        exchange.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._lose(exchange)
            if self._context.config.cancel_on_disconnect:
                exchange.cancel()
        self._wait = Wait.CLOSE
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
        elif self._wait == Wait.NEXT:
            self._proceed()

    # Reading.

    def _read_head(self, data: bytes) -> None:
        unread = self._unread
        if unread:
            data = unread + data
        if data[0] < 33:  # before a request line there may be an empty one (RFC 9112 §2.2)
            data = rules.EMPTY_LINES.sub(b"", data, 1)
        end = data.find(b"\r\n\r\n", max(len(unread) - 3, 0)) + 4
        try:
            if end < 4:
                self._keep_head(data, len(unread))
            else:
                self._begin(data, end)
        except BadRequest as refused:
            self._refuse(refused, "HEAD" if data.startswith(b"HEAD ") else "GET")

    def _keep_head(self, data: bytes, seen: int) -> None:
        """Keeps the beginning of a head until the rest of it arrives."""
        rules.unfinished_head(data, seen, self._context.config.limit_head_size)
        self._unread = data
        if data and self._wait != Wait.HEAD:
            if self._wait == Wait.NEXT:
                self._since = self._context.ticks
            self._wait = Wait.HEAD

    def _begin(self, data: bytes, end: int) -> None:
        """Starts the exchange whose head is `data[:end]`."""
        context = self._context
        config = context.config
        if end > config.limit_head_size:
            rules.unfinished_head(data[:end], 0, config.limit_head_size)
        line_end = data.find(b"\r\n")
        method, target, version = rules.request_line(data[:line_end])
        raw_path, query, authority = rules.split_target(method, target)
        fields = context.parser.fields(data[:end], line_end + 2)
        if len(fields) > config.limit_head_fields:
            raise BadRequest(431, f"{len(fields)} fields where {config.limit_head_fields} may be")
        values = rules.combined(fields)
        length = rules.content(version, values)
        wants_continue = rules.expects_continue(version, values)
        if authority is not None:
            fields = rules.with_host(fields, authority)
        rest = data[end:]
        body = decoder.choose(length, config.limit_body_size, context.parser) if length else None
        if len(context.running) >= context.concurrency:
            raise BadRequest(503, f"{len(context.running)} requests are running")

        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        if config.root_path:
            path = rules.with_root_path(config.root_path, path)
        scope = self._template.copy()  # type: ignore[attr-defined]  # a dict
        scope["http_version"] = version
        scope["method"] = method
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["headers"] = fields
        scope["state"] = context.state.copy()
        scope["extensions"] = {}
        exchange = Exchange(self, scope, method, target, version)
        exchange.persistent = rules.persistent(version, values)
        if body is not None:
            exchange.expect_body()
            exchange.wants_continue = wants_continue and not rest
        self._exchange = exchange
        self._wait = Wait.APP
        self._decoder = body
        self._unread = b""
        context.start(exchange)
        if not rest:
            return
        if body is not None:
            self._read_body(rest)
        else:
            self._unread = rest
            self._pause_reading()

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
            if rest:
                self._unread = rest
                self._pause_reading()
        exchange = self._exchange
        if exchange is None:
            self._dropped += len(body)
            if rest is not None:
                self._proceed()
            elif self._dropped > MAX_DROPPED:
                self._end()
        elif body or rest is not None:
            self._wait = Wait.APP
            exchange.wants_continue = False
            if exchange.feed(body, rest is not None) > HIGH_WATER:
                self._pause_reading()

    def _proceed(self) -> None:
        """Ready for the next request, which may have been read already."""
        self._wait = Wait.NEXT
        self._since = self._context.ticks
        if self.paused:  # who does not read the last response gets no further one
            return
        if self._unread:
            unread, self._unread = self._unread, b""
            self._read_head(unread)
        if self._wait <= Wait.HEAD:
            if self.eof:
                self._end()
            else:
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
        status: int,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
        more_body: bool,
    ) -> None:
        context = self._context
        head, framing, persistent = encoder.encode_head(
            status,
            fields,
            context.defaults,
            exchange.method,
            exchange.version,
            exchange.persistent and not context.stopping and not exchange.wants_continue,
            None if more_body else len(body),
        )
        data, exchange.framing = encoder.encode_body(framing, body, more_body)
        exchange.persistent = persistent
        exchange.phase = Phase.STREAMING
        self._transport.write(head + data)
        exchange.sent = len(data)
        if not more_body:
            self._finish(exchange)
        elif context.stopping:
            exchange.wake()

    def write_body(self, exchange: Exchange, body: bytes, more_body: bool) -> None:
        data, exchange.framing = encoder.encode_body(exchange.framing, body, more_body)
        if data:
            self._transport.write(data)
            exchange.sent += len(body)
        if not more_body:
            self._finish(exchange)

    def want_body(self, exchange: Exchange) -> None:
        if exchange.wants_continue and exchange.phase < Phase.STREAMING:
            exchange.wants_continue = False
            self._transport.write(encoder.CONTINUE)
        self._wait = Wait.BODY
        self._since = self._context.ticks
        self._resume_reading()

    def abort(self, exchange: Exchange) -> None:
        if exchange.phase < Phase.STREAMING:
            exchange.status = 500
            fields = [(b"content-type", b"text/plain; charset=utf-8")]
            self.write_head(exchange, 500, fields, b"Internal Server Error", False)
        else:
            self._lose(exchange)
            self._transport.abort()

    # Ends.

    def _finish(self, exchange: Exchange) -> None:
        """The response is complete."""
        self._exchange = None
        exchange.finish(Phase.COMPLETE)
        if self._context.access is not None:
            self._context.access(exchange)
        if not exchange.persistent or self._context.stopping:
            self._end()
        elif self._decoder is not None:
            self._dropped = 0
            self._wait = Wait.BODY
            self._since = self._context.ticks
            self._resume_reading()
        else:
            self._proceed()

    def _lose(self, exchange: Exchange) -> None:
        """The response stays incomplete."""
        self._exchange = None
        exchange.finish(Phase.LOST)
        if self._context.access is not None:
            self._context.access(exchange)

    def _refuse(self, refused: BadRequest, method: str = "GET") -> None:
        """Answers what is no request, unless the answer would follow the beginning of another."""
        self._context.refused(self._template["client"], refused)
        exchange = self._exchange
        if exchange is not None:
            if exchange.phase >= Phase.STREAMING:
                self.abort(exchange)
                return
            method = exchange.method
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
        self._wait = Wait.CLOSE
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
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._progress = ticks
        elif unsent:
            if ticks - self._progress > self._limits[Wait.WRITE]:
                self._context.note(self._template["client"], "does not read its response")
                self.close()
        elif ticks - self._since > self._limits[self._wait]:
            self._expire()

    def _expire(self) -> None:
        wait = self._wait
        if wait == Wait.HEAD:
            self._refuse(BadRequest(408, "the head did not arrive in time"))
        elif wait == Wait.BODY and self._exchange is not None:
            if self._exchange.awaited:
                self._refuse(BadRequest(408, "the body did not arrive in time"))
        elif wait == Wait.CLOSE:
            self._transport.abort()
        else:
            self._end()

    def stop(self) -> None:
        if self._exchange is not None:
            self._exchange.wake()
        elif self._wait <= Wait.NEXT:
            self._end()

    def close(self) -> None:
        if self._exchange is not None:
            self._lose(self._exchange)
        self._transport.abort()
