"""The access log: a line for each response that has ended."""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from helpers import GET, PATIENCE, Client, hello, in_loop, reply

from tinyasgi.access import default_line
from tinyasgi.testing import connect, serve
from tinyasgi.writer import AccessLines, Output

START = {"type": "http.response.start", "status": 200}
LINE = re.compile(r'(\S+) "(\S+) (\S+) HTTP/(1\.[01])" (\d+) (\d+) B (\d+\.\d) ms( aborted)?')


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[Any, ...]]]:
    """The fields of the access lines so far."""
    caplog.set_level(logging.INFO, "tinyasgi.access")

    def lines() -> list[tuple[Any, ...]]:
        records = [record for record in caplog.records if record.name == "tinyasgi.access"]
        assert all(record.levelno == logging.INFO for record in records)
        matches = [LINE.fullmatch(record.getMessage()) for record in records]
        assert all(matches), caplog.text
        return [match.groups() for match in matches if match]

    return lines


def test_access_line(access: Any) -> None:
    with serve(hello) as server, Client(server) as client:
        client.response(b"GET /a%20b?c=%22&d HTTP/1.1\r\nHost: here\r\n\r\n")
        port = client.sock.getsockname()[1]
    ((peer, method, target, version, status, size, _, aborted),) = access()
    assert peer == f"127.0.0.1:{port}"
    assert (method, target, version) == ("GET", "/a%20b?c=%22&d", "1.1")
    assert (status, size, aborted) == ("200", "5", None)


@pytest.mark.parametrize("request_", ["HEAD / HTTP/1.1", "GET / HTTP/1.1", "GET / HTTP/1.0"])
def test_bytes_of_the_body_are_counted(request_: str, access: Any) -> None:
    async def app(scope, receive, send):
        await send(START)
        for _ in range(2):
            await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        await send({"type": "http.response.body", "body": bytes(3)})

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(request_.encode() + b"\r\nHost: here\r\nConnection: close\r\n\r\n")
        client.rest()
    ((*_, size, _, aborted),) = access()
    assert int(size) == (0 if request_.startswith("HEAD") else 23)
    assert aborted is None


def test_line_is_written_when_the_response_ends(access: Any) -> None:
    release = threading.Event()

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.to_thread(release.wait, PATIENCE)
        await send({"type": "http.response.body", "body": b"y"})

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        client.head()
        assert client.chunk() == b"x"
        assert access() == []
        release.set()
        assert list(client.chunks()) == [b"y"]
    ((*_, size, _, aborted),) = access()
    assert (size, aborted) == ("2", None)


def test_duration_is_that_of_the_response(access: Any) -> None:
    async def app(scope, receive, send):
        await asyncio.sleep(0.05)
        await reply(send)

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.response(GET)
    ((*_, duration, _),) = access()
    assert float(duration) >= 50


@pytest.mark.parametrize("who", ["client", "app"])
def test_cut_response_is_marked(who: str, access: Any) -> None:
    left = threading.Event()

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async def failing(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        raise ValueError

    with (
        serve(app if who == "client" else failing, lifespan="off") as server,
        Client(server) as client,
        server.expect(ValueError) if who == "app" else nullcontext(),
    ):
        client.send(GET)
        client.head()
        client.chunk()
        if who == "client":
            client.reset()
            assert left.wait(PATIENCE)
        else:
            client.rest()
    ((*_, status, size, _, aborted),) = access()
    assert (status, size, aborted) == ("200", "10", " aborted")


def test_client_that_leaves_before_the_response_is_marked(access: Any) -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        await receive()
        await receive()

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        assert entered.wait(PATIENCE)
        client.reset()
    ((*_, aborted),) = access()
    assert aborted == " aborted"


def test_failing_app_gives_500(access: Any) -> None:
    async def app(scope, receive, send):
        raise ValueError

    with serve(app, lifespan="off") as server, Client(server) as client, server.expect(ValueError):
        response = client.response(GET)
    ((*_, status, size, _, aborted),) = access()
    assert (status, size, aborted) == ("500", str(len(response.body)), None)


def test_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(hello, lifespan="off", access_log=False) as server, Client(server) as client:
        client.response(GET)
    assert caplog.text == ""


def test_app_may_spoil_its_scope(access: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        path = scope["path"]
        scope.clear()
        if path == "/fail":
            raise ValueError
        await reply(send, b"fine")

    with serve(app, lifespan="off") as server, Client(server) as client:
        assert client.response(GET).body == b"fine"
        with server.expect(ValueError):
            assert client.response(GET.replace(b"/ ", b"/fail ")).status == 500
        assert client.response(GET).body == b"fine"
    assert [line[1:3] for line in access()] == [("GET", "/"), ("GET", "/fail"), ("GET", "/")]
    assert caplog.text.count("Traceback") == 1
    assert "did not end" not in caplog.text


@in_loop
async def test_access_lines_are_written_together() -> None:
    flushes: list[Any] = []

    class Loop:
        def call_later(self, delay: float, callback: Any) -> None:
            flushes.append(callback)

    class Memory(Output):
        writes = 0
        written = b""

        def write(self, lines: bytes, patience: float = 0.0) -> bytes:
            self.writes += 1
            self.written += lines
            return b""

    stream = Memory("-")
    async with connect(hello) as connection:
        connection.context.access = AccessLines(default_line, stream, Loop())  # type: ignore[arg-type]
        await connection.feed(*[GET] * 100)
        assert stream.writes == 0
        (flush,) = flushes
        flush()
        assert stream.writes == 1
        flush()
        assert stream.writes == 1
        await connection.feed(GET)
        assert len(flushes) == 2
    text = stream.written.decode()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 100
    for line in text.splitlines():
        day, clock, rest = line.split(" ", 2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {clock}")
        assert LINE.fullmatch(rest)
