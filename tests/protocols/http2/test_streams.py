"""Streams that end, or are used, in unusual ways."""

import asyncio
import time
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import (
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, PREFACE, ErrorCode
from tinyasgi.protocols.http2.hpack import encode_integer
from tinyasgi.protocols.http2.multiplexer import SPARE_WINDOW
from tinyasgi.protocols.http2.request import BLOCKS
from tinyasgi.protocols.http2.upload import GROWTH, READ_WINDOW
from tinyasgi.protocols.states import COMPLETE, LOST

from .cases import BLOCK, get
from .client import GET, Client, raw
from .test_connection import App

START = {"type": "http.response.start", "status": 200}


def piece(body: bytes, more_body: bool = True) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def test_response_that_begins_while_the_server_stops() -> None:
    """`receive` returns while the app still sends: it can end the stream."""
    go, received = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await go.wait()
        await send(START)
        await send(piece(b"first"))
        received.append(await waiting)
        await send(piece(b"last", more_body=False))

    with simulated(app) as server:
        client = Client(server).get(1)
        server.server.stop()
        client.settle()
        go.set()
        assert client.settle().body(1) == b"firstlast"
        assert received == [{"type": "http.disconnect"}]
        assert client.ended(1)


def test_body_after_a_reset_that_nobody_has_read() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"x"))
        await go.wait()
        for _ in range(3):
            await send(piece(b"x" * 1000))
            await asyncio.sleep(0)
        await send(piece(b"", more_body=False))

    with simulated(app) as server:
        client = Client(server).get(1)
        client.peer.reset()
        go.set()
        client.settle()
        assert [entry.phase for entry in server.log] == [LOST]
        assert not server.connections


@pytest.mark.parametrize("trailers", [[], [(b"x-sum", b"1")]])
def test_trailers_wait_for_the_body(trailers: list[tuple[bytes, bytes]]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        ending = {"type": "http.response.trailers", "headers": trailers}
        await asyncio.gather(send(piece(b"x" * 1000, more_body=False)), send(ending))

    with simulated(app) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).get(1, ("te", "trailers"))
        assert not client.ended(1)
        client.enlarge(1, 999)
        assert len(client.fields(1)) == 1 and not client.ended(1)
        client.enlarge(1, 1)
        assert len(client.body(1)) == 1000
        assert client.ended(1)
        assert client.fields(1)[1:] == [{"x-sum": "1"}] * len(trailers)
        assert [entry.phase for entry in server.log] == [COMPLETE]


def test_body_beyond_its_limit_within_the_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"first"))
        while (await receive())["type"] == "http.request":
            pass

    with simulated(app, limit_body_size=10) as server:
        client = Client(server).post(1).data(1, b"x" * 10)
        assert client.reset(1) is None
        client.data(1, b"x")
        assert client.reset(1) is ErrorCode.CANCEL
        assert [entry.phase for entry in server.log] == [LOST]
        assert client.ping()


def test_refused_head_request() -> None:
    with simulated(App()) as server:
        client = Client(server)
        fields = [(":method", "HEAD"), *GET[1:], ("expect", "miracles")]
        client.send(client.headers(1, fields, "END_STREAM"))
        assert client.status(1) == 417
        assert client.ended(1)
        assert client.body(1) == b""
        assert int(client.fields(1)[0]["content-length"]) > 0
        assert client.get(3).ended(3)


