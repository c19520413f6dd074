"""Frames of HTTP/2 (RFC 9113 §4 and §6): layout, error codes, settings; no I/O."""

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

#: First bytes of a client (RFC 9113 §3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types of frames.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# Identifiers of settings (RFC 9113 §6.5.2, RFC 8441 §3).
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8

#: Maximum size of a payload that every peer accepts, in bytes. The server sends no larger ones.
MAX_PAYLOAD: Final = 16_384
#: Initial flow-control window of streams and connections, in bytes (RFC 9113 §6.9.2).
INITIAL_WINDOW: Final = 65_535
MAX_WINDOW: Final = (1 << 31) - 1
MAX_STREAM_ID: Final = (1 << 31) - 1

#: Frame header: length (16 and 8 bits), type, flags, stream id.
HEADER = Struct(">HBBBL")
HEADER_SIZE: Final = 9
_SETTING = Struct(">HL")
SETTING_SIZE: Final = _SETTING.size
_NUMBER = Struct(">L")
_PAIR = Struct(">LL")

#: Size of the payload of frames whose size is fixed.
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
#: Frames that belong to the connection: their stream id is 0. WINDOW_UPDATE may have any id.
_OF_CONNECTION = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAM = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})


class ErrorCode(IntEnum):
    """Error codes (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """A connection error (RFC 9113 §5.4.1). reason: one line for the client and the log."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"HTTP/2 {code.name}: {reason}")
        self.code = code
        self.reason = reason


class StreamFault(ConnectionFault):
    """A stream error (RFC 9113 §5.4.2)."""


def protocol_error(reason: str) -> ConnectionFault:
    """Return a connection error of the type PROTOCOL_ERROR."""
    return ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)


def size_error(reason: str) -> ConnectionFault:
    """Return a connection error of the type FRAME_SIZE_ERROR."""
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, reason)


# Reading.


def check_header(kind: int, stream_id: int, size: int) -> None:
    """Validate stream id and size of a frame. Raises ConnectionFault.

    A wrong size of PRIORITY is a stream error (RFC 9113 §6.3).
    """
    if kind in (_OF_STREAM if stream_id == 0 else _OF_CONNECTION):
        raise protocol_error(f"frame of type {kind} on stream {stream_id}")
    if size != _SIZES.get(kind, size):
        fault = StreamFault if kind == PRIORITY else ConnectionFault
        raise fault(ErrorCode.FRAME_SIZE_ERROR, f"frame of type {kind} with {size} bytes")


def strip_padding(payload: bytes) -> bytes:
    """Return the content of a payload that has the flag PADDED. Raises ConnectionFault."""
    if not payload:
        raise size_error("no room for the padding length")
    if payload[0] >= len(payload):
        raise protocol_error("padding longer than the payload")
    return payload[1 : len(payload) - payload[0]]


def strip_priority(payload: bytes, padded: bool) -> bytes:
    """Return HEADERS without the priority fields, which are ignored (RFC 9113 §5.3.2).

    padded: they follow the padding length. Raises ConnectionFault.
    """
    if len(payload) < 5 + padded:
        raise size_error("no room for the priority fields")
    return payload[:padded] + payload[5 + padded :]


def read_number(payload: bytes) -> int:
    """Return the number that begins a payload."""
    number: int = _NUMBER.unpack_from(payload)[0]
    return number


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield the settings of a frame (RFC 9113 §6.5.2). Raises ConnectionFault for invalid ones."""
    if len(payload) % SETTING_SIZE:
        raise size_error("incomplete setting")
    for name, value in _SETTING.iter_unpack(payload):
        if name in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise protocol_error(f"setting {name} must be 0 or 1, not {value}")
        if name == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"initial window of {value} bytes")
        if name == MAX_FRAME_SIZE and not MAX_PAYLOAD <= value < 1 << 24:
            raise protocol_error(f"maximum frame size of {value} bytes")
        yield name, value


# Writing.


#: Encode a frame header: size of the payload (at most MAX_PAYLOAD), type, flags, stream id.
header = Struct(">xHBBL").pack


def headers(stream_id: int, block: bytes, end_stream: bool) -> bytes:
    """Encode a header block as HEADERS, and CONTINUATION if it is large."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= MAX_PAYLOAD:
        return header(len(block), HEADERS, flags | END_HEADERS, stream_id) + block
    pieces = [block[i : i + MAX_PAYLOAD] for i in range(0, len(block), MAX_PAYLOAD)]
    last = len(pieces) - 1
    return b"".join(
        [
            header(
                len(piece),
                CONTINUATION if i else HEADERS,
                (END_HEADERS if i == last else 0) | (0 if i else flags),
                stream_id,
            )
            + piece
            for i, piece in enumerate(pieces)
        ]
    )


def data(stream_id: int, payload: memoryview, end_stream: bool) -> list[bytes | memoryview]:
    """Encode data as DATA frames: headers and payloads in turn."""
    start = 0
    parts: list[bytes | memoryview] = []
    if len(payload) > MAX_PAYLOAD:
        full = header(MAX_PAYLOAD, DATA, 0, stream_id)
        while len(payload) - start > MAX_PAYLOAD:
            parts += full, payload[start : start + MAX_PAYLOAD]
            start += MAX_PAYLOAD
    rest = payload[start:]
    parts += header(len(rest), DATA, END_STREAM if end_stream else 0, stream_id), rest
    return parts


def settings(values: dict[int, int]) -> bytes:
    """Encode SETTINGS."""
    payload = b"".join([_SETTING.pack(name, value) for name, value in values.items()])
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = header(0, SETTINGS, ACK, 0)


def ping(payload: bytes, ack: bool) -> bytes:
    """Encode PING. payload: eight bytes."""
    return header(8, PING, ACK if ack else 0, 0) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """Encode WINDOW_UPDATE. stream_id: 0 for the connection."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _NUMBER.pack(increment)


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """Encode RST_STREAM."""
    return header(4, RST_STREAM, 0, stream_id) + _NUMBER.pack(code)


def goaway(last_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """Encode GOAWAY. last_id: the last stream that is, or may be, processed."""
    text = reason.encode("ascii", "backslashreplace")[:256]
    return header(8 + len(text), GOAWAY, 0, 0) + _PAIR.pack(last_id, code) + text
