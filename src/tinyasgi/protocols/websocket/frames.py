"""WebSocket frames: bytes in, messages and control frames out, and back (RFC 6455 §5). No I/O."""

import codecs
import io
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final, TypeAlias

__all__ = ["BINARY", "CLOSE", "COMPRESSED", "PING", "PONG", "TEXT", "Inflate", "ProtocolError"]
__all__ += ["Reader", "encode", "encode_close", "read_frames"]

# Opcodes (RFC 6455 §5.2).
CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

#: Bytes of the last message that may be kept until the next.
KEPT: Final = 256
#: Maximum number of frames of one message. Frames may be empty, so `limit` does not bound them.
MAX_FRAMES: Final = 128 * 1024
#: More bytes than there can be.
ANY: Final = 1 << 62

# Bits of a frame's first byte.
FIN: Final = 0x80
#: The bit that sets the opcodes of control frames apart.
CONTROL: Final = 8
#: The first reserved bit: a message is compressed (RFC 7692 §6).
COMPRESSED: Final = 0x40

# The first bytes that a frame may have between two messages, and within one.
_CONTROLS = frozenset({FIN | CLOSE, FIN | PING, FIN | PONG})
_BEGINNING = _CONTROLS | {TEXT, BINARY, FIN | TEXT, FIN | BINARY}
_BEGINNING_COMPRESSED = _BEGINNING | {COMPRESSED | first for first in _BEGINNING - _CONTROLS}
_CONTINUING = _CONTROLS | {CONTINUATION, FIN | CONTINUATION}
#: The first bytes of frames that are a whole message or a control frame, and not compressed.
_WHOLE = _CONTROLS | {FIN | TEXT, FIN | BINARY}

#: Inflates a piece of one compressed message. It takes the piece, whether that is the last, and
#: how many bytes may come of it; it raises ProtocolError.
Inflate: TypeAlias = Callable[[bytes, bool, int], bytes]
#: What `read_frames` returns: bytes in, opcodes with what they say out.
Reader: TypeAlias = Generator[tuple[int, Any, bool] | None, bytes, None]


class ProtocolError(Exception):
    """What a peer must not send: the connection closes, and says why.

    code: of the Close frame (RFC 6455 §7.4.1). reason: one line for the peer and for the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def _xor(data: bytes, key: bytes) -> bytes:
    size = len(data)
    keys = (key * (size // 4 + 1))[:size]
    unmasked = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
    return unmasked.to_bytes(size, "little")


#: Takes the masking off with a key of four bytes (RFC 6455 §5.3). In Python that is 0.4 µs for
#: 64 bytes and 20 µs for 16 KiB, in C less than 0.1 µs and 0.4 µs.
unmask: Callable[[bytes, bytes], bytes] = _xor
with suppress(ImportError):
    from websockets.speedups import apply_mask

    unmask = apply_mask


def encode(opcode: int, payload: bytes, compressed: int = 0) -> bytes:
    """A frame that is a whole message, or a control frame; a server does not mask.

    compressed: COMPRESSED if the payload is, else 0.
    """
    first, size = FIN | compressed | opcode, len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """A Close frame (RFC 6455 §5.5.1); 1005 stands for one that gives no code.

    Raises ValueError for a code that no endpoint may send, or a reason that has no room.
    """
    text = reason.encode()
    if code == 1005 and not text:
        return encode(CLOSE, b"")
    if not _is_code(code):
        raise ValueError(f"{code!r} is no code to close a WebSocket with")
    if len(text) > 123:
        raise ValueError(f"a reason of {len(text)} bytes, where 123 have room: {reason!r}")
    return encode(CLOSE, code.to_bytes(2, "big") + text)


def _is_code(code: int) -> bool:
    """Whether a Close frame may carry it: RFC 6455 §7.4, and what IANA has registered since."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def read_frames(limit: int, make_inflate: Callable[[], Inflate] | None = None) -> Reader:
    """Read messages and control frames from a client's bytes, as these arrive.

    limit: maximum size of a message in bytes, 0 for no limit. make_inflate: called for each
    compressed message; None if compression was not negotiated.

    This is a generator, to be started by `next`. `send(data)` returns the next message or control
    frame, or None if that needs more data. Each is a tuple of an opcode, its content, and whether
    to ask by `send(b"")` for the next. The content is a str for TEXT, bytes for BINARY, PING and
    PONG, code and reason for CLOSE. ProtocolError is raised as soon as a fault can be seen, and
    ends the generator.

    Between two calls it keeps one message within `limit` and the unread rest of one `data`.
    """
    limit = limit or ANY
    beginning = _BEGINNING if make_inflate is None else _BEGINNING_COMPRESSED
    message: _Message | None = None  # the one whose frames are arriving
    allowed, room = beginning, limit  # first bytes and maximum length of the next frame
    content: Any
    data, position = b"", 0  # what has arrived, and where the unread rest begins
    while True:
        # The head: two bytes, the length if it is long, and the masking key.
        while len(data) - position < 2:
            data, position, payload, content = data[position:], 0, b"", b""
            data += yield None
        first, length, size = data[position], data[position + 1] - 128, 6
        if first not in allowed:
            raise _fault(first)
        if length < 0:
            raise ProtocolError(1002, "a frame that is not masked")
        if length > 125:
            if first & CONTROL:
                raise ProtocolError(1002, "a control frame with a long length")
            size += 2 if length == 126 else 8
        needed = size + length if first & CONTROL else size  # a control frame is taken whole
        while len(data) - position < needed:
            data, position = data[position:], 0
            data += yield None
        if length > 125:
            length = _long_length(data[position + 2 : position + size - 4])
        if length > room and not first & (CONTROL | COMPRESSED):
            raise ProtocolError(1009, f"a message of over {limit} bytes")
        position += size
        key = data[position - 4 : position]
        # The payload.
        opcode = first & 15
        payload = unmask(data[position : position + length], key)
        position += len(payload)
        if len(payload) == length and first in _WHOLE:
            content = payload
            if opcode == TEXT:
                content = _text(payload)
            elif opcode == CLOSE:
                content = _close(payload)
        else:
            if message is None:
                inflate = make_inflate() if make_inflate and first & COMPRESSED else None
                message = _Message(opcode, limit, inflate)
            message.begin_frame()
            while (length := length - len(payload)) > 0:
                message.add(payload)
                key = (key + key)[len(payload) & 3 :][:4]
                data, payload = b"", b""
                data = yield None
                payload = unmask(data[:length], key)
                position = len(payload)
            message.add(payload, last=first & FIN != 0)
            if not first & FIN:
                allowed, room = _CONTINUING, message.room
                continue
            opcode, content = message.opcode, message.take()
            message, allowed, room = None, beginning, limit
        unread = position < len(data)
        if not unread:
            data, position = b"", 0
        more = yield opcode, content, unread or len(content) > KEPT
        if more:
            data, position = data[position:] + more, 0


