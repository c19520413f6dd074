"""Reader and writer of WebSocket frames (RFC 6455 §5). No I/O."""

import codecs
import io
import struct
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final, TypeAlias

# Opcodes (RFC 6455 §5.2).
CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

#: Maximum size, in bytes, of a returned message that the reader keeps until the next `send`.
MAX_RETAINED: Final = 256
#: Maximum number of frames of one message. Empty frames do not count towards its size.
MAX_FRAMES: Final = 128 * 1024
#: Size limit that no message reaches, in bytes.
UNLIMITED: Final = 1 << 62

# Bits of the first byte of a frame.
FIN: Final = 0x80
#: Bit of an opcode that is set in control frames.
CONTROL: Final = 8
#: First reserved bit: the message is compressed (RFC 7692 §6).
COMPRESSED: Final = 0x40

# Allowed first bytes of a frame. _INITIAL: between two messages. _CONTINUING: within a message.
_CONTROL_FRAMES = frozenset({FIN | CLOSE, FIN | PING, FIN | PONG})
_INITIAL = _CONTROL_FRAMES | {TEXT, BINARY, FIN | TEXT, FIN | BINARY}
_INITIAL_COMPRESSED = _INITIAL | {COMPRESSED | first for first in _INITIAL - _CONTROL_FRAMES}
_CONTINUING = _CONTROL_FRAMES | {CONTINUATION, FIN | CONTINUATION}
#: First bytes of control frames, and of frames that contain a complete uncompressed message.
_COMPLETE = _CONTROL_FRAMES | {FIN | TEXT, FIN | BINARY}

#: Function that inflates a part of one compressed message. Arguments: the part, whether it is the
#: last one, and the maximum size of the result in bytes. It raises ProtocolError.
Inflate: TypeAlias = Callable[[bytes, bool, int], bytes]


#: A message or control frame: opcode, content, and whether the caller must call `send(b"")` next.
#: The call is needed to parse waiting data, or to free a large message. The content is a str for
#: TEXT, bytes for BINARY, PING and PONG, code and reason for CLOSE. A NamedTuple would make an
#: echo 5 % slower.
Frame: TypeAlias = tuple[int, Any, bool]
#: Generator of `read_frames`.
Reader: TypeAlias = Generator[Frame | None, bytes, None]


class ProtocolError(Exception):
    """Invalid data from a client; the connection closes with a Close frame.

    code: code of the Close frame (RFC 6455 §7.4.1). reason: one line for the client and the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def _xor(data: bytes, key: bytes) -> bytes:
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    unmasked = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
    return unmasked.to_bytes(size, "little")


#: Unmasks data with a key of four bytes (RFC 6455 §5.3). In Python this takes 0.4 µs for 64 bytes
#: and 20 µs for 16 KiB, in C less than 0.1 µs and 0.4 µs.
unmask: Callable[[bytes, bytes], bytes] = _xor
with suppress(ImportError):
    from websockets.speedups import apply_mask

    unmask = apply_mask


#: Heads of short frames, by first byte and length. Formatting them would take 0.1 µs longer.
_SHORT_HEADS = {
    first: [bytes((first, size)) for size in range(126)]
    for first in _COMPLETE | {FIN | COMPRESSED | TEXT, FIN | COMPRESSED | BINARY}
}


def encode(opcode: int, payload: bytes, compressed: int = 0) -> bytes:
    """Return an unmasked frame that contains a complete message or control frame.

    compressed: COMPRESSED if the payload is compressed, otherwise 0.
    """
    first, size = FIN | compressed | opcode, len(payload)
    if size < 126:
        return _SHORT_HEADS[first][size] + payload
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a Close frame (RFC 6455 §5.5.1); the code 1005 stands for a frame without a code.

    Raises ValueError for a code that no endpoint may send, or a reason of more than 123 bytes.
    """
    text = reason.encode()
    if code == 1005 and not text:
        return encode(CLOSE, b"")
    if not _is_valid_code(code):
        raise ValueError(f"{code!r} is not a valid close code")
    if len(text) > 123:
        raise ValueError(f"the close reason has {len(text)} bytes; the maximum is 123: {reason!r}")
    return encode(CLOSE, code.to_bytes(2, "big") + text)


