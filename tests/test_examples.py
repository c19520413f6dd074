"""Every example, run for real: tinyasgi serves it and a client talks to it through a socket."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from examples import hello, sse, sync_work, upload

import tinyasgi
from tinyasgi.testing import serve

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds until a test that hangs gives up; one that works never waits for it


def connect(url: str) -> closing[HTTPConnection]:
    """Make a connection, closed at the end of the ``with`` block."""
    address = urlsplit(url)
    assert address.hostname is not None
    return closing(HTTPConnection(address.hostname, address.port, timeout=PATIENCE))


@contextmanager
def opened(url: str) -> Iterator[HTTPResponse]:
    """GET a response of which only the head has been read; leaving the block hangs up."""
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
    """Make a request on a connection of its own; return the response and its body."""
    headers = {} if body is None else {"content-type": content_type}
    address = urlsplit(url)
    target = address.path + (f"?{address.query}" if address.query else "")
    with connect(url) as connection:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return response, response.read()


def next_event(stream: HTTPResponse) -> dict[str, str]:
    """Wait for the next server-sent event; an empty dict is the end of the stream."""
    fields: dict[str, str] = {}
    while line := stream.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields


class Watched:
    """An application, and when its first HTTP request began, when it ended, and how."""

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
        # The server has stopped by now, but its last words are still to be read.
        while event.get("event") == "message":
            event = next_event(stream)
        assert event == {"event": "bye", "data": "Goodbye!"}
        assert stream.read() == b""


def test_sse_client_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "INTERVAL", 3600.0)  # so that not the next event ends it
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
        stack.callback(process.kill)  # does nothing to a process that has ended
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


def test_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upload, "FOLDER", tmp_path)
    pieces = [bytes([number]) * 100_000 for number in range(30)]
    whole = b"".join(pieces)
    with serve(upload.app) as server:
        response, page = fetch(f"{server.url}/")
        assert response.status == 200
        assert b'fetch("/upload"' in page

        # Once with its length told beforehand, once in chunks, once with nothing at all.
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
    monkeypatch.setattr(upload, "LIMIT", 10)
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
            # A thread is blocked now; the event loop is not.
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
        for wrong in ("", "?n=", "?n=1", "?n=-7", "?n=many", f"?n={sync_work.LIMIT + 1}"):
            response, body = fetch(f"{server.url}/process{wrong}")
            assert (response.status, body) == (400, b"Give me an n from 2 to 10000000.\n")
        assert fetch(f"{server.url}/other")[0].status == 404


def test_sync_work_hashes() -> None:
    assert len(bytes.fromhex(sync_work.hash_password())) == 32