class _Message:
    """A message that arrives in several pieces, or compressed.

    One buffer holds the bytes of all pieces, so many small ones need no more memory than few large
    ones.
    """

    __slots__ = ("_buffer", "_check", "_frames", "_inflate", "_left", "opcode")

    def __init__(self, opcode: int, limit: int, inflate: Inflate | None) -> None:
        self.opcode = opcode
        self._left = limit
        self._inflate = inflate
        self._check = _UTF8()
        self._buffer = io.BytesIO()
        self._frames = 0

    @property
    def room(self) -> int:
        """Maximum payload length of the next frame."""
        return self._left if self._inflate is None else ANY

    def begin_frame(self) -> None:
        """Count a frame. Raises ProtocolError."""
        self._frames += 1
        if self._frames > MAX_FRAMES:
            raise ProtocolError(1008, f"a message of over {MAX_FRAMES} frames")

    def add(self, piece: bytes, last: bool = False) -> None:
        """Add a piece of the payload. Raises ProtocolError.

        last: the message ends here.
        """
        if self._inflate is not None:
            piece = self._inflate(piece, last, self._left)
        self._left -= len(piece)
        self._buffer.write(piece)
        if self.opcode == TEXT:
            _text(piece, self._check, last)  # to fail at the first wrong byte

    def take(self) -> str | bytes:
        """Return the whole message."""
        return _text(self._buffer.getbuffer()) if self.opcode == TEXT else self._buffer.getvalue()


def _fault(first: int) -> ProtocolError:
    """What is wrong with the first byte of a frame."""
    opcode = first & 15
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        fault = f"a frame with the unknown opcode {opcode}"
    elif first & 0x70:
        fault = "a frame with reserved bits"
    elif opcode & CONTROL:
        fault = "a control frame in fragments"
    elif opcode == CONTINUATION:
        fault = "a continuation of no message"
    else:
        fault = "a message within another"
    return ProtocolError(1002, fault)


def _close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close frame (RFC 6455 §5.5.1). Raises ProtocolError."""
    if not payload:
        return 1005, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not _is_code(code):
        raise ProtocolError(1002, "a Close frame without a valid code")
    return code, _text(payload[2:])


_UTF8 = codecs.getincrementaldecoder("utf-8")


def _text(
    data: bytes | memoryview, decoder: codecs.IncrementalDecoder | None = None, last: bool = True
) -> str:
    """Decode UTF-8, or a piece of it by a decoder. Raises ProtocolError."""
    try:
        return str(data, "utf-8") if decoder is None else decoder.decode(data, last)
    except UnicodeDecodeError:
        raise ProtocolError(1007, "a text that is not UTF-8") from None


def _long_length(field: bytes) -> int:
    """The length of a payload that has a field of two or eight bytes for it (RFC 6455 §5.2)."""
    length = int.from_bytes(field, "big")
    if length < (126 if len(field) == 2 else 1 << 16):
        raise ProtocolError(1002, "a length in more bytes than it needs")
    if length >> 63:
        raise ProtocolError(1002, "a length of 64 bits")
    return length
