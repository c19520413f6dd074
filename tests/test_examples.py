"""Every example, served by tinyasgi, with clients that use sockets."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from examples import chat, echo, hello, sse, sync_work, upload
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

import tinyasgi
from tests.support.browser import chromium
from tinyasgi.testing import serve

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds after which a hanging test fails


def connect(url: str) -> closing[HTTPConnection]:
    """Open a connection for the duration of a ``with`` block."""
    address = urlsplit(url)
    assert address.hostname is not None
    return closing(HTTPConnection(address.hostname, address.port, timeout=PATIENCE))


@contextmanager
def opened(url: str) -> Iterator[HTTPResponse]:
    """Send a GET and read the head of the response. The end of the block disconnects."""
    with connect(url) as connection:
        connection.request("GET", urlsplit(url).path)
        with connection.getresponse() as response:
            yield response


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | Iterable[bytes] | None = None,
    content_type: str = "application/octet-stream",
) -> tuple[HTTPResponse, bytes]:
    """Send a request on a new connection; return the response and its body."""
    headers = {} if body is None else {"content-type": content_type}
    address = urlsplit(url)
    target = address.path + (f"?{address.query}" if address.query else "")
    with connect(url) as connection:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return response, response.read()


def websocket(server: Any, **options: Any) -> ClientConnection:
    """Open a WebSocket for the duration of a ``with`` block, without a proxy."""
    return connect_websocket(server.ws_url, open_timeout=PATIENCE, proxy=None, **options)


def next_event(stream: HTTPResponse) -> dict[str, str]:
    """Read the next server-sent event. Returns an empty dict at the end of the stream."""
    fields: dict[str, str] = {}
    while line := stream.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields


class Watched:
    """Wrap an app to record the start and the end of its first HTTP request."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.began = threading.Event()
        self.ended = threading.Event()
        self.error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.began.set()
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


def test_hello() -> None:
    with serve(hello.app) as server:
        response, body = fetch(f"{server.url}/")
        assert (response.status, body) == (200, b"Hello, world!\n")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["content-length"] == str(len(body))

        response, body = fetch(f"{server.url}/other")
        assert (response.status, body) == (404, b"Nothing here.\n")


def test_starlette() -> None:
    pytest.importorskip("starlette")
    from examples import starlette_app

    with serve(starlette_app.app) as server:
        for visits in (1, 2):
            response, body = fetch(f"{server.url}/")
            assert response.status == 200
            assert json.loads(body) == {"client": "127.0.0.1", "visits": visits}

        response, body = fetch(f"{server.url}/count/3")
        assert (response.status, body) == (200, b"1\n2\n3\n")
        assert response.headers["transfer-encoding"] == "chunked"

        response, body = fetch(f"{server.url}/static/")
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/html")
        assert body == (starlette_app.STATIC / "index.html").read_bytes()

        response, _ = fetch(f"{server.url}/static/none.html")
        assert response.status == 404


def test_flask() -> None:
    pytest.importorskip("flask")
    from examples import flask_app

    with serve(flask_app.app) as server:
        assert fetch(f"{server.url}/hello/you")[1] == b"Hello, you!\n"

        pieces = iter([b"one\ntwo", b"\nthree\n"])
        response, body = fetch(f"{server.url}/lines", "PUT", pieces)
        assert (response.status, json.loads(body)) == (200, {"lines": 3})

        response, body = fetch(f"{server.url}/squares.csv?n=3")
        assert response.headers["content-type"].startswith("text/csv")
        assert body == b"number,square\n1,1\n2,4\n3,9\n"


def test_fastapi() -> None:
    pytest.importorskip("fastapi")
    from examples import fastapi_app

    def post(url: str, value: object) -> tuple[int, Any]:
        response, body = fetch(url, "POST", json.dumps(value).encode(), "application/json")
        return response.status, json.loads(body)

    with serve(fastapi_app.app) as server:
        response, body = fetch(f"{server.url}/books/1")
        assert response.status == 200
        assert json.loads(body) == {"id": 1, "title": "Flatland", "year": 1884}

        status, stored = post(f"{server.url}/books", {"title": "Momo", "year": 1973})
        assert status == 201
        assert stored == {"id": stored["id"], "title": "Momo", "year": 1973}
        _, body = fetch(f"{server.url}/books/{stored['id']}")
        assert json.loads(body) == stored

        status, problem = post(f"{server.url}/books", {"title": "Momo", "year": "long ago"})
        assert status == 422
        assert problem["detail"][0]["loc"] == ["body", "year"]
        assert fetch(f"{server.url}/books/999")[0].status == 404
        assert fetch(f"{server.url}/books/first")[0].status == 422

        response, body = fetch(f"{server.url}/docs")
        assert response.status == 200
        assert b"Bookshelf" in body and b"/openapi.json" in body
        _, body = fetch(f"{server.url}/openapi.json")
        assert "/books/{book_id}" in json.loads(body)["paths"]


