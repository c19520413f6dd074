"""Beginnings of heads, lines and bodies: a byte that arrives alone costs the same at any length."""

import asyncio
import tracemalloc

import pytest

from tests.support.helpers import in_loop, upload
from tinyasgi.http import request
from tinyasgi.http.partial import Partial
from tinyasgi.testing import connect

CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_only_what_is_new_is_searched() -> None:
    partial = Partial()
    partial.add(b"a\r\nb\nc")
    assert partial.find(b"\r\n") == 1
    assert partial.has_bare()
    partial.add(b"defg")
    partial.add(b"h\r")
    assert partial.find(b"\r\n") == -1
    assert not partial.has_bare()
    partial.add(b"\n")
    assert partial.find(b"\r\n") == 11
    assert not partial.has_bare()
    partial.add(b"\r")
    assert partial.find(b"\r\n\r\n") == -1
    partial.add(b"\nmore")
    assert partial.find(b"\r\n\r\n") == 11


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
    ids=["request line", "fields", "trailers", "body"],
)
@in_loop
async def test_a_byte_does_not_copy_what_is_there(start: bytes, length: int) -> None:
    async with connect(wait, lifespan="off") as connection:
        protocol = connection.protocol
        for data in (start, b"x" * length, b"x"):
            protocol.data_received(data)
        peaks = []
        tracemalloc.start()
        try:
            for _ in range(20):  # a few of them may make the buffer grow
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                protocol.data_received(b"x")
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
        finally:
            tracemalloc.stop()
        assert not connection.closed
    assert sorted(peaks)[10] < 10_000


@in_loop
async def test_a_request_line_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    original = request.request_line

    def count(line: bytes, root_path: str) -> request.RequestLine:
        checked.append(line)
        return original(line, root_path)

    monkeypatch.setattr(request, "request_line", count)
    async with connect(wait, lifespan="off") as connection:
        connection.protocol.data_received(b"GET /%b HTTP/1.1\r\n" % (b"x" * 1000))
        for byte in b"Host: here\r\n\r":
            connection.protocol.data_received(bytes([byte]))
        assert len(checked) == 1
        connection.protocol.data_received(b"\n")
        assert connection.context.running
