"""A connection with streams: their ids, their frames, and GOAWAY (RFC 9113 §5, §6.8)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..connection import Connection
from ..context import Context
from ..states import CLOSING, IDLE
from . import frames
from .budget import Budget
from .frames import ErrorCode, StreamFault
from .hpack import NO_TABLE
from .ids import StreamIds
from .sender import Sender
from .stream import HTTP2Stream

if TYPE_CHECKING:
    from ...proxy.proxy_protocol import ProxyHeader

#: Bytes by which the windows of all streams together may be larger than the initial ones.
SPARE_WINDOW: Final = 1 << 20
#: Payload of the PING whose acknowledgement shows that the client has received GOAWAY.
GOAWAY_PING: Final = b"goaway\0\0"


class Multiplexer(Connection):
    """Base class of an HTTP/2 connection: everything apart from requests."""

    # fmt: off
    __slots__ = (
        "_goaway_tick", "_is_processing", "_no_table", "_refuses", "budget", "ids", "sender",
        "spare_window", "streams",
    )
    # fmt: on

    def __init__(
        self, context: Context, unix: bool = False, header: "ProxyHeader | None" = None
    ) -> None:
        super().__init__(context, unix, header)
        self.budget = Budget()
        self.ids = StreamIds()
        self.sender = Sender(self)
        self.spare_window = SPARE_WINDOW
        self.streams: dict[int, HTTP2Stream] = {}
        self._no_table = NO_TABLE  # begins the first header block
        self._is_processing = False  # frames are being processed; writes are buffered
        self._goaway_tick: int | None = None  # the tick of the first GOAWAY
        self._refuses = False  # the last GOAWAY was sent; no further streams are accepted

    @property
    def context(self) -> Context:
        """The context of the connection."""
        return self._context

    @property
    def is_closing(self) -> bool:
        """Nothing can be sent any more."""
        return self._state is CLOSING or self._transport.is_closing()

    # Streams.

    def find(self, stream_id: int) -> "HTTP2Stream | None":
        """Return a stream, or None if it is closed. Raises ConnectionFault if it never began."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self.ids.check_used(stream_id)
        return stream

    def fail_stream(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream because of an error of the client. Raises ConnectionFault.

        RST_STREAM must not be sent on an idle stream, so that is an error of the connection.
        """
        self.budget.on_fault()
        self.ids.check_used(stream_id, fault)
        if self.budget.logs_faults:
            self._context.log_peer_error(self.peer.name, f"stream {stream_id}: {fault}")
        if not self.ids.was_reset(stream_id):
            self.send_reset(stream_id, fault.code)
        if stream := self.streams.get(stream_id):
            stream.drop()

    def send_reset(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM; ignore what arrives on the stream later."""
        self.ids.on_reset(stream_id, by_server=True)
        self.send(frames.reset(stream_id, code))

    def forget(self, stream: HTTP2Stream) -> None:
        """Remove a closed stream."""
        if self.streams.pop(stream.id, None) is None or self.streams or self._state is CLOSING:
            return
        if self._refuses or self.eof:
            self._end(linger=True)
        else:
            self._enter(IDLE)

    def _lose_streams(self) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.drop()

    # Writing.

    def send(self, data: bytes, more: bool = True) -> None:
        """Write frames, together with others of this iteration of the event loop.

        more: others may follow soon.
        """
        if self._is_processing:
            self._buffer(data)
        else:
            self._write(data, more)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call a function in the next iteration of the event loop."""
        self._context.loop.call_soon(callback, context=self._context.outside)

    def send_headers(
        self,
        stream_id: int,
        block: bytes,
        end_stream: bool,
        data: bytes = b"",
        more: bool = True,
    ) -> None:
        """Write a header block, and the DATA frame after it. more: as for `send`."""
        if self._no_table:
            block, self._no_table = self._no_table + block, b""
        self.send(frames.headers(stream_id, block, end_stream) + data, more)

    def send_frames(self, parts: list[bytes | memoryview]) -> None:
        """Write DATA frames: headers and payloads in turn."""
        self.budget.on_data_sent(len(parts) // 2)
        self._flush()
        if self._transport.get_extra_info("ssl_object") is None:
            self._transport.writelines(parts)
        else:  # each part would become a record of its own
            self._transport.write(b"".join(parts))

    # Ending.

    def _close_with(self, code: ErrorCode, reason: str = "") -> None:
        """Send the last GOAWAY, give up all streams, and close."""
        self.send(frames.goaway(self.ids.last, code, reason))
        self._end(linger=True)
        self._lose_streams()

    def _leave(self) -> None:
        """Announce the end: further requests may be on their way (RFC 9113 §6.8)."""
        if self._goaway_tick is None:
            self._goaway_tick = self._context.ticks
            self.send(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self.send(frames.ping(GOAWAY_PING, ack=False))

    def _leave_finally(self) -> None:
        """Accept no further streams; close after the last one."""
        if self._goaway_tick is not None and not self._refuses:
            self._refuses = True
            self.send(frames.goaway(self.ids.last, ErrorCode.NO_ERROR))
            if not self.streams:
                self._end(linger=True)
