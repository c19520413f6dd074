"""Rules of RFC 9113 and RFC 7541: what the server answers to each violation, with its error code.

docs/http2.md lists the sections.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, SettingsFrame

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import PREFACE, ErrorCode

from .client import GET, POST, Client, raw

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
#: A stream that the server resets.
ABORTED = upload() + raw(WINDOW, 0, 1, number(0))
CASES = [
    # Frames.
    fine("4.1", "a frame of an unknown type is ignored", raw(0x16, 0xFF, 0, b"x") + get(), 200),
    fine("4.1", "an unknown frame on a stream is ignored", raw(0x16, 0, 9, b"x") + get(), 200),
    fine("4.1", "unknown flags are ignored", raw(PING, 0xFE, 0, b"x" * 8) + get(), 200),
    fine("4.1", "the reserved bit is ignored", get(0x80000001), 200),
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
    # HEADERS.
    fatal("6.2", "HEADERS on stream 0", get(0)),
    fatal("6.2", "too much padding", get(1, b"\x40" + BLOCK, 5 | PADDED)),
    fatal("6.2", "no room for the priority", get(1, b"\0" * 4, 5 | PRIO), SIZE),
    fatal("6.2", "padding into the priority", get(1, b"\6" + b"\0" * 5 + BLOCK[:5], 0x2D)),
    fine("6.2", "padding and priority", get(1, b"\2" + b"\0" * 5 + BLOCK + b"\0\0", 0x2D), 200),
    # PRIORITY.
    fatal("6.3", "PRIORITY on stream 0", raw(PRIORITY, 0, 0, b"\0" * 5)),
    fatal("6.3", "PRIORITY of 4 bytes on an idle stream", raw(PRIORITY, 0, 1, b"\0" * 4), SIZE),
    stream("6.3", "PRIORITY of 4 bytes", upload() + raw(PRIORITY, 0, 1, b"\0" * 4), SIZE),
    # RST_STREAM.
    fatal("6.4", "RST_STREAM on stream 0", raw(RST, 0, 0, number(8))),
    fatal("6.4", "RST_STREAM of 3 bytes", upload() + raw(RST, 0, 1, b"\0" * 3), SIZE),
    fine("6.4", "an unknown error code", upload() + raw(RST, 0, 1, number(99))),
    # SETTINGS.
    fatal("6.5", "SETTINGS on a stream", raw(SETTINGS, 0, 1)),
    fatal("6.5", "an acknowledgement with a payload", raw(SETTINGS, 1, 0, b"\0" * 6), SIZE),
    fatal("6.5", "SETTINGS of 5 bytes", raw(SETTINGS, 0, 0, b"\0" * 5), SIZE),
    fatal("6.5.2", "ENABLE_PUSH of 2", setting(2, 2)),
    fatal("6.5.2", "an initial window of 2^31", setting(4, 1 << 31), FLOW),
    fatal("6.5.2", "frames of less than 16,384 bytes", setting(5, 16_383)),
    fatal("6.5.2", "frames of 2^24 bytes", setting(5, 1 << 24)),
    fine("6.5.2", "an unknown setting is ignored", setting(0x99, 7) + get(), 200),
    fine("6.5.2", "SETTINGS_NO_RFC7540_PRIORITIES is ignored", setting(9, 1) + get(), 200),
    fine("6.5.2", "no header table", setting(1, 0) + get(), 200),
    # PUSH_PROMISE.
    fatal("6.6", "PUSH_PROMISE from a client", upload() + raw(PUSH, 4, 1, number(2) + BLOCK)),
    # PING.
    fatal("6.7", "PING on a stream", raw(PING, 0, 1, b"x" * 8)),
    fatal("6.7", "PING of 7 bytes", raw(PING, 0, 0, b"x" * 7), SIZE),
    fine("6.7", "an acknowledgement that nobody waits for", raw(PING, 1, 0, b"x" * 8) + get(), 200),
    # GOAWAY.
    fatal("6.8", "GOAWAY on a stream", raw(GOAWAY, 0, 1, b"\0" * 8)),
    fatal("6.8", "GOAWAY of 7 bytes", raw(GOAWAY, 0, 0, b"\0" * 7), SIZE),
    fine("6.8", "requests after GOAWAY are served", raw(GOAWAY, 0, 0, b"\0" * 8) + get(), 200),
    # WINDOW_UPDATE.
    fatal("6.9", "an increment of 0", raw(WINDOW, 0, 0, number(0))),
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
    # Messages.
    stream("8.1", "trailers without END_STREAM", upload() + get(1, b"\0\1a\1b", END_HEADERS)),
    stream("8.1", "a pseudo-header in trailers", upload() + get(1, b"\x82")),
    stream("8.2.2", "connection in trailers", upload() + get(1, b"\0\x0aconnection\1b")),
    fine("8.1", "trailers", upload() + get(1, b"\0\1a\1b"), 200),
    stream(
        "8.1.1",
        "a body longer than its length",
        request(*READ, ("content-length", "1"), end_stream=False) + raw(DATA, 0, 1, b"ab"),
    ),
    stream(
        "8.1.1",
        "a body shorter than its length",
        request(*READ, ("content-length", "2"), end_stream=False) + raw(DATA, 1, 1, b"a"),
    ),
    stream("8.1.1", "no body although it has a length", request(*READ, ("content-length", "2"))),
    stream(
        "8.1.1",
        "different lengths",
        request(*READ, ("content-length", "2"), ("content-length", "3")),
    ),
    stream("8.1.1", "an invalid length", request(*READ, ("content-length", "+1"))),
    # Headers.
    stream("8.2.1", "an upper-case name", with_field("X-Name", "y")),
    stream("8.2.1", "an empty name", with_field("", "y")),
    stream("8.2.1", "a space in a name", with_field("a b", "y")),
    stream("8.2.1", "a colon in a name", with_field("a:b", "y")),
    stream("8.2.1", "a byte above 127 in a name", with_field("a\xe4", "y")),
    stream("8.2.1", "NUL in a value", with_field("a", "b\0")),
    stream("8.2.1", "CR in a value", with_field("a", "b\rc")),
    stream("8.2.1", "LF in a value", with_field("a", "b\nc")),
    stream("8.2.1", "a space before a value", with_field("a", " b")),
    stream("8.2.1", "a tab after a value", with_field("a", "b\t")),
    fine("8.2.1", "an empty value", with_field("a", ""), 200),
    fine("8.2.1", "bytes above 127 in a value", with_field("a", "\xe4\xff"), 200),
    *[
        stream("8.2.2", f"the header {name}", with_field(name, "close"))
        for name in (
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        )
    ],
    stream("8.2.2", "te with another value", with_field("te", "gzip")),
    fine("8.2.2", "te: trailers", with_field("te", "trailers"), 200),
    # Pseudo-headers.
    stream("8.3", "an unknown pseudo-header", with_field(":unknown", "x")),
    stream("8.3", "a pseudo-header of responses", with_field(":status", "200")),
    stream("8.3", "a pseudo-header after a header", request(*GET[:3], ("a", "b"), GET[3])),
    *[
        stream("8.3.1", f"no {name}", request(*[field for field in GET if field[0] != name]))
        for name in (":method", ":scheme", ":path")
    ],
    *[stream("8.3.1", f"{field[0]} twice", request(*GET, field)) for field in GET],
    *[
        stream("8.3.1", f"the scheme {value!r}", request(GET[0], (":scheme", value), *GET[2:]))
        for value in ("", "ht tp", "http\0", "http\n", "9p", "http/")
    ],
    stream("8.3.1", "an empty path", request(*GET[:3], (":path", ""))),
    stream("8.3.1", "a path without a slash", request(*GET[:3], (":path", "a"))),
    stream("8.3.1", "an absolute target", request(*GET[:3], (":path", "http://here/"))),
    stream("8.3.1", "a space in the path", request(*GET[:3], (":path", "/a b"))),
    stream("8.3.1", "a fragment in the path", request(*GET[:3], (":path", "/a#b"))),
    stream("8.3.1", "* with GET", request(*GET[:3], (":path", "*"))),
    fine("8.3.1", "OPTIONS *", request((":method", "OPTIONS"), *GET[1:3], (":path", "*")), 200),
    stream("8.3.1", "an invalid method", request((":method", "G T"), *GET[1:])),
    stream("8.3.1", "an empty method", request((":method", ""), *GET[1:])),
    stream("8.3.1", "user information", request(*GET[:2], (":authority", "me@here"), GET[3])),
    stream("8.3.1", "an empty authority", request(*GET[:2], (":authority", ""), GET[3])),
    stream("8.3.1", "Host differs from :authority", request(*GET, ("host", "there"))),
    fine("8.3.1", "Host is the same as :authority", request(*GET, ("host", "HERE")), 200),
    fine("8.3.1", "Host without :authority", request(*GET[:2], GET[3], ("host", "here")), 200),
    fine("8.3.1", "neither Host nor :authority", request(*GET[:2], GET[3]), 400),
    stream("8.5", "CONNECT with a path", request((":method", "CONNECT"), *GET[1:])),
    stream("8.5", "CONNECT without :authority", request((":method", "CONNECT"))),
    # HPACK.
    fatal("7541 2.3.3", "index 0", get(1, b"\x80"), COMPRESSION),
    fatal("7541 2.3.3", "an index beyond the table", get(1, b"\xff\x00"), COMPRESSION),
    fatal("7541 2.3.3", "a name beyond the table", get(1, b"\x7f\x00\x01a"), COMPRESSION),
    fine("7541 4.2", "a table size of 0, then 4,096", get(1, b"\x20\x3f\xe1\x1f" + BLOCK), 200),
    fatal("7541 4.2", "a size update after a field", get(1, BLOCK + b"\x20"), COMPRESSION),
    fatal("7541 5.1", "an integer that does not end", get(1, b"\xff" + b"\x80" * 20), COMPRESSION),
    fatal("7541 5.1", "a large integer", get(1, b"\xff" + b"\xff" * 9 + b"\1"), COMPRESSION),
    fatal("7541 5.2", "padding of 8 bits", get(1, b"\0\x82\x1f\xff\1a"), COMPRESSION),
    fatal("7541 5.2", "padding with zeros", get(1, b"\0\x81\x18\1a"), COMPRESSION),
    fatal("7541 5.2", "EOS in a string", get(1, b"\0\x84\xff\xff\xff\xff\1a"), COMPRESSION),
    fatal("7541 5.2", "a string beyond the block", get(1, b"\0\x05ab"), COMPRESSION),
    fatal("7541 6.3", "a table of 4,097 bytes", get(1, b"\x3f\xe2\x1f" + BLOCK), COMPRESSION),
    fine("7541 6.2.3", "a field that is never indexed", get(1, BLOCK + b"\x10\1a\1b"), 200),
    # Extended CONNECT.
    stream("8441 4", ":protocol without CONNECT", request(*GET, (":protocol", "websocket"))),
    stream(
        "8441 4",
        ":protocol without :path",
        request((":method", "CONNECT"), *GET[1:3], (":protocol", "websocket")),
    ),
    fine(
        "8441 4",
        "an unknown protocol",
        request((":method", "CONNECT"), *GET[1:], (":protocol", "x")),
        501,
    ),
    # Attacks.
    fatal("10.5", "CONTINUATION without end", get(1, b"", 1) + raw(9, 0, 1) * 40, CALM),
    fatal(
        "10.5",
        "a header block without end",
        get(1, b"", 1) + raw(9, 0, 1, b"\0" * 16_000) * 20,
        CALM,
    ),
    fatal("10.5", "a field in each byte", get(1, BLOCK + b"\x40\1a\1b" + b"\xbe" * 16_000), CALM),
    fine("10.5", "one field many times", get(1, BLOCK + b"\x40\1a\1b" + b"\xbe" * 4000), 431),
    fine("10.5", "one cookie many times", get(1, BLOCK + b"\x60\3a=b" + b"\xbe" * 4000), 431),
    fine(
        "10.5",
        "a large field many times",
        get(1, BLOCK + b"\x40\1a\x7f\x81\x1e" + b"x" * 4000 + b"\xbe" * 4000),
        431,
    ),
    fatal("10.5", "PING flood", raw(PING, 0, 0, b"x" * 8) * 2000, CALM),
    fatal("10.5", "SETTINGS flood", raw(SETTINGS, 0, 0) * 2000, CALM),
    fatal("10.5", "many settings", raw(SETTINGS, 0, 0, b"\0\4\0\0\1\0" * 33), CALM),
    fatal("10.5", "trailers after RST_STREAM", ABORTED + get(1, b"\0\1a\1b") * 2000, CALM),
    fatal("10.5", "END_STREAM after RST_STREAM", ABORTED + END * 2000, CALM),
    fatal("10.5", "PRIORITY flood", raw(PRIORITY, 0, 1, b"\0" * 5) * 2000, CALM),
    fatal("10.5", "WINDOW_UPDATE flood", raw(WINDOW, 0, 0, number(1)) * 2000, CALM),
    fatal("10.5", "empty DATA flood", upload() + raw(DATA, 0, 1) * 2000, CALM),
    fatal("10.5", "padded empty DATA flood", upload() + raw(DATA, 8, 1, b"\1\0") * 2000, CALM),
    fatal("10.5", "unknown frames", raw(0x16, 0, 0) * 2000, CALM),
    fatal(
        "10.5",
        "rapid reset",
        b"".join(get(i, WAIT) + raw(RST, 0, i, number(8)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal(
        "10.5",
        "rapid reset of uploads",
        b"".join(upload(i) + raw(RST, 0, i, number(8)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal(
        "10.5",
        "resets by the server",
        b"".join(upload(i) + raw(WINDOW, 0, i, number(0)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal("10.5", "malformed requests", b"".join(get(i, b"\x82") for i in range(1, 999, 2)), CALM),
    fatal("10.5", "refused streams", b"".join(upload(i) for i in range(1, 999, 2)), CALM),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/wait":
        await receive()
        await receive()
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def client() -> Iterator[Client]:
    with simulated(app) as server:
        yield Client(server)
        server.server.stop()


#: Data beyond this size is sent whole.
MAX_CUT = 2000
CUTS = [("whole", 0), ("bytes", 1), ("sevens", 7)]


@pytest.mark.parametrize(
    ("case", "cut"),
    [
        pytest.param(case, cut, id=f"{name}-{case.section} {case.rule}")
        for name, cut in CUTS
        for case in CASES
        if not cut or len(case.data) <= MAX_CUT
    ],
)
def test_rule(client: Client, case: Case, cut: int) -> None:
    size = cut or len(case.data)
    for start in range(0, len(case.data), size):
        client.send(case.data[start : start + size])
        if client.goaway:
            break
    assert client.goaway is case.goaway or (client.goaway is NO and case.goaway is None)
    if case.goaway is not None:
        assert client.closed
        assert "HTTP/2 " + case.goaway.name in client.simulation.records[-1].getMessage()
        return
    resets = [code for code in [client.reset(1)] if code is not NO]
    assert resets == [case.reset] or (case.reset is None and resets == [None])
    assert client.status(1) == case.status or case.reset is not None
    if not client.goaway:
        before = 1001
        client.send(get(before))
        assert client.status(before) == 200  # other streams are not affected


@pytest.mark.parametrize(
    "data",
    [
        PREFACE[:20] + b"XX\r\n",
        PREFACE + raw(PING, 0, 0, b"x" * 8),
        PREFACE + raw(SETTINGS, 1, 0),
        PREFACE + get(),
        PREFACE + raw(SETTINGS, 0, 0, b"\0" * 5)[:-5] + b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_section_3_4_preface(data: bytes) -> None:
    with simulated(app) as server:
        client = Client(server, greet=False).send(data)
        assert client.goaway in (PROTOCOL, SIZE)
        assert client.closed


def test_section_5_1_closed_stream(client: Client) -> None:
    client.send(get())
    assert client.ended(1)
    client.send(END)
    assert client.goaway is CLOSED


def test_section_5_1_1_closed_stream_is_not_used_again(client: Client) -> None:
    client.send(get()).send(get())
    assert client.goaway is CLOSED


def test_section_6_5_3_acknowledgement(client: Client) -> None:
    before = len(client.of(SettingsFrame))
    client.send(setting(4, 1000) * 3)
    assert len(client.of(SettingsFrame)) == before + 3


def test_section_6_8_last_stream(client: Client) -> None:
    client.send(get(1), get(7), raw(PING, 0, 1, b"x" * 8))
    assert client.of(GoAwayFrame)[-1].last_stream_id == 7


def test_section_5_4_2_data_of_a_stream_with_an_error_is_ignored(client: Client) -> None:
    client.send(request(*READ, ("content-length", "1"), end_stream=False))
    client.send(raw(DATA, 0, 1, b"ab"), raw(DATA, 0, 1, b"cd"), END)
    assert len(client.of(RstStreamFrame, 1)) == 1
    assert client.ping()


def test_section_8_1_request_headers_are_decoded_after_an_error(client: Client) -> None:
    """The table stays the same on both sides after a malformed request."""
    client.send(client.headers(1, [*GET, ("Upper", "x"), ("later", "value")], "END_STREAM"))
    assert client.reset(1) is PROTOCOL
    client.get(3, ("later", "value"))
    assert client.status(3) == 200


def test_floods_that_are_none(client: Client) -> None:
    """What a client may do often, because requests, bodies and responses pay for it."""
    for stream_id in range(1, 2001, 2):
        client.send(get(stream_id), raw(PING, 0, 0, b"x" * 8))
        client.send(raw(RST, 0, stream_id, number(8)))
    assert client.goaway is None
    assert len([frame for frame in client.of(DataFrame) if "END_STREAM" in frame.flags]) == 1000


def test_the_page_lists_all_sections() -> None:
    page = (Path(__file__).parents[3] / "docs" / "http2.md").read_text(encoding="utf-8")
    rules = page.partition("\n## Rules\n")[2]
    for section in {case.section for case in CASES}:
        rfc, _, number = f"9113 {section}".rpartition(" ")
        lines = [line for line in rules.splitlines() if f"§{number}" in line]
        assert lines, section
        assert rfc == "9113" or any(f"RFC {rfc.split()[-1]}" in line for line in lines)
