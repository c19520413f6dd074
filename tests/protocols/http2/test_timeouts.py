"""Timeouts of HTTP/2 connections: none ends early, and each ends within two seconds after its time.

The server looks once a second while it has a connection, so each test begins between two looks.
"""

import asyncio
from typing import Any

import pytest
from hyperframe.frame import SettingsFrame

from tests.support.simulation import Simulation, simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, PREFACE, ErrorCode
from tinyasgi.protocols.timeouts import LINGER, MAX_LINGER

from .client import Client, raw
from .test_connection import App

TIMEOUTS = {
    "timeout_head": 5,
    "timeout_body": 5,
    "timeout_write": 5,
    "timeout_keep_alive": 5,
    "min_rate_body": 0,
    "min_rate_write": 0,
}


@pytest.fixture
def app() -> App:
    return App()


def begin(server: Simulation) -> None:
    """Go to half a second after a look, with another connection, which keeps the clock running."""
    Client(server).get(1, path="/wait")
    server.loop.advance(10.5)


def ends_in_time(client: Client, server: Simulation) -> bool:
    """Return whether a connection, or stream 1, ends within two seconds after five, not before."""
    server.loop.advance(4.9)
    assert not has_ended(client)
    server.loop.advance(2.1)
    return has_ended(client)


def has_ended(client: Client) -> bool:
    client.settle()
    return client.closed or client.goaway is not None or client.reset(1) is not None


@pytest.mark.parametrize("later", [0.0, 7.5])
@pytest.mark.parametrize("window", ["stream", "connection"])
def test_window_stays_closed(app: App, window: str, later: float) -> None:
    """later: seconds after which the client opens the window once."""
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        settings = {"INITIAL_WINDOW_SIZE": 1000 if window == "stream" else 1 << 20}
        client = Client(server, **settings).get(1, path="/large")
        for _ in range(3 if later else 0):
            server.loop.advance(4)
            client.enlarge(1 if window == "stream" else 0, 1000)
        assert ends_in_time(client, server)
        assert client.reset(1) is (ErrorCode.CANCEL if window == "stream" else None)
        assert client.closed is (window == "connection")


def test_new_data_begins_a_new_wait(app: App) -> None:
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, path="/pieces")
        server.loop.advance(4.5)
        client.enlarge(1, 10_000)
        assert app.sent == 1
        assert ends_in_time(client, server)


@pytest.mark.parametrize("window", ["stream", "connection"])
def test_rate_of_reading(app: App, window: str) -> None:
    """A client may lag behind by 500 bytes: the rate times the timeout."""
    with simulated(app, **{**TIMEOUTS, "min_rate_write": 100}) as server:
        begin(server)
        settings = {"INITIAL_WINDOW_SIZE": 0 if window == "stream" else 1 << 20}
        client = Client(server, **settings).get(1, path="/large")
        target = 1 if window == "stream" else 0
        for _ in range(20):
            client.enlarge(target, 100)
            server.loop.advance(1)
        assert not has_ended(client)
        seconds = 0
        while not has_ended(client):
            client.enlarge(target, 50)
            server.loop.advance(1)
            seconds += 1
        assert 9 <= seconds <= 12


@pytest.mark.parametrize("data", [b"\x82\x86", b""])
def test_headers_do_not_end(app: App, data: bytes) -> None:
    with simulated(app, **{**TIMEOUTS, "timeout_keep_alive": 60}) as server:
        begin(server)
        client = Client(server).send(raw(1, 1, 1, data))
        assert ends_in_time(client, server)
        assert client.goaway is ErrorCode.ENHANCE_YOUR_CALM


def test_frame_does_not_end(app: App) -> None:
    with simulated(app, **{**TIMEOUTS, "timeout_keep_alive": 60}) as server:
        begin(server)
        client = Client(server).send(raw(6, 0, 0, b"x" * 8)[:-1])
        assert ends_in_time(client, server)


def test_incomplete_data_has_the_time_of_a_body(app: App) -> None:
    with simulated(app, **{**TIMEOUTS, "timeout_body": 30}) as server:
        begin(server)
        client = Client(server).post(1, path="/echo").send(raw(0, 0, 1, b"x" * 10)[:-5])
        server.loop.advance(15)
        assert not has_ended(client)
        client.send(b"x" * 5).data(1, b"", "END_STREAM")
        assert client.body(1) == b"x" * 10


