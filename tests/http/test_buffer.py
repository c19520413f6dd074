"""Buffers for incomplete input: the cost of a byte does not depend on the length of the input."""

import asyncio
import tracemalloc

import pytest

from tests.support.helpers import in_loop, upload
from tinyasgi.http import request
from tinyasgi.http.buffer import ReceiveBuffer
from tinyasgi.testing import connect

CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_each_byte_is_searched_once() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"a\r\nb\nc")
    assert buffer.find(b"\r\n") == 1
    assert buffer.has_bare_cr_or_lf()
    buffer.append(b"defg")
    buffer.append(b"h\r")
    assert buffer.find(b"\r\n") == -1
    assert not buffer.has_bare_cr_or_lf()
    buffer.append(b"\n")
    assert buffer.find(b"\r\n") == 11
    assert not buffer.has_bare_cr_or_lf()
    buffer.append(b"\r")
    assert buffer.find(b"\r\n\r\n") == -1
    buffer.append(b"\nmore")
    assert buffer.find(b"\r\n\r\n") == 11


async def wait(scope, receive, send) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (b"GET /", 50_000),
        (b"GET /%b HTTP/1.1\r\nHost: here\r\nA: " % bytes(300).replace(b"\0", b"x"), 50_000),
        (CHUNKED + b"0\r\nA: ", 15_000),
        (upload(100_000), 50_000),
    ],
    ids=["request line", "headers", "trailers", "body"],
)
@in_loop
async def test_appending_a_byte_copies_nothing(start: bytes, length: int) -> None:
    async with connect(wait, lifespan="off") as connection:
        protocol = connection.protocol
        for data in (start, b"x" * length, b"x"):
            protocol.data_received(data)
        peaks = []
        tracemalloc.start()
        try:
            for _ in range(20):  # some of them may enlarge the buffer
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                protocol.data_received(b"x")
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
        assert not connection.closed
    assert sorted(peaks)[10] < 10_000


@in_loop
async def test_a_request_line_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    original = request.parse_request_line

    def count(line: bytes, root_path: str) -> request.RequestLine:
        checked.append(line)
        return original(line, root_path)

    monkeypatch.setattr(request, "parse_request_line", count)
    async with connect(wait, lifespan="off") as connection:
        connection.protocol.data_received(b"GET /%b HTTP/1.1\r\n" % (b"x" * 1000))
        for byte in b"Host: here\r\n\r":
            connection.protocol.data_received(bytes([byte]))
        assert len(checked) == 1
        connection.protocol.data_received(b"\n")
        assert connection.context.running
