"""HTTP/2 connections: requests and responses, flow control, timeouts and shutdown."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.simulation import Simulation, footprint, simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, PREFACE, ErrorCode
from tinyasgi.protocols.http2.shared import MAX_STREAMS
from tinyasgi.protocols.http2.upload import MAX_REST
from tinyasgi.protocols.states import COMPLETE, LOST, REFUSED
from tinyasgi.protocols.timeouts import LINGER, MAX_LINGER

from .client import GET, POST, Client, raw


class App:
    """An app whose behaviour depends on the path. It records scopes, messages and errors."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.received: list[Any] = []
        self.sent = 0
        self.errors: list[BaseException] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        name = scope["path"].strip("/") or "hello"
        try:
            await getattr(self, name)(receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise

    async def respond(self, send: Any, body: bytes = b"hello", status: int = 200) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def hello(self, receive: Any, send: Any) -> None:
        await self.respond(send)

    async def empty(self, receive: Any, send: Any) -> None:
        await self.respond(send, b"")

    async def no_content(self, receive: Any, send: Any) -> None:
        await self.respond(send, b"dropped", 204)

    async def read(self, receive: Any) -> bytes:
        body = b""
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            body += message["body"]
            if not message["more_body"]:
                return body

    async def echo(self, receive: Any, send: Any) -> None:
        await self.respond(send, await self.read(receive))

    async def early(self, receive: Any, send: Any) -> None:
        await self.respond(send)
        self.received.append(await receive())

    async def wait(self, receive: Any, send: Any) -> None:
        await self.go.wait()
        await self.respond(send)

    async def listen(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await receive()
        self.received.append(await receive())

    async def large(self, receive: Any, send: Any) -> None:
        await self.respond(send, b"x" * 200_000)
        self.sent += 1

    async def pieces(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body"})

    async def fail(self, receive: Any, send: Any) -> None:
        raise ArithmeticError

    async def fail_late(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ArithmeticError

    async def short(self, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"123", "more_body": True})
        await send({"type": "http.response.body", "body": b"456"})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def server(app: App) -> Iterator[Simulation]:
    with simulated(app) as simulation:
        yield simulation
        app.go.set()


@pytest.fixture
def client(server: Simulation) -> Client:
    return Client(server)


# Requests and responses.


def test_the_server_begins_with_settings_and_a_larger_window(client: Client) -> None:
    first, second, ack = client.frames
    assert isinstance(first, SettingsFrame)
    assert first.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
    assert isinstance(second, WindowUpdateFrame)
    assert second.window_increment + INITIAL_WINDOW == 1 << 20
    assert isinstance(ack, SettingsFrame)
    assert "ACK" in ack.flags


def test_response(client: Client, server: Simulation) -> None:
    client.get(1)
    fields = {":status": "200", "content-type": "text/plain", "content-length": "5"}
    assert client.fields(1) == [fields]
    assert client.body(1) == b"hello"
    assert client.ended(1)
    assert not client.of(RstStreamFrame)
    assert [entry.status for entry in server.log] == [200]


def test_scope(client: Client, app: App) -> None:
    fields = ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")
    client.get(1, *fields, path="/hello?a=%20b")
    scope = app.scopes[0]
    assert scope["type"] == "http"
    assert scope["http_version"] == "2"
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("GET", "/hello", b"/hello")
    assert scope["query_string"] == b"a=%20b"
    assert scope["headers"] == [
        (b"host", b"here"),
        (b"cookie", b"a=1; b=2"),
        (b"x", b"y"),
        (b"te", b"trailers"),
    ]


def test_access_line(client: Client, server: Simulation) -> None:
    client.get(1, path="/hello?q")
    entry = server.log[0]
    assert entry.text == "GET /hello?q HTTP/2"
    assert entry.sent == 5


@pytest.mark.parametrize("path", ["/", "/empty", "/no_content", "/large", "/pieces"])
def test_head_has_no_data(client: Client, path: str) -> None:
    client.send(client.headers(1, [(":method", "HEAD"), *GET[1:3], (":path", path)], "END_STREAM"))
    assert client.ended(1)
    assert not client.of(DataFrame, 1)


def test_204_has_no_data_and_no_length(client: Client) -> None:
    client.get(1, path="/no_content")
    assert client.fields(1) == [{":status": "204", "content-type": "text/plain"}]
    assert client.ended(1)
    assert not client.of(DataFrame, 1)


def test_repeated_and_varied_requests_are_read_alike(client: Client, app: App) -> None:
    for number in range(20):
        client.get(2 * number + 1, ("x", "a" * 20), ("y", "b"), path=f"/hello?{number % 7}")
    first, *others = [{**scope, "query_string": b""} for scope in app.scopes]
    assert all(other == first for other in others)
    queries = [scope["query_string"] for scope in app.scopes]
    assert queries == [b"%d" % (number % 7) for number in range(20)]


def test_each_request_has_its_own_headers(client: Client, app: App) -> None:
    for stream_id in (1, 3, 5):
        client.get(stream_id)
        app.scopes[-1]["headers"].append((b"added", b"by the app"))
    assert [len(scope["headers"]) for scope in app.scopes] == [2, 2, 2]


def test_a_path_is_never_taken_from_another_request(client: Client, app: App) -> None:
    """The same block except for its path, sent in different representations."""
    indexed = b"\x82\x86\x84\x41\x04here"  # :authority enters the table
    client.send(raw(1, 5, 1, indexed))
    for number, path in enumerate((b"/hello?1", b"/hello?2"), 1):
        literal = b"\x82\x86\x04" + bytes((len(path),)) + path + b"\xbe"
        client.send(raw(1, 5, 2 * number + 1, literal))
    assert [scope["query_string"] for scope in app.scopes] == [b"", b"1", b"2"]
    assert {tuple(scope["headers"]) for scope in app.scopes} == {((b"host", b"here"),)}


def test_request_body(client: Client, app: App) -> None:
    client.post(1, ("content-length", "7"), path="/echo")
    client.data(1, b"abc").data(1, b"defg", "END_STREAM")
    assert client.body(1) == b"abcdefg"
    assert [message["body"] for message in app.received] == [b"abc", b"defg"]


def test_trailers_end_the_body_and_are_dropped(client: Client, app: App) -> None:
    client.post(1, path="/echo").data(1, b"abc")
    client.send(client.headers(1, [("x-checksum", "1")], "END_STREAM"))
    assert client.body(1) == b"abc"
    assert (b"x-checksum", b"1") not in app.scopes[0]["headers"]


def test_padding_is_removed(client: Client) -> None:
    client.post(1, path="/echo")
    client.send(raw(0, 0x8, 1, b"\x02abc\0\0"), raw(0, 0x9, 1, b"\x01d\0"))
    assert client.body(1) == b"abcd"


def test_100_continue_when_the_app_reads(client: Client) -> None:
    client.post(1, ("expect", "100-continue"), path="/echo")
    assert client.fields(1) == [{":status": "100"}]
    client.data(1, b"abc", "END_STREAM")
    assert client.status(1) == 200


def test_no_100_continue_when_the_body_is_there(client: Client) -> None:
    head = client.headers(1, [*POST[:3], (":path", "/early"), ("expect", "100-continue")])
    client.send(head)
    assert [fields[":status"] for fields in client.fields(1)] == ["200"]


def test_rest_of_an_upload_is_dropped_after_the_response(client: Client, app: App) -> None:
    """A reset would be allowed (RFC 9113 §8.1), but some clients then lose the response."""
    client.post(1, path="/early")
    assert client.status(1) == 200
    assert client.ended(1)
    for _ in range(100):
        client.data(1, b"x" * 16_000)
    granted = sum(frame.window_increment for frame in client.of(WindowUpdateFrame, 1))
    assert INITIAL_WINDOW + granted >= 100 * 16_000
    client.data(1, b"", "END_STREAM")
    assert client.reset(1) is None
    assert client.ping()
    assert app.received == [{"type": "http.disconnect"}]
    assert footprint(client.simulation.connections[0]) < 4000


@pytest.mark.parametrize("length", [str(MAX_REST), None])
def test_rest_of_an_upload_is_too_large(client: Client, length: str | None) -> None:
    client.post(1, *[("content-length", length)] * bool(length), path="/early")
    for sent in range(0, MAX_REST, 16_000):
        assert client.reset(1) is None, sent
        client.data(1, b"x" * min(16_000, MAX_REST - sent))
    assert client.reset(1) is None
    client.data(1, b"x")
    assert client.reset(1) is (ErrorCode.PROTOCOL_ERROR if length else ErrorCode.NO_ERROR)
    client.data(1, b"late").data(1, b"later", "END_STREAM")
    assert client.ping()


def test_announced_rest_of_an_upload_is_too_large(client: Client) -> None:
    client.post(1, ("content-length", str(MAX_REST + 1)), path="/early")
    assert client.ended(1)
    assert client.reset(1) is ErrorCode.NO_ERROR


@pytest.mark.parametrize("silent", [True, False])
def test_rest_of_an_upload_does_not_arrive(
    client: Client, server: Simulation, silent: bool
) -> None:
    client.post(1, path="/early")
    seconds = 1
    while client.settle().reset(1) is None:
        server.loop.advance(1)
        seconds += 1
        if not silent:
            client.data(1, b"x")
    assert client.reset(1) is ErrorCode.NO_ERROR
    assert LINGER < seconds <= LINGER + 3 if silent else MAX_LINGER < seconds <= MAX_LINGER + 3
    assert client.ping()


@pytest.mark.parametrize("how", ["trailers", "reset", "half-close", "stop"])
def test_rest_of_an_upload_ends(client: Client, server: Simulation, how: str) -> None:
    client.post(1, path="/early").data(1, b"x")
    if how == "trailers":
        client.send(client.headers(1, [("a", "b")], "END_STREAM"))
    elif how == "reset":
        client.send(RstStreamFrame(1, ErrorCode.CANCEL))
    elif how == "half-close":
        client.peer.half_close()
    else:
        server.server.stop()
        server.loop.advance(2)
    assert client.settle().ended(1)
    assert not server.connections or not server.connections[0].streams
    assert client.reset(1) is (ErrorCode.NO_ERROR if how == "stop" else None)


def test_no_rest_of_an_upload_while_the_server_stops(
    client: Client, server: Simulation, app: App
) -> None:
    client.post(1, path="/wait")
    server.server.stop()
    server.loop.settle()
    app.go.set()
    assert client.settle().ended(1)
    assert client.reset(1) is ErrorCode.NO_ERROR


def test_late_data_does_not_use_up_the_window_of_the_connection(client: Client) -> None:
    for stream_id in range(1, 201, 2):
        client.post(stream_id, path="/early")
        for _ in range(4):
            client.data(stream_id, b"x" * 16_000)
    granted = sum(frame.window_increment for frame in client.of(WindowUpdateFrame, 0))
    assert granted >= 100 * 4 * 16_000
    assert client.ping()


def test_app_fails_before_the_response(client: Client, server: Simulation) -> None:
    client.get(1, path="/fail")
    assert client.status(1) == 500
    assert client.ended(1)
    assert len(server.failures) == 1


def test_app_fails_within_the_response(client: Client, server: Simulation) -> None:
    client.get(1, path="/fail_late")
    assert client.reset(1) is ErrorCode.INTERNAL_ERROR
    assert not client.ended(1)
    assert [entry.phase for entry in server.log] == [LOST]
    assert client.ping()


def test_response_shorter_than_its_length(client: Client, server: Simulation) -> None:
    client.get(1, path="/short")
    assert client.reset(1) is ErrorCode.INTERNAL_ERROR
    assert isinstance(server.failures[0][1], ValueError)


def test_connection_headers_of_an_app_are_dropped() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (b"Connection", b"close"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"h2c"),
            (b"X-Name", b" value "),
        ]
        await send({"type": "http.response.start", "status": 299, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    with simulated(app) as server:
        client = Client(server).get(1)
        assert client.fields(1) == [
            {":status": "299", "x-name": "value", "content-length": "0"},
        ]


def test_large_response_headers_are_continued() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x", b"y" * 40_000)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"end"})

    with simulated(app) as server:
        client = Client(server).get(1).get(3)  # the first block has a prefix
        assert client.fields(3) == client.fields(1)
        first, *others, last = client.frames[-4:]
        assert [type(each) for each in others] == [ContinuationFrame] * 2
        assert max(len(each.data) for each in (first, *others)) == 16_384
        assert client.fields(1)[0]["x"] == "y" * 40_000
        assert "END_STREAM" not in first.flags and "END_STREAM" in last.flags


# Disconnects.


def test_reset_by_the_client(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/listen")
    client.send(RstStreamFrame(1, ErrorCode.CANCEL))
    assert app.received == [{"type": "http.disconnect"}]
    assert [entry.phase for entry in server.log] == [LOST]
    assert client.ping()


def test_cancel_on_disconnect(app: App) -> None:
    with simulated(app, cancel_on_disconnect=True) as server:
        client = Client(server).get(1, path="/wait")
        client.send(RstStreamFrame(1, ErrorCode.CANCEL))
        assert [type(error) for error in app.errors] == [asyncio.CancelledError]


def test_connection_lost(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/listen").get(3, path="/listen")
    client.peer.close()
    client.settle()
    assert app.received == [{"type": "http.disconnect"}] * 2
    assert [entry.phase for entry in server.log] == [LOST, LOST]
    assert not server.connections


def test_half_closed_client_gets_its_responses(
    client: Client, server: Simulation, app: App
) -> None:
    client.get(1, path="/wait").get(3)
    client.peer.half_close()
    server.loop.settle()
    app.go.set()
    client.settle()
    assert client.status(1) == 200
    assert client.closed


def test_half_close_of_an_idle_client_closes(client: Client, server: Simulation) -> None:
    client.get(1).settle()
    client.peer.half_close()
    assert client.settle().closed
    assert not server.connections


def test_half_close_with_cancel_on_disconnect(app: App) -> None:
    with simulated(app, cancel_on_disconnect=True) as server:
        client = Client(server).get(1, path="/wait")
        server.loop.settle()
        client.peer.half_close()
        assert client.settle().closed
        assert client.status(1) is None
        assert [type(error) for error in app.errors] == [asyncio.CancelledError]


# Flow control.


def test_response_waits_for_the_window_of_the_stream(server: Simulation, app: App) -> None:
    client = Client(server, INITIAL_WINDOW_SIZE=1000)
    client.enlarge(0, 1 << 20).get(1, path="/large").get(3)
    assert len(client.body(1)) == 1000
    assert client.body(3) == b"hello"
    assert app.sent == 1  # the app does not wait for the last piece
    client.enlarge(1, 500)
    assert len(client.body(1)) == 1500
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1100}))
    assert len(client.body(1)) == 1600
    client.enlarge(1, 1 << 20)
    assert len(client.body(1)) == 200_000
    assert client.ended(1)


def test_response_waits_for_the_window_of_the_connection(server: Simulation) -> None:
    client = Client(server, INITIAL_WINDOW_SIZE=1 << 20)
    client.get(1, path="/large").get(3)
    assert len(client.body(1)) == INITIAL_WINDOW
    assert client.status(3) == 200
    assert client.body(3) == b""
    client.enlarge(0, 1 << 20)
    assert len(client.body(1)) == 200_000
    assert client.body(3) == b"hello"


def test_negative_window(server: Simulation) -> None:
    client = Client(server, INITIAL_WINDOW_SIZE=1000)
    client.get(1, path="/large")
    client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    client.enlarge(1, 1000)
    assert len(client.body(1)) == 1000
    client.enlarge(1, 1)
    assert len(client.body(1)) == 1001


def test_streams_take_turns(server: Simulation) -> None:
    client = Client(server, INITIAL_WINDOW_SIZE=1 << 20)
    client.get(1, path="/large").get(3, path="/large").get(5)
    before = len(client.of(DataFrame))
    client.enlarge(0, 100_000)
    order = [frame.stream_id for frame in client.of(DataFrame)[before:]]
    assert order[:6] == [1, 3, 5, 1, 3, 1] or order[:5] == [3, 5, 1, 3, 1]


def test_app_waits_while_its_data_is_unsent(server: Simulation, app: App) -> None:
    client = Client(server, INITIAL_WINDOW_SIZE=15_000)
    client.get(1, path="/pieces")
    assert app.sent == 1
    client.enlarge(1, 20_000)
    assert app.sent == 3
    client.enlarge(1, 200_000).enlarge(0, 200_000)
    assert app.sent == 20
    assert len(client.body(1)) == 200_000


def test_unread_bodies_block_nothing_but_their_streams(client: Client, app: App) -> None:
    for stream_id in range(1, 41, 2):
        client.post(stream_id, path="/wait")
        for _ in range(4):
            client.data(stream_id, b"x" * 16_000)
    assert not any(client.of(WindowUpdateFrame, stream_id) for stream_id in range(1, 41, 2))
    client.post(41, path="/echo").data(41, b"abc", "END_STREAM")
    assert client.body(41) == b"abc"


def test_window_of_a_body_grows_when_the_app_reads_it(client: Client) -> None:
    client.post(1, path="/echo")
    for _ in range(20):
        client.data(1, b"x" * 16_000)
    client.data(1, b"", "END_STREAM")
    client.enlarge(0, 1 << 20).enlarge(1, 1 << 20)
    assert len(client.body(1)) == 320_000
    granted = sum(frame.window_increment for frame in client.of(WindowUpdateFrame, 1))
    assert granted >= 320_000 - INITIAL_WINDOW


def test_more_data_than_the_window(client: Client) -> None:
    client.post(1, path="/wait")
    for _ in range(5):
        client.data(1, b"x" * 16_000)
    assert client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    assert client.ping()


def test_memory_of_a_connection_is_bounded(server: Simulation, client: Client) -> None:
    client.peer.set_reading(False)
    for number in range(MAX_STREAMS):
        client.post(2 * number + 1, path="/wait")
        for _ in range(4):
            client.data(2 * number + 1, b"x" * 16_000)
    held = sum(footprint(connection) for connection in server.connections)
    assert held < MAX_STREAMS * (INITIAL_WINDOW + 4000)


def test_reading_pauses_for_a_client_that_does_not_read(server: Simulation, client: Client) -> None:
    client.peer.set_reading(False)
    ping = PingFrame(0, b"12345678").serialize()
    for number in range(100):
        client.peer.send(client.headers(2 * number + 1, GET, "END_STREAM").serialize() + ping * 900)
        server.loop.settle()
    assert len(client.peer.sent) > 1_000_000
    client.peer.set_reading(True)
    client.settle()
    assert not client.peer.sent
    assert client.ended(199)


# Limits.


def test_too_many_streams_are_refused(client: Client, server: Simulation, app: App) -> None:
    for number in range(MAX_STREAMS + 2):
        client.get(2 * number + 1, path="/wait")
    assert client.reset(2 * MAX_STREAMS - 1) is None
    assert client.reset(2 * MAX_STREAMS + 1) is ErrorCode.REFUSED_STREAM
    app.go.set()
    client.settle().get(2 * MAX_STREAMS + 5)
    assert client.status(2 * MAX_STREAMS + 5) == 200


def test_apps_of_reset_streams_count(client: Client, app: App) -> None:
    for number in range(MAX_STREAMS):
        client.get(2 * number + 1, path="/wait")
        client.send(RstStreamFrame(2 * number + 1, ErrorCode.CANCEL))
    client.get(2 * MAX_STREAMS + 1)
    assert client.reset(2 * MAX_STREAMS + 1) is ErrorCode.REFUSED_STREAM
    app.go.set()
    client.settle().get(2 * MAX_STREAMS + 3)
    assert client.status(2 * MAX_STREAMS + 3) == 200


@pytest.mark.parametrize("announced", [True, False])
def test_413(app: App, announced: bool) -> None:
    with simulated(app, limit_body_size=10) as server:
        client = Client(server)
        client.post(1, *[("content-length", "11")] * announced, path="/echo")
        if not announced:
            client.data(1, b"x" * 11)
        assert client.status(1) == 413
        client.data(1, b"" if not announced else b"x" * 11, "END_STREAM")
        assert client.reset(1) is None
        assert [entry.status for entry in server.log] == [413]
        client.get(3)
        assert client.status(3) == 200


@pytest.mark.parametrize(
    "fields", [[("x", "y")] * 100, [("x", "y" * 30_000)] * 3, [("cookie", "a=b")] * 100]
)
def test_431(client: Client, server: Simulation, fields: list[tuple[str, str]]) -> None:
    block = client.encoder.encode([*GET, *fields], huffman=False)
    pieces = [block[i : i + 16_384] for i in range(0, len(block), 16_384)]
    client.send(raw(1, 1 | 4 * (len(pieces) == 1), 1, pieces[0]))
    for piece in pieces[1:]:
        client.send(raw(9, 4 * (piece is pieces[-1]), 1, piece))
    assert client.status(1) == 431
    assert [(entry.status, entry.phase) for entry in server.log] == [(431, REFUSED)]
    client.get(3)  # the table of the decoder is still correct
    assert client.status(3) == 200


def test_417(client: Client) -> None:
    assert client.get(1, ("expect", "miracles")).status(1) == 417


def test_501_for_connect(client: Client) -> None:
    client.send(client.headers(1, [(":method", "CONNECT"), (":authority", "here:1")]))
    assert client.status(1) == 501


def test_503(app: App) -> None:
    with simulated(app, limit_concurrency=1, health_path="/health") as server:
        client = Client(server).get(1, path="/wait").get(3).get(5, path="/health")
        assert client.status(3) == 503
        assert client.fields(3)[0]["retry-after"] == "1"
        assert client.status(5) == 200
        app.go.set()
        client.settle().get(7)
        assert client.status(1) == client.status(7) == 200


def test_body_does_not_arrive(app: App) -> None:
    with simulated(app, timeout_body=5) as server:
        client = Client(server).post(1, path="/echo").get(3, path="/wait")
        server.loop.advance(8)
        assert client.settle().status(1) == 408
        server.loop.advance(LINGER + 1)
        assert client.settle().reset(1) is ErrorCode.NO_ERROR
        app.go.set()
        assert client.settle().status(3) == 200


def test_body_arrives_too_slowly(app: App) -> None:
    with simulated(app, timeout_body=5, min_rate_body=100) as server:
        client = Client(server).post(1, path="/echo")
        for _ in range(30):
            client.data(1, b"x")
            server.loop.advance(1)
            if client.settle().status(1):
                break
        assert client.status(1) == 408


def test_client_keeps_a_window_closed(app: App) -> None:
    with simulated(app, timeout_write=5) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, path="/large").get(3, path="/pieces")
        server.loop.advance(8)
        client.settle()
        assert client.reset(1) is client.reset(3) is ErrorCode.CANCEL
        assert [entry.phase for entry in server.log] == [COMPLETE, LOST]


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("window", [0, 1 << 30])
def test_one_message_of_each_stream_waits(window: int, pieces: int) -> None:
    """A client that reads nothing, or opens no window, holds 100 messages of apps at most."""
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for left in reversed(range(pieces)):
            sizes.append(1 << 20)
            body = bytes(sizes[-1])
            await send({"type": "http.response.body", "body": body, "more_body": left > 0})

    with simulated(app, timeout_write=5, min_rate_write=0) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=window).enlarge(0, 1 << 30)
        client.peer.set_reading(False)
        ids = range(1, 2 * (MAX_STREAMS + 20), 2)
        client.send(*[client.headers(stream_id, GET, "END_STREAM") for stream_id in ids])
        unsent = [stream.unsent for stream in server.connections[0].streams.values()]
        assert sum(sizes) >= sum(unsent) > 90 << 20
        assert max(unsent) <= 1 << 20
        assert len(sizes) <= MAX_STREAMS + 2  # the write buffer has taken some
        server.loop.advance(20)
        assert not any(connection.streams for connection in server.connections)
        assert any("--timeout-write" in record.getMessage() for record in server.records)


def test_client_opens_a_window_too_slowly(app: App) -> None:
    with simulated(app, timeout_write=5, min_rate_write=100) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, path="/large")
        for _ in range(30):
            if client.reset(1) is None:
                client.enlarge(1, 1)
            server.loop.advance(1)
        assert client.settle().reset(1) is ErrorCode.CANCEL


