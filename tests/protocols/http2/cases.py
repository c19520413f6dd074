"""Cases of the conformance of HTTP/2: frames and streams."""

from dataclasses import dataclass

from hpack import Encoder

from tinyasgi.protocols.http2.frames import ErrorCode

from .client import POST, raw

NO = ErrorCode.NO_ERROR
PROTOCOL = ErrorCode.PROTOCOL_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
CLOSED = ErrorCode.STREAM_CLOSED
SIZE = ErrorCode.FRAME_SIZE_ERROR
COMPRESSION = ErrorCode.COMPRESSION_ERROR
CALM = ErrorCode.ENHANCE_YOUR_CALM

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIO = 1, 4, 8, 32
#: A block of a GET request that changes no table.
BLOCK = b"\x82\x86\x84\x01\x04here"
#: The same for a path at which the app waits for the end.
WAIT = BLOCK.replace(b"\x84", b"\x04\5/wait")
#: The same for a POST request to a path at which the app reads the body.
UPLOAD = b"\x83\x86\x04\x05/read\x01\x04here"


#: The headers of such a request.
READ = [*POST[:3], (":path", "/read")]


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def setting(name: int, value: int) -> bytes:
    return raw(SETTINGS, 0, 0, name.to_bytes(2, "big") + number(value))


