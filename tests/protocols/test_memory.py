"""Buffers do not grow with the data that has passed, however it is split."""

from typing import Any

import pytest

from tests.support.simulation import footprint, simulated

from .websocket.helpers import HANDSHAKE, masked

#: Elements of each stream, and the bytes that a connection may hold at any time.
COUNT, LIMIT = 300, 4000

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"

STREAMS = {
    "requests": (b"", GET),
    "requests with bodies": (b"", UPLOAD + b"3\r\nabc\r\n0\r\n\r\n"),
    "chunks": (UPLOAD, b"64\r\n" + bytes(100) + b"\r\n"),
    "chunk extensions": (UPLOAD, b"1;name=value\r\nx\r\n"),
    "messages": (HANDSHAKE, masked(0x82, bytes(100))),
    "fragments": (HANDSHAKE, masked(0x02, bytes(50)) + masked(0x80, bytes(50))),
    "pings": (HANDSHAKE, masked(0x89, bytes(100))),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"end"})


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("kind", STREAMS)
def test_buffers_stay_small(kind: str, http: str) -> None:
    beginning, element = STREAMS[kind]
    stream = beginning + element * COUNT
    size = len(element) + 1  # so that reads end at each place within an element
    with simulated(app, http=http) as simulation:
        peer = simulation.connect()
        largest = 0
        for start in range(0, len(stream), size):
            peer.send(stream[start : start + size])
            simulation.loop.settle()
            (connection,) = simulation.connections
            largest = max(largest, footprint(connection))
        assert len(element) / 4 < largest < LIMIT
        peer.close()
        simulation.loop.settle()