def test_connection_waits_although_a_stream_may_send_a_byte(app: App) -> None:
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server, INITIAL_WINDOW_SIZE=INITIAL_WINDOW + 1).get(1, path="/large")
        assert len(client.body(1)) == INITIAL_WINDOW
        assert ends_in_time(client, server)
        assert client.reset(1) is None and client.closed


def test_body_does_not_arrive(app: App) -> None:
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server).post(1, path="/echo")
        server.loop.advance(4.9)
        assert client.settle().status(1) is None
        server.loop.advance(2.1)
        assert client.settle().status(1) == 408


def test_rate_of_a_body(app: App) -> None:
    with simulated(app, **{**TIMEOUTS, "min_rate_body": 100}) as server:
        begin(server)
        client = Client(server).post(1, path="/echo")
        for _ in range(20):
            client.data(1, b"x" * 100)
            server.loop.advance(1)
        assert client.settle().status(1) is None
        seconds = 0
        while client.settle().status(1) is None:
            client.data(1, b"x" * 50)
            server.loop.advance(1)
            seconds += 1
        assert client.status(1) == 408
        assert 9 <= seconds <= 12


@pytest.mark.parametrize("greet", [False, True])
def test_idle(app: App, greet: bool) -> None:
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server, greet=greet)
        if not greet:
            client.send(PREFACE)
        assert ends_in_time(client, server)
        assert client.goaway is ErrorCode.NO_ERROR
        server.loop.advance(1)
        assert client.closed


# Waits that begin late on an old stream.


class Pieces:
    """An app that sends pieces, or reads its body, when a test tells it to."""

    def __init__(self) -> None:
        self.turns: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await asyncio.Event().wait()
        if scope["path"] == "/read":
            await self.turns.get()
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200})
        while piece := await self.turns.get():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b""})


def test_wait_begins_with_the_data() -> None:
    app = Pieces()
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server, INITIAL_WINDOW_SIZE=10).get(1)
        app.turns.put_nowait(b"0123456789")
        server.loop.advance(20)
        assert client.settle().body(1) == b"0123456789"
        app.turns.put_nowait(b"more")
        assert ends_in_time(client, server)
        app.turns.put_nowait(None)


def test_wait_of_a_new_connection_begins_with_the_data() -> None:
    """Its window closes before the timeouts are checked for the first time."""
    app = Pieces()
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server, INITIAL_WINDOW_SIZE=1 << 20).get(1)
        for _ in range(5):  # each is sent at once
            app.turns.put_nowait(bytes(13_107))
        app.turns.put_nowait(b"waits")
        server.loop.advance(4)
        assert app.sent == 5
        assert not client.settle().closed
        app.turns.put_nowait(None)


@pytest.mark.parametrize("window", ["stream", "connection"])
def test_each_wait_has_its_own_rate(window: str) -> None:
    """A client that is slow now and then, for less than the timeout, does not fall behind."""
    app = Pieces()
    with simulated(app, **{**TIMEOUTS, "min_rate_write": 100}) as server:
        begin(server)
        client = Client(server, INITIAL_WINDOW_SIZE=1 << 20).get(1)
        app.turns.put_nowait(bytes(65_535))
        if window == "stream":
            client.enlarge(0, 1 << 20)
            client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}))
        for turn in range(5):
            app.turns.put_nowait(b"0123456789")
            server.loop.advance(4)
            assert app.sent == 1 + turn
            client.enlarge(1 if window == "stream" else 0, 10)
            server.loop.advance(2)
        assert client.reset(1) is None and not client.closed
        app.turns.put_nowait(None)


def test_wait_for_a_body_begins_with_the_app() -> None:
    app = Pieces()
    with simulated(app, **TIMEOUTS) as server:
        begin(server)
        client = Client(server).post(1, path="/read")
        server.loop.advance(20)
        app.turns.put_nowait(b"read")
        server.loop.advance(4.9)
        assert client.settle().status(1) is None
        server.loop.advance(2.1)
        assert client.settle().status(1) == 408


@pytest.mark.parametrize("silent", [True, False])
def test_wait_for_the_rest_of_an_upload_begins_with_the_response(silent: bool) -> None:
    app = Pieces()
    with simulated(app) as server:
        begin(server)
        client = Client(server).post(1)
        server.loop.advance(50)
        app.turns.put_nowait(None)
        assert client.settle().ended(1)
        limit = LINGER if silent else MAX_LINGER
        seconds = 0
        while client.settle().reset(1) is None:
            server.loop.advance(1)
            seconds += 1
            if not silent and client.settle().reset(1) is None:
                client.data(1, b"x")
        assert limit < seconds <= limit + 2
        assert client.reset(1) is ErrorCode.NO_ERROR
