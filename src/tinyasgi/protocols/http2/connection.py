"""HTTP/2 on one connection (RFC 9113): from transport to streams and back."""

import asyncio
from typing import TYPE_CHECKING, Final

from ...http.parsers import BadRequest
from ..context import Context
from ..exchange import Exchange
from ..refusal import Refusal
from ..states import APP, CLOSING, COMPLETE, HEAD, IDLE, LOST, NEW
from . import frames
from .frames import ConnectionFault, ErrorCode, StreamFault
from .multiplexer import GOAWAY_PING, Multiplexer
from .reader import FrameReader
from .request import Request, RequestReader
from .shared import CONNECTION_WINDOW, MAX_STREAMS
from .stream import HTTP2Stream

if TYPE_CHECKING:
    from ...proxy.proxy_protocol import ProxyHeader

#: Unsent bytes above which reading pauses, because frames of the client cause responses.
MAX_UNSENT: Final = 256 * 1024


class HTTP2Connection(Multiplexer):
    """A connection that carries one exchange in each stream."""

    __slots__ = ("_credit", "_left", "_reader", "_requests")

    _requests: RequestReader

    def __init__(
        self, context: Context, unix: bool = False, header: "ProxyHeader | None" = None
    ) -> None:
        super().__init__(context, unix, header)
        self._reader = FrameReader(self, context.config.limit_head_size)
        #: Exchanges that have lost their stream; the apps of some may still run.
        self._left: set[Exchange] = set()
        self._credit = CONNECTION_WINDOW  # bytes of request bodies that the client may send

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._state is NEW:
            self.begin(b"")

    def begin(self, data: bytes) -> None:
        """Send the first frames. data: bytes that have been received already."""
        self._requests = RequestReader(self._context, self.peer)
        self.send(self._context.http2.greeting)
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._state is CLOSING:
            self._drop()
            return
        self._is_processing = True
        try:
            self._reader.receive(data)
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            self._is_processing = False
        if self.write_buffer:
            self._flush()
        if self.paused and self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._pause_reading()

    def eof_received(self) -> bool:
        """Return whether to stay open for responses: the client may only have stopped sending."""
        super().eof_received()
        for stream in [*self.streams.values()]:
            if stream.is_receiving:
                stream.drop()
        if not self.streams or self._context.config.cancel_on_disconnect:
            return False
        self._wake()
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lose_streams()
        del self._reader, self.sender  # each refers to the connection: reference cycles

    def resume_writing(self) -> None:
        super().resume_writing()
        self.sender.pump()
        if not self.paused:
            self._wake()
        self._resume_reading()

    def _wake(self) -> None:
        for stream in [*self.streams.values()]:
            if stream.exchange is not None:
                stream.exchange.wake()

    # Called by the reader.

    def on_greeting(self) -> None:
        """Begin to wait for requests, after the preface."""
        if self._state is NEW:
            self._enter(IDLE)

    def on_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """Begin the exchange of a stream, or end its request body.

        Raises ConnectionFault or StreamFault.
        """
        stream = self.streams.get(stream_id)
        if stream is not None and not stream.is_receiving:
            self._requests.skip(block)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        if stream is not None:
            self._requests.read_trailers(block)
            if not end_stream:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailer section without END_STREAM")
            stream.receive(b"", 0, True)
        elif self.ids.begin(stream_id, self._refuses):
            request = self._requests.read(block)
            in_use = len(self.streams) + len(self._left)
            if self._refuses or (in_use >= MAX_STREAMS and self._is_full()):
                raise StreamFault(ErrorCode.REFUSED_STREAM, "no further streams are allowed")
            self.budget.on_request()
            self._begin(stream_id, request, end_stream)
        else:
            self.budget.on_control_frame()
            self._requests.skip(block)
            self.ids.check_late(stream_id)

    def on_data(self, stream_id: int, data: bytes, size: int, end_stream: bool) -> None:
        """Pass request body to its stream. Raises ConnectionFault or StreamFault.

        size: of the payload with its padding.
        """
        self._credit -= size
        # Also for data that nobody reads. The next frame is always smaller than what is left.
        if self._credit < CONNECTION_WINDOW // 2:
            self.send(frames.window_update(0, CONNECTION_WINDOW - self._credit))
            self._credit = CONNECTION_WINDOW
        stream = self.streams.get(stream_id)
        if not data and not (end_stream and stream):
            self.budget.on_control_frame()
        if stream is None:
            self.ids.check_late(stream_id)
            return
        stream.receive(data, size, end_stream)

    def on_reset(self, stream_id: int) -> None:
        """End a stream that the client has reset. Raises ConnectionFault."""
        stream = self.find(stream_id)
        if stream is None:
            self.budget.on_control_frame()
            return
        self.ids.on_reset(stream_id, by_server=False)
        stream.drop()
        self.budget.on_fault()

    def on_ping_ack(self, payload: bytes) -> None:
        """Continue after the client has received the first GOAWAY."""
        if payload == GOAWAY_PING:
            self._leave_finally()

    def on_goaway(self) -> None:
        """Close after the last stream, because the client is leaving."""
        if self._goaway_tick is None:
            self._goaway_tick = self._context.ticks

    # Exchanges.

    def _is_full(self) -> bool:
        """Return whether MAX_STREAMS are in use. A reset stream counts until its app has ended."""
        self._left &= self._context.running
        return len(self.streams) + len(self._left) >= MAX_STREAMS

    def _begin(self, stream_id: int, request: Request, end_stream: bool) -> None:
        """Begin an exchange. Raises StreamFault."""
        context = self._context
        line, headers, framing, client, refused = request
        if end_stream and framing.length > 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without a body")
        stream = self.streams[stream_id] = HTTP2Stream(self, context, stream_id, client)
        self._enter(APP)
        full = context.concurrency and context.unanswered >= context.concurrency
        if full and (framing.wants_websocket or line.route != context.health_path):
            refused = BadRequest(503, f"--limit-concurrency ({context.concurrency}) reached")
        if not end_stream:
            limit = 0 if framing.wants_websocket else context.config.limit_body_size
            stream.expect_body(framing, limit)
            if limit and framing.length > limit and refused is None:
                text = f"request body of {framing.length} bytes exceeds --limit-body-size ({limit})"
                refused = BadRequest(413, text)
        if refused is not None:
            self._refuse(stream, request, refused)
            return
        scope = line.scope | client.scope
        scope["headers"] = headers.copy()
        scope["state"] = context.lifespan_state.copy()
        if framing.wants_websocket:
            from ..websocket import WebSocketExchange  # an optional package

            try:
                exchange: Exchange = WebSocketExchange(stream, scope, line, True, context.config)
            except BadRequest as error:
                self._refuse(stream, request, error)
                return
            stream.expect_tunnel(end_stream)
        else:
            exchange = Exchange(stream, scope, line, True)
        stream.exchange = exchange
        if context.request_ids is not None:
            context.request_ids.assign(exchange, self.trusted)
        if not end_stream and not framing.wants_websocket:
            exchange.expect_body()
        if not context.keep_alive:
            self._leave()  # before the response, after which the client would send more
        context.start(exchange)

    def _refuse(self, stream: HTTP2Stream, request: Request, refused: BadRequest) -> None:
        """Answer a request without the app. Raises ConnectionFault."""
        context = self._context
        context.log_peer_error(self.peer.name, refused)
        sent = stream.respond(refused, request.line.method)
        refusal = Refusal(request.client, request.line, request.headers, refused.status, sent)
        context.log_refusal(refusal)
        self.budget.on_fault()

    def finish(self, exchange: Exchange) -> None:
        """Finish a complete response."""
        self.budget.on_response()
        exchange.finish(COMPLETE, self._context.on_finish)

    def lose(self, exchange: Exchange) -> None:
        """Give up an incomplete response."""
        self._left.add(exchange)
        exchange.finish(LOST, self._context.on_finish)
        if self._context.config.cancel_on_disconnect:
            exchange.cancel()

    # Called by context and server.

    @property
    def busy(self) -> bool:
        return bool(self.streams) or super().busy

    def _fail(self, fault: ConnectionFault) -> None:
        """Close because of an error of the client (RFC 9113 §5.4.1)."""
        if self._state is not CLOSING:
            self._context.log_peer_error(self.peer.name, fault)
            self._close_with(fault.code, fault.reason)

    def stop(self) -> None:
        """Announce the end to the client; close after running exchanges."""
        if self._state is NEW:
            self._end(linger=True)
        elif self._state is not CLOSING:
            self._leave()
            self._wake()

    def close(self) -> None:
        if self._state is not CLOSING:
            self._close_with(ErrorCode.NO_ERROR)
        super().close()

    def check_timeouts(self, ticks: int) -> None:
        self.budget.refill()
        if self._state is not CLOSING and self._state is not NEW:
            if self._goaway_tick is not None and ticks > self._goaway_tick:
                self._leave_finally()
            elif not self._context.keep_alive and ticks > self._since + 1:
                self._leave()  # an active client gets GOAWAY with its next request
            for stream in [*self.streams.values()]:
                stream.check_timeouts(ticks)
            since = self._reader.waiting_since
            if since is not None and ticks - since > self._context.timeouts[HEAD]:
                text = "headers, or a frame, did not arrive within --timeout-head"
                self._fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text))
            elif self.sender.is_stalled(ticks):
                self._give_up(
                    "closed, the client read nothing, or too slowly (--timeout-write,"
                    " --min-rate-write)"
                )
        super().check_timeouts(ticks)

    def _expire(self) -> None:
        if self._state is CLOSING:
            super()._expire()
        else:
            self._close_with(ErrorCode.NO_ERROR)
