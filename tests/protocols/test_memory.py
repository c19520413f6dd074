"""Buffers do not grow with the data that has passed, and closed connections leave nothing."""

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame

from tests.support.simulation import footprint, simulated
from tinyasgi.protocols.connection import Connection
from tinyasgi.protocols.exchange import Exchange
from tinyasgi.protocols.http2.frames import ErrorCode
from tinyasgi.protocols.http2.sender import Sender
from tinyasgi.protocols.http2.stream import HTTP2Stream

from .http2.client import Client, raw
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


def protocol_objects() -> list[Any]:
    kinds = Connection, Exchange, HTTP2Stream, Sender
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


@pytest.fixture
def left_over() -> Iterator[Callable[[], list[Any]]]:
    """Return a function that finds the new objects which still exist without a collection."""
    logging.disable()  # records keep errors, and so the frames in their tracebacks
    gc.collect()
    gc.disable()
    before = protocol_objects()  # other tests in this process may have left them
    known = set(map(id, before))
    yield lambda: [each for each in protocol_objects() if id(each) not in known]
    gc.enable()
    logging.disable(logging.NOTSET)


def close(client: Client) -> None:
    client.peer.close()


def reset_stream(client: Client) -> None:
    client.send(RstStreamFrame(1, ErrorCode.CANCEL))
    client.peer.close()


def fail(client: Client) -> None:
    client.send(raw(6, 0, 1, b"x" * 8))
    assert client.goaway is ErrorCode.PROTOCOL_ERROR
    client.peer.close()


@pytest.mark.parametrize("end", [close, reset_stream, fail])
@pytest.mark.parametrize("cancel", [True, False])
def test_http2_connections_leave_no_reference_cycles(
    end: Callable[[Client], None], cancel: bool, left_over: Callable[[], list[Any]]
) -> None:
    """A cycle would keep TLS buffers until the next full collection of garbage."""
    with simulated(app, cancel_on_disconnect=cancel) as simulation:
        client = Client(simulation).get(1).post(3).data(3, b"x")
        end(client)
        simulation.loop.advance(5)
        assert not simulation.connections
        del client
        assert not left_over()


def test_http1_connections_leave_no_reference_cycles(left_over: Callable[[], list[Any]]) -> None:
    with simulated(app, cancel_on_disconnect=True) as simulation:
        for data in (GET, UPLOAD, GET + UPLOAD, HANDSHAKE, b"NONSENSE\r\n\r\n"):
            peer = simulation.connect()
            peer.send(data)
            simulation.loop.settle()
            peer.close()
        simulation.loop.advance(5)
        assert not simulation.connections
        del peer
        assert not left_over()