@pytest.mark.parametrize(
    ("status", "message"),
    [(199, "from 200 to 999"), (1000, "from 200 to 999"), ("200", "must be an int")],
)
def test_invalid_status(status: Any, message: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": status})
        await send(piece(b"", more_body=False))

    with simulated(app) as server:
        assert Client(server).get(1).status(1) == 500
        assert message in str(server.failures[0][1])


@pytest.mark.parametrize("status", [200, 201, 299, 404, 599, 600, 999])
def test_status(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": status})
        await send(piece(b"x", more_body=False))

    with simulated(app) as server:
        assert Client(server).get(1).status(1) == status


@pytest.mark.parametrize(
    ("method", "status", "announced", "length"),
    [
        ("GET", 200, None, "5"),
        ("GET", 200, "5", "5"),
        ("HEAD", 200, None, "5"),
        ("HEAD", 200, "7", "7"),
        ("GET", 204, None, None),
        ("GET", 204, "5", None),
        ("GET", 304, None, None),
        ("GET", 304, "7", "7"),
        ("HEAD", 304, None, None),
        ("HEAD", 305, None, "5"),
    ],
)
def test_content_length(
    method: str, status: int, announced: str | None, length: str | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", announced.encode())] if announced else []
        await send({**START, "status": status, "headers": headers})
        await send(piece(b"hello", more_body=False))

    with simulated(app) as server:
        client = Client(server)
        client.send(client.headers(1, [(":method", method), *GET[1:]], "END_STREAM"))
        assert client.fields(1)[0].get("content-length") == length
        assert client.ended(1)
        has_body = method == "GET" and status not in (204, 304)
        assert client.body(1) == (b"hello" if has_body else b"")


@pytest.mark.parametrize("announced", [b"3", b"7"])
def test_file_of_another_length(announced: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", announced)]})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    with simulated(app) as server:
        assert Client(server).get(1).status(1) == 500
        assert "content-length is " + announced.decode() in str(server.failures[0][1])


def test_headers_may_be_lists() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [[b"x-name", b"value"]]})
        await send(piece(b"", more_body=False))

    with simulated(app, headers=[("x-more", "1"), ("x-name", "default")]) as server:
        fields = Client(server).get(1).fields(1)[0]
        assert (fields["x-name"], fields["x-more"]) == ("value", "1")


def test_many_different_requests() -> None:
    """More header blocks than are remembered, first with an indexed path, then with a literal."""
    app = App()
    with simulated(app) as server:
        client = Client(server)
        for stream_id in range(1, 8 * BLOCKS, 2):
            number = str(stream_id // 2 % (BLOCKS + 2)).encode()
            field = b"\0\1n" + bytes((len(number),)) + number
            path = b"\x84" if stream_id < 4 * BLOCKS else b"\x04\6/hello"
            client.send(get(stream_id, BLOCK.replace(b"\x84", path) + field))
            assert app.scopes[-1]["headers"][-1] == (b"n", number)
            assert app.scopes[-1]["path"] == ("/" if len(path) == 1 else "/hello")
            assert client.status(stream_id) == 200


@pytest.mark.parametrize("path", [b"\x84", b"\x04\6/hello"])
def test_block_that_changes_the_table_is_decoded_each_time(path: bytes) -> None:
    app = App()
    with simulated(app) as server:
        client = Client(server)
        block = BLOCK.replace(b"\x84", path)
        for stream_id in (1, 3):
            client.send(get(stream_id, block + b"\x40\1a\1b"))
        client.send(get(5, block + b"\xbe\xbf"))
        assert client.status(5) == 200
        assert [scope["headers"][1:] for scope in app.scopes] == [
            [(b"a", b"b")],
            [(b"a", b"b")],
            [(b"a", b"b")] * 2,
        ]


def test_few_blocks_are_remembered() -> None:
    with simulated(App()) as server:
        client = Client(server)
        for number in range(3 * BLOCKS):
            value = str(number).encode()
            field = b"\0\1n" + bytes((len(value),)) + value
            client.send(get(4 * number + 1, BLOCK + field))
            client.send(get(4 * number + 3, BLOCK.replace(b"\x84", b"\x04\1/") + field))
        requests = server.connections[0]._requests
        assert 0 < len(requests._blocks) <= BLOCKS
        assert 0 < len(requests._templates) <= BLOCKS


@pytest.mark.parametrize(("size", "status"), [(900, 200), (1290, 431)])
def test_long_path_with_remembered_headers(size: int, status: int) -> None:
    """Headers that are remembered count for the limit."""
    with simulated(App(), limit_head_size=1000, limit_head_fields=10) as server:
        client = Client(server)
        for stream_id, path in ((1, b"/"), (3, b"/?" + b"x" * (size - 2))):
            literal = b"\x04" + encode_integer(len(path), 7, 0) + path
            client.send(get(stream_id, BLOCK.replace(b"\x84", literal)))
        assert client.status(1) == 200
        assert client.status(3) == status


def test_headers_in_two_frames_with_and_without_a_body() -> None:
    with simulated(App()) as server:
        client = Client(server)
        path = BLOCK.replace(b"\x84", b"\x04\5/echo")
        for stream_id, end in ((1, 1), (3, 0), (5, 1)):
            client.send(raw(1, end, stream_id, path[:3]), raw(9, 4, stream_id, path[3:]))
            if not end:
                assert not client.ended(stream_id)
                client.data(stream_id, b"body", "END_STREAM")
            assert client.body(stream_id) == (b"" if end else b"body")
            assert client.ended(stream_id)


def test_host_of_a_trusted_proxy() -> None:
    app = App()
    with simulated(app) as server:
        client = Client(server)
        for stream_id, name in enumerate(("a", "b")):
            client.get(2 * stream_id + 1, ("x-forwarded-host", name))
        hosts = [dict(scope["headers"])[b"host"] for scope in app.scopes]
        assert hosts == [b"a", b"b"]


def test_connection_without_keep_alive_ends_after_its_stream() -> None:
    app = App()
    with simulated(app, timeout_keep_alive=0) as server:
        client = Client(server).get(1, path="/wait").get(3)
        assert client.status(3) == 200
        server.loop.advance(3)
        assert not client.closed
        app.go.set()
        assert client.settle().status(1) == 200
        assert client.closed


def test_websocket_that_closes_while_its_window_is_closed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with suppress(OSError):
            await send({"type": "websocket.send", "bytes": b"x" * 1000})
        await send({"type": "websocket.close"})

    with simulated(app) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0)
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
        client.send(client.headers(1, [*fields, ("sec-websocket-version", "13")]))
        client.enlarge(1, 100)
        assert not client.ended(1)
        client.enlarge(1, 10_000).data(1, b"\x88\x80\0\0\0\0")
        assert len(client.body(1)) == 4 + 1000 + 4
        assert client.settle().ended(1)
        assert client.ping()


def test_trailers_that_are_too_large() -> None:
    with simulated(App()) as server:
        client = Client(server).post(1, path="/echo")
        fields = [("x", "y")] * 101
        client.send(client.headers(1, fields, "END_STREAM"))
        assert client.reset(1) is ErrorCode.PROTOCOL_ERROR
        assert client.get(3).status(3) == 200


def test_path_that_ends_early() -> None:
    with simulated(App()) as server:
        client = Client(server).send(raw(1, 5, 1, b"\x82\x86\x04"))
        assert client.goaway is ErrorCode.COMPRESSION_ERROR


def test_host_instead_of_authority() -> None:
    """Host is not repeated if both are there, and other headers keep their order."""
    app = App()
    with simulated(app) as server:
        client = Client(server)
        fields = [*GET[:2], GET[3], ("x-first", "1"), ("host", "here"), ("x-last", "2")]
        client.send(client.headers(1, fields, "END_STREAM"))
        fields.insert(2, (":authority", "here"))
        client.send(client.headers(3, fields, "END_STREAM"))
        expected = [(b"host", b"here"), (b"x-first", b"1"), (b"x-last", b"2")]
        assert [scope["headers"] for scope in app.scopes] == [expected] * 2


def test_stop_before_the_first_settings() -> None:
    """The server sends its FIN at once, and drops what the client sends before its own."""
    with simulated(App()) as server:
        client = Client(server, greet=False).send(PREFACE)
        server.server.stop()
        assert client.closed
        client.send(b"x" * 100)
        assert not client.peer.is_reset


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("by", ["server", "client"])
def test_frames_after_the_end(by: str, running: bool) -> None:
    """The server drops them: a reset of the connection could cost the client a response."""
    app = App()
    with simulated(app) as server:
        client = Client(server)
        if running:
            client.get(1, path="/wait")
        if by == "server":
            server.server.stop()
            client.settle()
            [ping] = client.of(PingFrame)
            answer = PingFrame(0, ping.opaque_data)
            answer.flags.add("ACK")
            client.send(answer)
        else:
            client.send(GoAwayFrame(0))
            server.loop.advance(3)
        app.go.set()
        assert client.closed
        client.send(raw(6, 0, 0, b"12345678"))
        assert not client.peer.is_reset
        assert not running or client.ended(1)


def test_late_trailers_change_the_table() -> None:
    """The server has reset the stream, and the client did not know it yet."""
    app = App()
    with simulated(app) as server:
        client = Client(server).post(1, ("content-length", "1"), path="/wait").data(1, b"ab")
        assert client.reset(1) is ErrorCode.PROTOCOL_ERROR
        client.send(client.headers(1, [("x-late", "value")], "END_STREAM"))
        client.get(3, ("x-late", "value"))
        assert (b"x-late", b"value") in app.scopes[-1]["headers"]
        app.go.set()


# Windows of request bodies.


def credit(client: Client, stream_id: int, sent: int) -> int:
    """Return how much more the client may send on a stream."""
    granted = [frame.window_increment for frame in client.of(WindowUpdateFrame, stream_id)]
    return INITIAL_WINDOW + sum(granted) - sent


def test_a_window_grows_once_the_app_reads() -> None:
    with simulated(App()) as server:
        client = Client(server).post(1, path="/echo")
        for count in range(1, 20):
            client.data(1, b"x" * 16_000)
            left = credit(client, 1, count * 16_000)
            assert left >= INITIAL_WINDOW // 2 - 16_000
            if count > 4:
                assert READ_WINDOW // 2 <= left <= READ_WINDOW


def test_a_limited_number_of_windows_grows() -> None:
    """Bodies share the memory for larger windows, and give it back at their end."""
    with simulated(App()) as server:
        client = Client(server)
        size = INITIAL_WINDOW // 2 + 10_000
        grown = []
        for round_ in range(2):
            ids = range(1 + 20 * round_, 20 + 20 * round_, 2)
            for stream_id in ids:
                client.post(stream_id, path="/echo")
                for _ in range(size // 16_000 + 1):
                    client.data(stream_id, b"x" * 16_000)
            sent = (size // 16_000 + 1) * 16_000
            grown.append(sum(credit(client, each, sent) > INITIAL_WINDOW for each in ids))
            for stream_id in ids:
                if stream_id % 4 == 1:
                    client.send(RstStreamFrame(stream_id, ErrorCode.CANCEL))
                else:
                    client.data(stream_id, b"", "END_STREAM")
        assert grown == [SPARE_WINDOW // GROWTH] * 2


def test_no_100_continue_after_a_part_of_the_body() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        while (await receive()).get("more_body"):
            pass
        await send(START)
        await send(piece(b"", more_body=False))

    with simulated(app) as server:
        client = Client(server).post(1, ("expect", "100-continue")).data(1, b"abc")
        go.set()
        client.settle().data(1, b"", "END_STREAM")
        assert [fields[":status"] for fields in client.fields(1)] == ["200"]


# Default headers.


def test_the_request_id_of_the_app_wins() -> None:
    own: list[tuple[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": own})
        await send(piece(b"", more_body=False))

    with simulated(app, request_id_header="x-id") as server:
        client = Client(server).get(1, ("x-id", "client"))
        own.append((b"X-Id", b"app"))
        client.get(3, ("x-id", "client"))
        found = [
            [value for name, value in frame.fields if name == "x-id"]
            for frame in client.of(HeadersFrame)
        ]
        assert found == [["client"], ["app"]]


def test_default_headers_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with simulated(App(), date_header=True, headers=[("x-more", "1")]) as server:
        client = Client(server)
        for stream_id in (1, 3, 5):
            fields = client.get(stream_id).fields(stream_id)[0]
            assert (fields["x-more"], fields["date"]) == ("1", formatdate(now[0], usegmt=True))
            now[0] += 1
            server.loop.advance(1)


def test_largest_headers_are_announced() -> None:
    with simulated(App(), limit_head_size=1000, limit_head_fields=10) as server:
        settings = Client(server).of(SettingsFrame)[0].settings
        assert settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 1000 + 32 * 10


def test_100_continue_is_sent_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            with suppress(TimeoutError):
                await asyncio.wait_for(receive(), 1)
        await send(START)
        await send(piece(b"", more_body=False))

    with simulated(app) as server:
        client = Client(server).post(1, ("expect", "100-continue"))
        server.loop.advance(3)
        found = [fields[":status"] for fields in client.settle().fields(1)]
        assert found == ["100", "200"]