def test_sse_page() -> None:
    with serve(sse.app) as server:
        response, body = fetch(f"{server.url}/")
        assert response.status == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert b'new EventSource("/events")' in body
        assert fetch(f"{server.url}/other")[0].status == 404


def test_sse_says_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "INTERVAL", 0.01)
    with ExitStack() as stack:
        with serve(sse.app) as server:
            stream = stack.enter_context(opened(f"{server.url}/events"))
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            for _ in range(3):
                event = next_event(stream)
                assert event["event"] == "message"
                assert re.fullmatch(r"It is \d\d:\d\d:\d\d\.", event["data"])
        # The server has stopped. Its last event has not been read yet.
        while event.get("event") == "message":
            event = next_event(stream)
        assert event == {"event": "bye", "data": "Goodbye!"}
        assert stream.read() == b""


def test_sse_client_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "INTERVAL", 3600.0)  # the disconnect, not an event, ends the stream
    app = Watched(sse.app)
    with serve(app) as server:
        with opened(f"{server.url}/events") as stream:
            assert next_event(stream)["event"] == "message"
        assert app.ended.wait(PATIENCE)
    assert app.error is None or isinstance(app.error, OSError)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there and then")
def test_sse_command_says_goodbye() -> None:
    command = [sys.executable, "-m", "tinyasgi", "examples.sse:app", "--port", "0"]
    packages = Path(tinyasgi.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)  # no effect on an exited process
        watchdog = threading.Timer(PATIENCE, process.kill)
        stack.callback(watchdog.cancel)
        watchdog.start()

        assert process.stderr is not None
        log = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log)):
            line = process.stderr.readline()
            assert line, f"The server ended before it said where it listens:\n{log}"
            log += line

        stream = stack.enter_context(opened(f"{found[0]}/events"))
        event = next_event(stream)
        assert event["event"] == "message"
        process.send_signal(signal.SIGTERM)
        while event.get("event") == "message":
            event = next_event(stream)
        assert event == {"event": "bye", "data": "Goodbye!"}
        assert stream.read() == b""
        log += process.stderr.read()
        assert process.wait(PATIENCE) == 0, log


def test_echo() -> None:
    with serve(echo.app) as server:
        with websocket(server) as client:
            for message in ("Grüße", b"\0\xff", "", b"", "x" * 1_000_000):
                client.send(message)
                assert client.recv(PATIENCE) == message
        with websocket(server) as client:
            client.send("still there")
            assert client.recv(PATIENCE) == "still there"


def test_chat() -> None:
    with serve(chat.app) as server:
        response, page = fetch(f"{server.url}/")
        assert response.status == 200
        assert b"new WebSocket(" in page
        assert fetch(f"{server.url}/other")[0].status == 404

        with websocket(server) as first:
            name = first.recv(PATIENCE).removesuffix(" comes in.")
            with websocket(server) as second:
                other = second.recv(PATIENCE).removesuffix(" comes in.")
                assert other != name
                assert first.recv(PATIENCE) == f"{other} comes in."
                for client, who in ((first, name), (second, other)):
                    client.send("Hello, all!")
                    assert first.recv(PATIENCE) == f"{who}: Hello, all!"
                    assert second.recv(PATIENCE) == f"{who}: Hello, all!"
            assert first.recv(PATIENCE) == f"{other} has left."
            first.send("")
            first.send(b"no text")
            first.send("x" * chat.MAX_LINE + "y")
            assert first.recv(PATIENCE) == f"{name}: " + "x" * chat.MAX_LINE
    assert not chat.inboxes


def test_chat_is_for_its_own_page() -> None:
    with serve(chat.app) as server:
        for origin in (server.url, None):
            with websocket(server, origin=origin) as client:
                assert client.recv(PATIENCE).endswith(" comes in.")
        for origin in ("http://127.0.0.1", "https://elsewhere.example", "null"):
            with pytest.raises(InvalidStatus) as refused, websocket(server, origin=origin):
                pass
            assert refused.value.response.status_code == 403


def test_chat_does_not_wait_for_slow_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_INBOX", 2)
    monkeypatch.setattr(chat, "MAX_LINE", 1_000_000)
    lines = [f"{number:0100000}" for number in range(200)]  # more than the buffers of the sockets
    with serve(chat.app) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect((server.host, server.port))
        with (
            websocket(server, compression=None, max_queue=1, sock=sock) as slow,
            websocket(server, compression=None) as quick,
        ):
            name = quick.recv(PATIENCE).removesuffix(" comes in.")
            for line in lines:
                quick.send(line)
                assert quick.recv(PATIENCE) == f"{name}: {line}"
            heard = []
            while heard[-1:] != [f"{name}: {lines[-1]}"]:
                heard.append(slow.recv(PATIENCE))
            assert len(heard) < len(lines)