def test_client_keeps_the_window_of_the_connection_closed(app: App) -> None:
    with simulated(app, timeout_write=5) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=1 << 20).get(1, path="/large")
        server.loop.advance(8)
        assert client.closed


def test_incomplete_headers(app: App) -> None:
    with simulated(app, timeout_head=5) as server:
        client = Client(server).get(1, path="/wait")
        client.send(raw(1, 1, 3, b"\x82\x86"))
        for _ in range(8):
            if not client.closed:
                client.send(raw(9, 0, 3, b""))
            server.loop.advance(1)
        assert client.settle().goaway is ErrorCode.ENHANCE_YOUR_CALM
        assert client.closed


def test_headers_byte_by_byte(app: App) -> None:
    with simulated(app, timeout_head=5) as server:
        client = Client(server)
        for byte in client.headers(1, [*GET, ("x", "y" * 50)], "END_STREAM").serialize():
            if client.closed:
                break
            client.send(bytes((byte,)))
            server.loop.advance(1)
        assert client.goaway is ErrorCode.ENHANCE_YOUR_CALM


def test_idle_connection(app: App) -> None:
    with simulated(app, timeout_keep_alive=5) as server:
        client = Client(server).get(1)
        for _ in range(8):
            if not client.closed:
                client.ping()
            server.loop.advance(1)
        assert client.settle().goaway is ErrorCode.NO_ERROR
        assert client.of(GoAwayFrame)[-1].last_stream_id == 1
        assert client.closed


