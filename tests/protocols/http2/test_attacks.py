"""Frames at moments when the server expects others, and limits that are just met."""

from collections.abc import Iterator

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, MAX_WINDOW, PREFACE, ErrorCode
from tinyasgi.protocols.timeouts import LINGER

from .client import GET, Client, raw
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
        server.loop.advance(LINGER + 2)
        assert client.settle().reset(1) is (None if trailers else ErrorCode.NO_ERROR)
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


# Moments.


@pytest.mark.parametrize("code", [0, 1, 7, 11, 0xFFFFFFFF])
def test_any_code_of_a_reset_disconnects(app: App, code: int) -> None:
    with simulated(app) as server:
        client = Client(server).get(1, path="/listen")
        client.send(raw(3, 0, 1, code.to_bytes(4, "big")))
        assert app.received == [{"type": "http.disconnect"}]
        assert client.ping()


@pytest.mark.parametrize("leaves", ["client", "server", "both"])
def test_upload_continues_after_goaway(app: App, leaves: str) -> None:
    with simulated(app) as server:
        client = Client(server).post(1, path="/echo").data(1, b"abc")
        if leaves != "server":
            client.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
        if leaves != "client":
            server.server.stop()
        server.loop.advance(3)
        client.data(1, b"def", "END_STREAM")
        assert client.body(1) == b"abcdef"
        assert client.closed


@pytest.mark.parametrize("data", [b"", PREFACE[:20], PREFACE, PREFACE + b"\0\0\6\4"])
def test_stop_before_the_first_settings(app: App, data: bytes) -> None:
    with simulated(app) as server:
        client = Client(server, greet=False).send(data)
        server.server.stop()
        server.loop.advance(5)
        assert client.closed
        assert server.main.done()


def test_stop_while_a_window_is_closed(app: App) -> None:
    with simulated(app, timeout_write=5, timeout_graceful_shutdown=30) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, path="/large")
        server.server.stop()
        server.loop.advance(20)
        assert client.settle().reset(1) is ErrorCode.CANCEL
        assert server.main.done()


def test_request_that_was_incomplete_when_the_server_stopped(app: App) -> None:
    with simulated(app) as server:
        client = Client(server).send(raw(1, 1, 1, b"\x82"))
        server.server.stop()
        server.loop.advance(0.1)
        client.send(raw(9, 4, 1, b"\x86\x84\1\4here"))
        assert client.status(1) == 200


def test_requests_beyond_max_requests_are_answered_or_refused(app: App) -> None:
    with simulated(app, limit_max_requests=3) as server:
        client = Client(server)
        ids = range(1, 21, 2)
        client.send(*[client.headers(number, GET, "END_STREAM") for number in ids])
        refused = ErrorCode.REFUSED_STREAM
        assert all(client.ended(number) or client.reset(number) is refused for number in ids)
        server.loop.advance(5)
        assert server.main.done()


@pytest.mark.parametrize("path", ["/echo", "/early"])
def test_incomplete_data_frame(app: App, path: str) -> None:
    """It does not keep a stream, or a connection without streams, open."""
    with simulated(app, timeout_body=5, timeout_head=5, timeout_keep_alive=5) as server:
        client = Client(server).post(1, path=path)
        client.send(raw(0, 0, 1, b"x" * 100)[:50])
        server.loop.advance(30)
        assert client.settle().status(1) == (408 if path == "/echo" else 200)
        assert client.closed


def test_half_close_drops_uploads_only(app: App) -> None:
    with simulated(app) as server:
        client = Client(server).post(1, path="/echo").get(3, path="/wait")
        client.peer.half_close()
        server.loop.settle()
        app.go.set()
        assert client.settle().status(3) == 200
        assert client.status(1) is None
        assert client.closed


# Limits that are just met.


def test_largest_windows(app: App) -> None:
    with simulated(app) as server:
        client = Client(server).get(1, path="/wait")
        client.enlarge(0, MAX_WINDOW - INITIAL_WINDOW).enlarge(1, MAX_WINDOW - INITIAL_WINDOW)
        assert client.ping()
        client.enlarge(1, 1)
        assert client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
        client.enlarge(0, 1)
        assert client.goaway is ErrorCode.FLOW_CONTROL_ERROR
        app.go.set()


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431)])
def test_most_fields(app: App, excess: int, status: int) -> None:
    with simulated(app) as server:
        fields = [(f"x{number}", "y") for number in range(96 + excess)]
        assert Client(server).get(1, *fields).status(1) == status


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 413)])
@pytest.mark.parametrize("announced", [True, False])
def test_largest_body(app: App, excess: int, status: int, announced: bool) -> None:
    with simulated(app, limit_body_size=10) as server:
        length = ("content-length", str(10 + excess))
        client = Client(server).post(1, *[length] * announced, path="/echo")
        if client.status(1) is None:
            client.data(1, b"x" * (10 + excess), "END_STREAM")
        assert client.status(1) == status


def test_entries_leave_the_table(app: App) -> None:
    """Entries of all sizes, also larger than the table, which they empty."""
    with simulated(app) as server:
        client = Client(server)
        for number in range(300):
            field = f"x-{number % 50}", "v" * (number * 17 % 5000)
            client.get(2 * number + 1, field)
            assert app.scopes[-1]["headers"][-1] == (field[0].encode(), field[1].encode())


@pytest.mark.parametrize("window", [0, 1, 1000])
def test_small_windows_lose_nothing(app: App, window: int) -> None:
    with simulated(app) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=window).get(1, path="/pieces")
        for _ in range(70):
            client.enlarge(1, 3000).enlarge(0, 3000)
        assert len(client.body(1)) == 200_000
        assert client.ended(1)
        assert client.goaway is None
