"""Properties of an HTTP/2 connection for any frames of a client.

The first byte of an input selects how the connection ends, and where the input is cut. Four bytes
begin each frame: type, flags, stream, and size of the payload. A size of 255 means that the rest is
sent as it is. The server must send well-formed frames in an allowed order, must not raise an
exception, and must forget the connection at its end.
"""

import asyncio
from typing import Any

from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
)

from tests.protocols.http2 import oracle
from tests.protocols.http2.client import raw
from tinyasgi.protocols.http2.frames import MAX_PAYLOAD, PREFACE, SETTINGS
from tinyasgi.testing import connect

from .connection import cut, end, quiet_logs

__all__ = ["check", "check_hpack"]

GREETING = PREFACE + raw(SETTINGS, 0, 0)
LIMITS = {"limit_body_size": 1000, "limit_head_fields": 20, "limit_concurrency": 30}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read, respond and fail in an order that depends on the path."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    choice = len(scope["raw_path"]) + len(scope["query_string"])
    if choice & 1:
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "trailers": choice & 8 > 0})
    if choice & 2:
        await send({"type": "http.response.body", "body": b"x" * 70_000, "more_body": True})
    if choice & 4:
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"end"})
    if choice & 8:
        await send({"type": "http.response.trailers", "headers": [(b"x", b"y")]})


def frames(data: bytes) -> bytes:
    """Return the bytes of a client that an input describes."""
    sent = b""
    while len(data) >= 4:
        kind, flags, stream, size = data[:4]
        if size == 255:
            return sent + data[4:]
        sent += raw(kind, flags, stream, data[4 : 4 + size])
        data = data[4 + size :]
    return sent + data


async def check(data: bytes) -> None:
    """Check an input. Raises AssertionError, or the exception of the server."""
    choice, sent = data[0] if data else 0, GREETING + frames(data[1:])
    reads = [bytes(piece) for piece in cut(sent, 20 if choice & 16 else 1)]
    with quiet_logs():
        async with connect(app, **LIMITS) as connection:
            await connection.feed(*filter(None, reads))
            await end(connection, choice >> 2 & 3)
            received = bytes(connection.sent)
            assert connection.is_closing(), "the connection stays open"
            assert not connection.context.connections, "the connection is still known"
            assert not connection.context.running, "an exchange is still running"
    check_frames(received)


def check_frames(data: bytes) -> None:
    """Check all frames that the server has sent."""
    decoder, ended, closed = Decoder(), set(), False
    position = 0
    while position < len(data):
        head = memoryview(data[position : position + 9])
        frame, length = Frame.parse_frame_header(head)
        assert length <= MAX_PAYLOAD
        body = memoryview(data[position + 9 : position + 9 + length])
        assert len(body) == length, "an incomplete frame"
        frame.parse_body(body)
        position += 9 + length
        assert not closed, f"a frame after the last GOAWAY: {frame}"
        if isinstance(frame, HeadersFrame | DataFrame | RstStreamFrame | ContinuationFrame):
            assert (frame.stream_id, isinstance(frame, RstStreamFrame)) not in ended, frame
        if isinstance(frame, HeadersFrame):
            decoder.decode(frame.data)
        if isinstance(frame, RstStreamFrame):
            ended |= {(frame.stream_id, True), (frame.stream_id, False)}
        elif isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags:
            ended.add((frame.stream_id, False))
        closed = isinstance(frame, GoAwayFrame) and frame.error_code != 0


async def check_hpack(data: bytes) -> None:
    """Check header blocks: the `hpack` library must decode the same fields."""
    oracle.check(oracle.split(data))
