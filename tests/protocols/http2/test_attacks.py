"""Frames at moments when the server expects others: while it stops, or after an early response."""

from collections.abc import Iterator

import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import ErrorCode

from .client import Client, raw
from .test_connection import App


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def leaving(app: App) -> Iterator[Client]:
    """A client of a server that is stopping, with one running request, after the last GOAWAY."""
    with simulated(app) as server:
        client = Client(server).get(1, path="/wait")
        server.server.stop()
        server.loop.advance(3)
        yield client
        app.go.set()
        assert client.settle().status(1) == 200
        assert client.goaway is ErrorCode.NO_ERROR
        assert client.closed
        server.check()


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize("path", ["/early", "/echo"])
def test_body_beyond_its_limit_while_the_response_waits(
    app: App, path: str, trailers: bool
) -> None:
    with simulated(app, limit_body_size=10) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).post(1, path=path)
        client.data(1, b"x" * 11).data(1, b"x" * 11)
        if trailers:
            client.send(client.headers(1, [("a", "b")], "END_STREAM"))
        server.check()
        client.enlarge(1, 1000)
        assert client.status(1) == (200 if path == "/early" else 413)
        assert client.ended(1)
        assert client.reset(1) is ErrorCode.NO_ERROR
        assert client.ping()


def test_body_of_a_stream_after_the_last_goaway(leaving: Client) -> None:
    leaving.post(3)
    assert leaving.reset(3) is ErrorCode.REFUSED_STREAM
    leaving.data(3, b"x" * 100).data(3, b"", "END_STREAM").enlarge(3, 5)
    leaving.send(RstStreamFrame(3, ErrorCode.CANCEL))


def test_trailers_of_a_stream_after_the_last_goaway(leaving: Client) -> None:
    leaving.post(3)
    leaving.send(leaving.headers(3, [("a", "b")], "END_STREAM"))
    assert len(leaving.of(RstStreamFrame, 3)) == 1


def test_reset_streams_do_not_stall_the_connection(app: App) -> None:
    with simulated(app, timeout_write=5) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=1 << 20).get(1, path="/large")
        client.send(RstStreamFrame(1, ErrorCode.CANCEL))
        client.get(3, path="/wait")
        server.loop.advance(20)
        assert not client.closed
        app.go.set()


@pytest.mark.parametrize("late", range(4))
def test_headers_time_out_as_the_last_stream_does(app: App, late: int) -> None:
    with simulated(app, timeout_write=3, timeout_head=3) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, path="/large")
        server.server.stop()
        server.loop.advance(late)
        client.send(raw(1, 1, 3, b"\x82\x86"))
        server.loop.advance(20)
        server.check()


@pytest.mark.parametrize("by", ["settings", "window"])
def test_last_stream_drains_while_stopping(app: App, by: str) -> None:
    with simulated(app) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1)
        server.server.stop()
        server.loop.advance(3)
        if by == "settings":
            client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))
        else:
            client.enlarge(1, 100)
        server.check()
        assert client.ended(1)
        assert client.closed