@pytest.mark.browser
def test_chat_in_a_browser() -> None:
    with ExitStack() as stack:
        driver = stack.enter_context(chromium())
        elsewhere = stack.enter_context(serve(hello.app))
        server = stack.enter_context(ExitStack())
        room = server.enter_context(serve(chat.app))

        def wait_for(text: str) -> None:
            """Wait until the page shows a line. The latest line is the first one."""
            script = "return document.querySelector('li')?.textContent"
            deadline = time.monotonic() + PATIENCE
            while driver.execute_script(script) != text:
                assert time.monotonic() < deadline, driver.execute_script(script)

        with websocket(room) as client:
            own = client.recv(PATIENCE).removesuffix(" comes in.")
            driver.get(f"{room.url}/")
            name = client.recv(PATIENCE).removesuffix(" comes in.")
            wait_for(f"{name} comes in.")
            client.send("<b>Hello</b>")
            wait_for(f"{own}: <b>Hello</b>")
            driver.find_element("css selector", "input").send_keys("Grüße\n")
            wait_for(f"{name}: Grüße")
            assert client.recv(PATIENCE) == f"{own}: <b>Hello</b>"
            assert client.recv(PATIENCE) == f"{name}: Grüße"

            # A page of another origin is rejected.
            driver.switch_to.new_window("tab")
            driver.get(f"{elsewhere.url}/")
            script = "new WebSocket(arguments[0]).onclose = (event) => arguments[1](event.code)"
            assert driver.execute_async_script(script, room.ws_url) == 1006

            driver.switch_to.window(driver.window_handles[0])
            server.close()
            with pytest.raises(ConnectionClosed) as closed:
                while client.recv(PATIENCE):
                    pass
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            wait_for("Closed: 1001")


def test_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upload, "FOLDER", tmp_path)
    pieces = [bytes([number]) * 100_000 for number in range(30)]
    whole = b"".join(pieces)
    with serve(upload.app) as server:
        response, page = fetch(f"{server.url}/")
        assert response.status == 200
        assert b'fetch("/upload"' in page

        # With a Content-Length, chunked, and empty.
        for method, body, content in (
            ("PUT", whole, whole),
            ("POST", iter(pieces), whole),
            ("PUT", b"", b""),
        ):
            response, answer = fetch(f"{server.url}/upload", method, body)
            assert response.status == 201
            result = json.loads(answer)
            assert result["size"] == len(content)
            assert result["sha256"] == hashlib.sha256(content).hexdigest()
            assert (tmp_path / result["file"]).read_bytes() == content

        assert fetch(f"{server.url}/upload")[0].status == 404
    assert len(list(tmp_path.iterdir())) == 3


def test_upload_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upload, "FOLDER", tmp_path)
    monkeypatch.setattr(upload, "MAX_SIZE", 10)
    with serve(upload.app) as server:
        assert fetch(f"{server.url}/upload", "PUT", bytes(11))[0].status == 413
        assert list(tmp_path.iterdir()) == []
        assert fetch(f"{server.url}/upload", "PUT", bytes(10))[0].status == 201


def test_upload_client_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upload, "FOLDER", tmp_path)
    app = Watched(upload.app)
    with serve(app) as server:
        with connect(server.url) as connection:
            connection.putrequest("PUT", "/upload")
            connection.putheader("content-length", "1000")
            connection.endheaders(b"only the beginning")
            assert app.began.wait(PATIENCE)
        assert app.ended.wait(PATIENCE)
    assert app.error is None
    assert list(tmp_path.iterdir()) == []


def test_sync_work_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    began, finish = threading.Event(), threading.Event()

    def block() -> str:
        began.set()
        assert finish.wait(PATIENCE)
        return "finished"

    monkeypatch.setattr(sync_work, "hash_password", block)
    with serve(sync_work.app) as server, connect(server.url) as connection:
        try:
            connection.request("GET", "/thread")
            assert began.wait(PATIENCE)
            # A thread is blocked, but the event loop is not.
            for number in (1, 2):
                _, body = fetch(f"{server.url}/")
                assert body == f"This is answer number {number}.\n".encode()
        finally:
            finish.set()
        assert connection.getresponse().read() == b"finished\n"


def test_sync_work_process() -> None:
    with serve(sync_work.app) as server:
        _, body = fetch(f"{server.url}/process?n=100")
        assert body == b"There are 25 primes up to 100.\n"
        for wrong in ("", "?n=", "?n=1", "?n=-7", "?n=many", f"?n={sync_work.MAX_N + 1}"):
            response, body = fetch(f"{server.url}/process{wrong}")
            assert (response.status, body) == (400, b"Give me an n from 2 to 10000000.\n")
        assert fetch(f"{server.url}/other")[0].status == 404


def test_sync_work_hashes() -> None:
    assert len(bytes.fromhex(sync_work.hash_password())) == 32
