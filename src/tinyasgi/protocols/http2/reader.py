"""Reads frames and header blocks from the bytes of a client, and validates their form."""

from typing import TYPE_CHECKING, Final

from . import frames
from .budget import MAX_CONTINUATIONS, MAX_SETTINGS
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADER,
    HEADER_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_PAYLOAD,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    protocol_error,
)

if TYPE_CHECKING:
    from .connection import HTTP2Connection

#: Bytes of headers beyond their limit that are read, so that the response can be 431.
MAX_EXCESS: Final = 64 * 1024
#: Flags of HEADERS with nothing but a complete block.
WHOLE_HEADERS: Final = (END_HEADERS | END_STREAM, END_HEADERS)


class FrameReader:
    """Reader of one connection.

    limit: maximum size of a header block in bytes, with MAX_EXCESS more.
    """

    __slots__ = ("_block", "_block_id", "_buffer", "_connection", "_continuations", "_end_stream",
                 "_greeted", "_limit", "_needed", "_since")  # fmt: skip

    def __init__(self, connection: "HTTP2Connection", limit: int) -> None:
        self._connection = connection
        self._limit = limit + MAX_EXCESS
        self._buffer = bytearray()  # an incomplete frame
        self._needed = 0  # size at which the buffer is processed
        self._greeted = False  # the preface and the first SETTINGS have arrived
        self._block = bytearray()  # an incomplete header block
        self._block_id = 0  # its stream; 0: none is incomplete
        self._end_stream = False  # its HEADERS had that flag
        self._continuations = 0
        self._since = 0  # the tick at which the incomplete block or frame began

    @property
    def waiting_since(self) -> int | None:
        """The tick at which an incomplete header block, or a frame other than DATA, has begun."""
        if self._block_id or (self._buffer and self._buffer[3:4] != bytes((DATA,))):
            return self._since
        return None

    def receive(self, data: bytes) -> None:
        """Process the frames in the bytes of one read. Raises ConnectionFault."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        rest = self._read_frames(data, 0) if self._greeted else self._read_greeting(data)
        if rest:
            self._buffer += rest
            if not self._block_id:
                self._since = self._connection.context.ticks

    def _read_greeting(self, data: bytes) -> bytes:
        """Read the preface, and the SETTINGS that must follow it; return the rest (RFC 9113 §3.4).

        Raises ConnectionFault.
        """
        if not data.startswith(PREFACE[: len(data)]):
            raise protocol_error("invalid connection preface")
        start = len(PREFACE)
        self._needed = start + HEADER_SIZE
        if len(data) < self._needed:
            return data
        if data[start + 3] != SETTINGS or data[start + 4] & ACK:
            raise protocol_error("the first frame is not SETTINGS")
        self._greeted = True
        self._connection.on_greeting()
        return self._read_frames(data, start)

    def _read_frames(self, data: bytes, position: int) -> bytes:
        """Process complete frames; return the bytes after them. Raises ConnectionFault."""
        size = len(data)
        while position + HEADER_SIZE <= size:
            high, low, kind, flags, stream_id = HEADER.unpack_from(data, position)
            length = high << 8 | low
            if length > MAX_PAYLOAD:
                raise frames.size_error(f"frame of {length} bytes")
            start = position + HEADER_SIZE
            position = start + length
            if position > size:
                self._needed = HEADER_SIZE + length
                return data[start - HEADER_SIZE :]
            stream_id &= frames.MAX_STREAM_ID
            if self._block_id and (kind != CONTINUATION or stream_id != self._block_id):
                raise protocol_error("header block interrupted by another frame")
            try:
                if kind == HEADERS and flags in WHOLE_HEADERS and stream_id:
                    self._connection.on_headers(
                        stream_id, data[start:position], flags != END_HEADERS
                    )
                else:
                    self._process(kind, flags, stream_id, data[start:position])
            except StreamFault as fault:
                self._connection.fail_stream(stream_id, fault)
            if position < size and self._connection.is_closing:
                return b""
        self._needed = HEADER_SIZE
        return data[position:]

    def _process(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Process a frame. Raises ConnectionFault or StreamFault."""
        frames.check_header(kind, stream_id, len(payload))
        connection = self._connection
        if kind == HEADERS:
            self._read_headers(flags, stream_id, payload)
        elif kind == DATA:
            content = frames.strip_padding(payload) if flags & PADDED else payload
            connection.on_data(stream_id, content, len(payload), bool(flags & END_STREAM))
        elif kind == CONTINUATION:
            self._continue_block(flags, payload)
        elif kind == RST_STREAM:
            connection.on_reset(stream_id)
        elif kind == PUSH_PROMISE:
            raise protocol_error("PUSH_PROMISE from a client")
        else:
            connection.budget.on_control_frame()
            if kind == WINDOW_UPDATE:
                increment = frames.read_number(payload) & frames.MAX_WINDOW
                connection.sender.enlarge(stream_id, increment)
            elif kind == SETTINGS:
                self._read_settings(flags, payload)
            elif kind == PING and flags & ACK:
                connection.on_ping_ack(payload)
            elif kind == PING:
                connection.send(frames.ping(payload, ack=True))
            elif kind == GOAWAY and len(payload) < 8:
                raise frames.size_error(f"GOAWAY of {len(payload)} bytes")
            elif kind == GOAWAY:
                connection.on_goaway()

    def _read_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise frames.size_error("SETTINGS acknowledgement with a payload")
            return
        if len(payload) > MAX_SETTINGS * frames.SETTING_SIZE:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {MAX_SETTINGS} settings")
        settings = dict(frames.read_settings(payload))
        self._connection.send(frames.SETTINGS_ACK)
        if INITIAL_WINDOW_SIZE in settings:  # may send data that ends the connection
            self._connection.sender.resize(settings[INITIAL_WINDOW_SIZE])

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & HAS_PRIORITY:
            payload = frames.strip_priority(payload, bool(flags & PADDED))
        if flags & PADDED:
            payload = frames.strip_padding(payload)
        if flags & END_HEADERS:
            self._connection.on_headers(stream_id, payload, bool(flags & END_STREAM))
            return
        self._block_id = stream_id
        self._since = self._connection.context.ticks
        self._end_stream = bool(flags & END_STREAM)
        self._block += payload
        self._continuations = 0

    def _continue_block(self, flags: int, payload: bytes) -> None:
        if not self._block_id:
            raise protocol_error("CONTINUATION without HEADERS")
        self._block += payload
        self._continuations += 1
        if len(self._block) > self._limit or self._continuations > MAX_CONTINUATIONS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & END_HEADERS:
            block, stream_id = bytes(self._block), self._block_id
            self._block.clear()
            self._block_id = 0
            self._connection.on_headers(stream_id, block, self._end_stream)