def _is_valid_code(code: int) -> bool:
    """Return whether a Close frame may contain the code (RFC 6455 §7.4, and IANA's registry)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


#: Unpacks first byte, second byte and masking key of a frame of less than 126 bytes.
_unpack_short_head = struct.Struct("!BB4s").unpack_from


def read_frames(limit: int, make_inflate: Callable[[], Inflate] | None = None) -> Reader:
    """Parse the bytes from a client into messages and control frames.

    limit: maximum size of a message in bytes, 0 for no limit. make_inflate: called for each
    compressed message; None if compression was not negotiated.

    This is a generator; start it with `next`. `send(data)` returns the next message or control
    frame, or None if it needs more data. It raises ProtocolError as soon as an error can be
    detected, which ends the generator.

    Between two calls it keeps at most one message within `limit` and the unread rest of `data`.
    """
    limit = limit or UNLIMITED
    initial = _INITIAL if make_inflate is None else _INITIAL_COMPRESSED
    message: _Message | None = None  # a message of several frames or reads, or a compressed one
    allowed, room = initial, limit  # first bytes and maximum length of the next frame
    longest = 128 + min(limit, 125)  # maximum second byte of a short frame
    data, position = b"", 0  # received data, and the offset of its unread rest
    while True:
        content: Any = None
        if message is None and len(data) - position >= 6:  # a shorter path for most messages
            first, second, key = _unpack_short_head(data, position)
            start, end = position + 6, position + second - 122
            if first in _COMPLETE and 128 <= second <= longest and end <= len(data):
                opcode, content, position = first & 15, unmask(data[start:end], key), end
        if content is None:
            while (head := _parse_head(data, position, allowed)) is None:
                data, position = data[position:], 0
                data += yield None
            first, length, start = head
            if length > room and not first & (CONTROL | COMPRESSED):
                raise ProtocolError(1009, f"message exceeds --ws-max-size ({limit})")
            opcode, position = first & 15, start + length
            key = data[start - 4 : start]
            if position <= len(data) and first in _COMPLETE:
                content = unmask(data[start:position], key)
            else:
                message = message or _Message(first, limit, make_inflate)
                message.begin_frame(length, key, last=first & FIN != 0)
                position = start + message.add(data[start:position])
                while message.missing:
                    data = b""
                    data = yield None
                    position = message.add(data)
                if not first & FIN:
                    allowed, room = _CONTINUING, message.room
                    continue
                opcode, content = message.opcode, message.content()
                message, allowed, room = None, initial, limit
        if opcode == TEXT:
            content = _decode_text(content)
        elif opcode == CLOSE:
            content = _parse_close(content)
        if position == len(data):
            data = b""
            data, position = (yield opcode, content, len(content) > MAX_RETAINED), 0
        elif more := (yield opcode, content, True):
            data, position = data[position:] + more, 0


def _parse_head(data: bytes, position: int, allowed: frozenset[int]) -> tuple[int, int, int] | None:
    """Parse the head of a frame at `position` (RFC 6455 §5.2). Raises ProtocolError.

    allowed: first bytes that the frame may have. Return the first byte, the length of the payload
    and its offset. Return None if the head is incomplete. A control frame must be complete with its
    payload, otherwise return None.
    """
    available = len(data) - position
    if available < 2:
        return None
    first, length = data[position], data[position + 1] - 128
    if first not in allowed:
        raise _invalid_first_byte(first)
    if length < 0:
        raise ProtocolError(1002, "frame without a mask")
    if length <= 125:
        complete = available >= (6 + length if first & CONTROL else 6)
        return (first, length, position + 6) if complete else None
    if first & CONTROL:
        raise ProtocolError(1002, "control frame with more than 125 bytes")
    size = 8 if length == 126 else 14
    if available < size:
        return None
    return first, _parse_length(data[position + 2 : position + size - 4]), position + size


def _parse_length(field: bytes) -> int:
    """Parse an extended payload length of two or eight bytes (RFC 6455 §5.2)."""
    length = int.from_bytes(field, "big")
    if length < (126 if len(field) == 2 else 1 << 16):
        raise ProtocolError(1002, "payload length not in its shortest form")
    if length >> 63:
        raise ProtocolError(1002, "payload length of 2^63 or more")
    return length


def _invalid_first_byte(first: int) -> ProtocolError:
    opcode = first & 15
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        reason = f"unknown opcode {opcode}"
    elif first & 0x70:
        reason = "reserved bit set"
    elif opcode & CONTROL:
        reason = "fragmented control frame"
    elif opcode == CONTINUATION:
        reason = "continuation frame without a message"
    else:
        reason = "new message before the end of the previous one"
    return ProtocolError(1002, reason)


def _parse_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a Close frame (RFC 6455 §5.5.1). Raises ProtocolError."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _is_valid_code(code):
        raise ProtocolError(1002, "Close frame without a valid code")
    return code, _decode_text(payload[2:])


class _Message:
    """A message that arrives in several frames or reads, or compressed.

    One buffer contains the data of all frames, so many small frames need no more memory than a few
    large ones.
    """

    __slots__ = ("_buffer", "_decoder", "_frames", "_inflate", "_key", "_last", "_room", "missing",
                 "opcode")  # fmt: skip

    def __init__(self, first: int, limit: int, make_inflate: Callable[[], Inflate] | None) -> None:
        """first: first byte of its first frame. limit, make_inflate: as in `read_frames`."""
        self.opcode = first & 15
        self._room = limit
        self._inflate = make_inflate() if make_inflate and first & COMPRESSED else None
        self._decoder = _UTF8Decoder()
        self._buffer = io.BytesIO()
        self._frames = 0

    @property
    def room(self) -> int:
        """Maximum payload length of the next frame."""
        return self._room if self._inflate is None else UNLIMITED

    def begin_frame(self, length: int, key: bytes, last: bool) -> None:
        """Prepare for the payload of the next frame. Raises ProtocolError.

        length: length of the payload. key: masking key. last: the frame ends the message.
        """
        self.missing = length  # bytes of the payload that have not been added
        self._key = key
        self._last = last
        self._frames += 1
        if self._frames > MAX_FRAMES:
            raise ProtocolError(1008, f"message of more than {MAX_FRAMES} frames")

    def add(self, data: bytes) -> int:
        """Add payload of the current frame; return the number of used bytes.

        Raises ProtocolError.
        """
        part = unmask(data[: self.missing], self._key)
        size = len(part)
        self.missing -= size
        self._key = (self._key + self._key)[size & 3 :][:4]
        last = self._last and not self.missing
        if self._inflate is not None:
            part = self._inflate(part, last, self._room)
        self._room -= len(part)
        self._buffer.write(part)
        if self.opcode == TEXT:  # to detect an error at the first invalid byte
            _decode_text(part, self._decoder, last)
        return size

    def content(self) -> bytes:
        """Return the complete message."""
        return self._buffer.getvalue()


_UTF8Decoder = codecs.getincrementaldecoder("utf-8")


def _decode_text(
    data: bytes | memoryview, decoder: codecs.IncrementalDecoder | None = None, last: bool = True
) -> str:
    """Decode UTF-8, or a part of it with an incremental decoder. Raises ProtocolError."""
    try:
        return str(data, "utf-8") if decoder is None else decoder.decode(data, last)
    except UnicodeDecodeError:
        raise ProtocolError(1007, "invalid UTF-8 in a text message") from None