def get(stream_id: int = 1, block: bytes = BLOCK, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return raw(HEADERS, flags, stream_id, block)


def upload(stream_id: int = 1) -> bytes:
    return raw(HEADERS, END_HEADERS, stream_id, UPLOAD)


def request(*fields: tuple[str, str], end_stream: bool = True) -> bytes:
    """A request with these fields, on stream 1."""
    block = Encoder().encode(list(fields), huffman=False)
    return get(1, block, END_HEADERS | end_stream)


def with_field(name: str, value: str) -> bytes:
    """A request with one more field."""
    literal = bytes((0, len(name))) + name.encode("latin-1")
    return get(1, BLOCK + literal + bytes((len(value),)) + value.encode("latin-1"))


@dataclass
class Case:
    """Bytes of a client after its preface and SETTINGS, and what they cause."""

    section: str
    rule: str
    data: bytes
    goaway: ErrorCode | None = None
    """Code of a connection error."""
    reset: ErrorCode | None = None
    """Code of a stream error on stream 1."""
    status: int | None = None
    """Status of the response on stream 1."""


def fatal(section: str, rule: str, data: bytes, code: ErrorCode = PROTOCOL) -> Case:
    return Case(section, rule, data, goaway=code)


def stream(section: str, rule: str, data: bytes, code: ErrorCode = PROTOCOL) -> Case:
    return Case(section, rule, data, reset=code)


def fine(section: str, rule: str, data: bytes, status: int | None = None) -> Case:
    return Case(section, rule, data, status=status)


END = raw(DATA, END_STREAM, 1)
GROW = raw(WINDOW, 0, 1, number(5))
#: A request that refers to an entry of the table, after a size update has evicted it.
EVICTED = get(1, BLOCK + b"\x40\1a\1b") + get(3, b"\x20" + BLOCK + b"\xbe")
#: A stream that the server resets.
ABORTED = upload() + raw(WINDOW, 0, 1, number(0))
FRAMES = [
    # Frames.
    fine("4.1", "a frame of an unknown type is ignored", raw(0x16, 0xFF, 0, b"x") + get(), 200),
    fine("4.1", "an unknown frame on a stream is ignored", raw(0x16, 0, 9, b"x") + get(), 200),
    fine("4.1", "unknown flags are ignored", raw(PING, 0xFE, 0, b"x" * 8) + get(), 200),
    fine("4.1", "the reserved bit is ignored", get(0x80000001), 200),
    fine("4.1", "an empty frame of an unknown type", raw(0xFF, 0, 0x7FFFFFFF) + get(), 200),
    fine("4.2", "a frame of 16,384 bytes", upload() + raw(DATA, 1, 1, b"x" * 16_384), 200),
    fatal("4.2", "DATA of 16,385 bytes", upload() + raw(DATA, 0, 1, b"x" * 16_385), SIZE),
    fatal("4.2", "HEADERS of 16,385 bytes", raw(HEADERS, 5, 1, b"x" * 16_385), SIZE),
    fatal("4.2", "SETTINGS of 16,386 bytes", raw(SETTINGS, 0, 0, b"\0" * 16_386), SIZE),
    fatal("4.3", "an invalid header block", get(1, b"\xc6"), COMPRESSION),
    fatal("4.3", "an incomplete header block", get(1, BLOCK[:-1]), COMPRESSION),
    fatal(
        "4.3",
        "a frame on another stream within a block",
        get(1, BLOCK, END_STREAM) + raw(PRIORITY, 0, 3, b"\0" * 5),
    ),
    fatal("4.3", "PING within a block", get(1, BLOCK, END_STREAM) + raw(PING, 0, 0, b"x" * 8)),
    fatal("4.3", "HEADERS within a block", get(1, BLOCK, END_STREAM) + get(3)),
    fatal("4.3", "an unknown frame within a block", get(1, BLOCK, END_STREAM) + raw(0x16, 0, 1)),
    fatal(
        "4.3",
        "CONTINUATION of another stream",
        get(1, BLOCK, END_STREAM) + raw(CONTINUATION, END_HEADERS, 3),
    ),
    # Streams.
    fatal("5.1", "DATA on an idle stream", raw(DATA, 1, 1, b"x")),
    fatal("5.1", "RST_STREAM on an idle stream", raw(RST, 0, 1, number(8))),
    fatal("5.1", "WINDOW_UPDATE on an idle stream", raw(WINDOW, 0, 1, number(1))),
    fatal("5.1", "CONTINUATION on an idle stream", raw(CONTINUATION, 4, 1, BLOCK)),
    fine("5.1", "PRIORITY on an idle stream", raw(PRIORITY, 0, 1, b"\0" * 5) + get(), 200),
    stream("5.1", "DATA after END_STREAM", get(1, WAIT) + END, CLOSED),
    stream(
        "5.1",
        "HEADERS after END_STREAM",
        get(1, WAIT) + get(1),
        CLOSED,
    ),
    fine("5.1", "WINDOW_UPDATE after the response", get() + raw(WINDOW, 0, 1, number(5)), 200),
    fine("5.1", "PRIORITY after the response", get() + raw(PRIORITY, 0, 1, b"\0" * 5), 200),
    fine("5.1", "WINDOW_UPDATE after END_STREAM", get(1, WAIT) + raw(WINDOW, 0, 1, number(5))),
    fine("5.1", "RST_STREAM twice", upload() + raw(RST, 0, 1, number(8)) * 2),
    fine("5.1", "WINDOW_UPDATE after RST_STREAM", upload() + raw(RST, 0, 1, number(8)) + GROW),
    fine("5.1", "PRIORITY uses no ids", raw(PRIORITY, 0, 5, b"\0" * 5) + get(), 200),
    fatal("5.1", "DATA on a skipped stream", get(5) + raw(DATA, 1, 3, b"x"), CLOSED),
    fatal("5.1", "DATA on an idle stream with an even id", get(5) + raw(DATA, 1, 2, b"x")),
    fatal("5.1", "CONTINUATION after END_STREAM", get(1, WAIT) + raw(CONTINUATION, 4, 1)),
    stream("5.1", "DATA after RST_STREAM", upload() + raw(RST, 0, 1, number(8)) + END, CLOSED),
    stream("5.1", "HEADERS after RST_STREAM", upload() + raw(RST, 0, 1, number(8)) + get(), CLOSED),
    fatal("5.1.1", "an even stream id", get(2)),
    fatal("5.1.1", "a stream id that was skipped", get(5) + get(3)),
    # Errors.
    fine("5.4.2", "no RST_STREAM in answer to RST_STREAM", upload() + raw(RST, 0, 1, number(8))),
    # DATA.
    fatal("6.1", "DATA on stream 0", raw(DATA, 0, 0, b"x")),
    fatal("6.1", "padding as long as the payload", upload() + raw(DATA, PADDED, 1, b"\x03ab")),
    fatal("6.1", "no padding length", upload() + raw(DATA, PADDED, 1), SIZE),
    fine("6.1", "only padding", upload() + raw(DATA, PADDED | 1, 1, b"\x02\0\0"), 200),
    fine("6.1", "padding of 255 bytes", upload() + raw(DATA, 9, 1, b"\xffx" + bytes(255)), 200),
    # HEADERS.
    fatal("6.2", "HEADERS on stream 0", get(0)),
    fatal("6.2", "too much padding", get(1, b"\x40" + BLOCK, 5 | PADDED)),
    fatal("6.2", "no room for the priority", get(1, b"\0" * 4, 5 | PRIO), SIZE),
    fatal("6.2", "no room for padding and priority", get(1, b"\0" * 5, 13 | PRIO), SIZE),
    stream("6.2", "nothing after the priority", get(1, b"\0" * 5, 5 | PRIO)),
    stream("6.2", "nothing after padding and priority", get(1, b"\0" * 6, 13 | PRIO)),
    fatal("6.2", "padding into the priority", get(1, b"\6" + b"\0" * 5 + BLOCK[:5], 0x2D)),
    fine("6.2", "padding and priority", get(1, b"\2" + b"\0" * 5 + BLOCK + b"\0\0", 0x2D), 200),
    fine("6.2", "a stream that depends on itself", get(1, number(1) + b"\0" + BLOCK, 0x25), 200),
    fatal("6.2", "no padding length", get(1, b"", 5 | PADDED), SIZE),
    stream("6.2", "an empty header block", get(1, b"")),
    # PRIORITY.
    fatal("6.3", "PRIORITY on stream 0", raw(PRIORITY, 0, 0, b"\0" * 5)),
    fatal("6.3", "PRIORITY of 4 bytes on an idle stream", raw(PRIORITY, 0, 1, b"\0" * 4), SIZE),
    stream("6.3", "PRIORITY of 4 bytes", upload() + raw(PRIORITY, 0, 1, b"\0" * 4), SIZE),
    stream("6.3", "PRIORITY of 6 bytes", upload() + raw(PRIORITY, 0, 1, b"\0" * 6), SIZE),
    # RST_STREAM.
    fatal("6.4", "RST_STREAM on stream 0", raw(RST, 0, 0, number(8))),
    fatal("6.4", "RST_STREAM of 3 bytes", upload() + raw(RST, 0, 1, b"\0" * 3), SIZE),
    fatal("6.4", "RST_STREAM of 5 bytes", upload() + raw(RST, 0, 1, b"\0" * 5), SIZE),
    fine("6.4", "an unknown error code", upload() + raw(RST, 0, 1, number(99))),
    # SETTINGS.
    fatal("6.5", "SETTINGS on a stream", raw(SETTINGS, 0, 1)),
    fatal("6.5", "an acknowledgement with a payload", raw(SETTINGS, 1, 0, b"\0" * 6), SIZE),
    fatal("6.5", "SETTINGS of 5 bytes", raw(SETTINGS, 0, 0, b"\0" * 5), SIZE),
    fine("6.5", "no settings", raw(SETTINGS, 0, 0) + get(), 200),
    fine("6.5", "an acknowledgement that nobody waits for", raw(SETTINGS, 1, 0) * 3 + get(), 200),
    fatal("6.5", "an acknowledgement of one byte", raw(SETTINGS, 1, 0, b"\0"), SIZE),
    fatal("6.5.2", "ENABLE_PUSH of 2", setting(2, 2)),
    fatal("6.5.2", "an initial window of 2^31", setting(4, 1 << 31), FLOW),
    fatal("6.5.2", "frames of less than 16,384 bytes", setting(5, 16_383)),
    fatal("6.5.2", "frames of 2^24 bytes", setting(5, 1 << 24)),
    fine("6.5.2", "an unknown setting is ignored", setting(0x99, 7) + get(), 200),
    fine("6.5.2", "SETTINGS_NO_RFC7540_PRIORITIES is ignored", setting(9, 1) + get(), 200),
    fine("6.5.2", "no header table", setting(1, 0) + get(), 200),
    fine("6.5.2", "a large header table", setting(1, 0xFFFFFFFF) + get(), 200),
    *[fine("6.5.2", f"ENABLE_PUSH of {n}", setting(2, n) + get(), 200) for n in (0, 1)],
    fatal("6.5.2", "a large ENABLE_PUSH", setting(2, 0xFFFFFFFF)),
    fine("6.5.2", "no streams of the server", setting(3, 0) + get(), 200),
    fine("6.5.2", "the largest initial window", setting(4, 0x7FFFFFFF) + get(), 200),
    fatal("6.5.2", "the largest number as initial window", setting(4, 0xFFFFFFFF), FLOW),
    fine("6.5.2", "frames of 16,384 bytes", setting(5, 16_384) + get(), 200),
    fine("6.5.2", "frames of 2^24-1 bytes", setting(5, (1 << 24) - 1) + get(), 200),
    fatal("6.5.2", "frames of 0 bytes", setting(5, 0)),
    fine("6.5.2", "MAX_HEADER_LIST_SIZE is a hint", setting(6, 0) + get(), 200),
    fatal("6.5.2", "an invalid value after a valid one", setting(3, 9) + setting(5, 1)),
    # PUSH_PROMISE.
    fatal("6.6", "PUSH_PROMISE from a client", upload() + raw(PUSH, 4, 1, number(2) + BLOCK)),
    fatal("6.6", "PUSH_PROMISE on stream 0", raw(PUSH, 4, 0, number(2) + BLOCK)),
    fatal("6.6", "PUSH_PROMISE on an idle stream", raw(PUSH, 4, 1, number(2) + BLOCK)),
    # PING.
    fatal("6.7", "PING on a stream", raw(PING, 0, 1, b"x" * 8)),
    fatal("6.7", "PING of 7 bytes", raw(PING, 0, 0, b"x" * 7), SIZE),
    fatal("6.7", "PING of 9 bytes", raw(PING, 0, 0, b"x" * 9), SIZE),
    fatal("6.7", "an empty acknowledgement", raw(PING, 1, 0), SIZE),
    fine("6.7", "an acknowledgement that nobody waits for", raw(PING, 1, 0, b"x" * 8) + get(), 200),
    # GOAWAY.
    fatal("6.8", "GOAWAY on a stream", raw(GOAWAY, 0, 1, b"\0" * 8)),
    fatal("6.8", "GOAWAY of 7 bytes", raw(GOAWAY, 0, 0, b"\0" * 7), SIZE),
    fine("6.8", "requests after GOAWAY are served", raw(GOAWAY, 0, 0, b"\0" * 8) + get(), 200),
    fine(
        "6.8",
        "an unknown code, and debug data",
        raw(GOAWAY, 0, 0, number(7) + number(99) + b"text") + get(),
        200,
    ),
    # WINDOW_UPDATE.
    fatal("6.9", "an increment of 0", raw(WINDOW, 0, 0, number(0))),
    fine("6.9", "the reserved bit is ignored", raw(WINDOW, 0, 0, number(0x80000001)) + get(), 200),
    fatal("6.9", "an increment of 0 with the reserved bit", raw(WINDOW, 0, 0, number(1 << 31))),
    fatal("6.9", "an increment of 0 on an idle stream", raw(WINDOW, 0, 1, number(0))),
    fatal("6.9", "WINDOW_UPDATE of 5 bytes on a stream", upload() + raw(8, 0, 1, bytes(5)), SIZE),
    stream("6.9", "an increment of 0 on a stream", upload() + raw(WINDOW, 0, 1, number(0))),
    fatal("6.9", "WINDOW_UPDATE of 3 bytes", raw(WINDOW, 0, 0, b"\0" * 3), SIZE),
    fatal("6.9.1", "a window above 2^31-1", raw(WINDOW, 0, 0, number(0x7FFFFFFF)), FLOW),
    stream(
        "6.9.1",
        "a window of a stream above 2^31-1",
        upload() + raw(WINDOW, 0, 1, number(0x7FFFFFFF)),
        FLOW,
    ),
    fatal(
        "6.9.2",
        "a setting that makes a window too large",
        upload() + raw(WINDOW, 0, 1, number(0x7FFF0000)) + setting(4, 0x7FFFFFFF),
        FLOW,
    ),
    # CONTINUATION.
    fine(
        "6.10",
        "a block in several frames",
        get(1, BLOCK[:3], 1) + raw(9, 0, 1, BLOCK[3:5]) + raw(9, 0, 1) + raw(9, 4, 1, BLOCK[5:]),
        200,
    ),
    fatal("6.10", "CONTINUATION after the block", get() + raw(CONTINUATION, 4, 1)),
    fatal("6.10", "CONTINUATION on stream 0", get(1, BLOCK, 1) + raw(CONTINUATION, 4, 0)),
    fine(
        "6.10",
        "padding before CONTINUATION",
        get(1, b"\2" + bytes(2), 9) + raw(9, 4, 1, BLOCK),
        200,
    ),
    fatal("6.10", "CONTINUATION after the last one", get(1, BLOCK, 1) + raw(9, 4, 1) * 2),
    fatal("6.10", "CONTINUATION after DATA", upload() + raw(DATA, 0, 1, b"x") + raw(9, 4, 1)),
    fatal("6.10", "DATA within a block", upload() + get(3, BLOCK, 1) + END),
    fatal("6.10", "RST_STREAM within a block", get(1, BLOCK, 1) + raw(RST, 0, 1, number(8))),
    fatal("6.10", "SETTINGS within a block", get(1, BLOCK, 1) + raw(SETTINGS, 0, 0)),
    fatal("6.10", "WINDOW_UPDATE within a block", get(1, BLOCK, 1) + GROW),
    fatal("6.10", "GOAWAY within a block", get(1, BLOCK, 1) + raw(GOAWAY, 0, 0, bytes(8))),
]