def test_no_preface(app: App) -> None:
    with simulated(app, timeout_head=5) as server:
        client = Client(server, greet=False).send(PREFACE)
        server.loop.advance(8)
        assert client.settle().goaway is ErrorCode.NO_ERROR
        assert client.closed


def test_running_app_has_no_timeout(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/wait")
    server.loop.advance(300)
    app.go.set()
    assert client.settle().status(1) == 200


# Shutdown.


def test_stop_takes_two_steps(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/wait")
    server.server.stop()
    client.settle()
    assert [frame.last_stream_id for frame in client.of(GoAwayFrame)] == [(1 << 31) - 1]
    client.get(3, path="/wait")  # it was on its way
    ping = client.of(PingFrame)[-1]
    answer = PingFrame(0, ping.opaque_data)
    answer.flags.add("ACK")
    client.send(answer)
    assert [frame.last_stream_id for frame in client.of(GoAwayFrame)] == [(1 << 31) - 1, 3]
    client.get(5)
    assert client.reset(5) is ErrorCode.REFUSED_STREAM
    app.go.set()
    assert client.settle().status(1) == client.status(3) == 200
    assert client.closed


def test_stop_without_an_answer_to_the_ping(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/wait")
    server.server.stop()
    server.loop.advance(4)
    client.settle()
    assert [frame.last_stream_id for frame in client.of(GoAwayFrame)] == [(1 << 31) - 1, 1]
    app.go.set()
    assert client.settle().status(1) == 200


def test_stop_ends_streams(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/listen")
    server.server.stop()
    client.settle()
    assert app.received == [{"type": "http.disconnect"}]


def test_stop_of_an_idle_connection(client: Client, server: Simulation) -> None:
    client.get(1)
    server.server.stop()
    server.loop.advance(2)
    assert client.settle().goaway is ErrorCode.NO_ERROR
    assert client.of(GoAwayFrame)[-1].last_stream_id == 1
    assert server.main.done()


def test_request_on_its_way_to_an_idle_connection_that_stops(
    client: Client, server: Simulation
) -> None:
    client.get(1)
    server.server.stop()
    client.get(3)
    assert client.status(3) == 200


def test_overdue_requests_are_cancelled(app: App) -> None:
    with simulated(app, timeout_graceful_shutdown=3) as server:
        client = Client(server).get(1, path="/wait")
        server.server.stop()
        server.loop.advance(5)
        assert client.settle().status(1) == 500


def test_max_requests(app: App) -> None:
    with simulated(app, limit_max_requests=2) as server:
        client = Client(server).get(1).get(3)
        assert client.status(3) == 200
        assert client.of(GoAwayFrame)
        server.loop.advance(3)
        assert server.main.done()


def test_without_keep_alive(app: App) -> None:
    with simulated(app, timeout_keep_alive=0) as server:
        client = Client(server).get(1)
        assert client.status(1) == 200
        server.loop.advance(3)
        assert client.closed


def test_goaway_comes_before_the_response(app: App) -> None:
    """After a response, the client may send another request, and would then lose it."""
    with simulated(app, timeout_keep_alive=0) as server:
        client = Client(server).get(1).settle()
        kinds = [type(frame) for frame in client.frames]
        assert kinds.index(GoAwayFrame) < kinds.index(HeadersFrame)


def test_goaway_of_a_replaced_server_waits_for_a_quiet_second(app: App) -> None:
    """A client that has just sent a request may be sending another one."""
    with simulated(app) as server:
        client = Client(server).get(1).settle()
        server.server.leave()
        server.loop.advance(1)
        assert not client.settle().of(GoAwayFrame)
        server.loop.advance(2)
        assert client.settle().of(GoAwayFrame)


def test_client_leaves(client: Client, server: Simulation, app: App) -> None:
    client.get(1, path="/wait")
    client.send(GoAwayFrame(0, last_stream_id=0, error_code=0))
    server.loop.advance(3)
    assert not client.closed
    app.go.set()
    assert client.settle().status(1) == 200
    assert client.closed


# Entry points.


def test_prior_knowledge_in_pieces(server: Simulation) -> None:
    for size in (1, 5, 16, 18, 23, 24, 30):
        client = Client(server, greet=False)
        data = PREFACE + SettingsFrame(0).serialize()
        data += client.headers(1, GET, "END_STREAM").serialize()
        for start in range(0, len(data), size):
            client.send(data[start : start + size])
        assert client.status(1) == 200, size


def test_no_http2_after_a_request(server: Simulation) -> None:
    client = Client(server, greet=False)
    client.peer.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + PREFACE)
    server.loop.settle()
    assert client.peer.received.count(b"HTTP/1.1 200") == 1
    assert client.peer.received.count(b"HTTP/1.1 505") == 1


def test_no_http2(app: App) -> None:
    with simulated(app, http2=False) as server:
        client = Client(server, greet=False)
        client.peer.send(PREFACE)
        server.loop.settle()
        assert client.peer.received.startswith(b"HTTP/1.1 505")


def test_upgrade_to_h2c_is_ignored(server: Simulation) -> None:
    client = Client(server, greet=False)
    client.peer.send(
        b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    server.loop.settle()
    assert client.peer.received.startswith(b"HTTP/1.1 200")


def test_first_block_says_that_no_table_is_used(client: Client) -> None:
    client.get(1).get(3)
    first, second = client.of(HeadersFrame)
    assert first.data[:1] == b"\x20"
    assert second.data[:1] == b"\x88"


# Proxies.


def test_client_of_each_stream(app: App) -> None:
    with simulated(app, request_id_header="x-request-id", root_path="/root") as server:
        client = Client(server)
        client.get(1, ("x-forwarded-for", "192.0.2.1"), ("x-request-id", "one"))
        client.get(3, ("x-forwarded-for", "192.0.2.2"), ("x-forwarded-prefix", "/api"))
        client.get(5)
        assert [scope["client"][0] for scope in app.scopes] == [
            "192.0.2.1",
            "192.0.2.2",
            "127.0.0.1",
        ]
        assert [scope["root_path"] for scope in app.scopes] == ["/root", "/api", "/root"]
        assert client.fields(1)[0]["x-request-id"] == "one"


# Extensions.


def test_trailers_early_hints_and_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        has_trailers = scope["path"] == "/trailers"
        await send({"type": "http.response.start", "status": 200, "trailers": has_trailers})
        if has_trailers:
            await send({"type": "http.response.body", "body": b"x" * 100_000})
            trailers = [(b"grpc-status", b"0")]
            await send({"type": "http.response.trailers", "headers": trailers})
        else:
            await send({"type": "http.response.pathsend", "path": str(path)})

    with simulated(app) as server:
        client = Client(server)
        client.get(1, ("te", "trailers"), path="/trailers").get(3).get(5, path="/trailers")
        client.enlarge(1, 50_000).enlarge(3, 50_000).enlarge(5, 50_000).enlarge(0, 300_000)
        hint, head, trailers = client.fields(1)
        assert hint == {":status": "103", "link": "</a.css>; rel=preload"}
        assert head[":status"] == "200"
        assert trailers == {"grpc-status": "0"}
        assert [len(client.body(stream_id)) for stream_id in (1, 3, 5)] == [100_000] * 3
        assert client.fields(3)[1]["content-length"] == "100000"
        assert len(client.fields(5)) == 2  # it does not accept trailers
        assert client.ended(1) and client.ended(3) and client.ended(5)
        assert [entry.phase for entry in server.log] == [COMPLETE] * 3
