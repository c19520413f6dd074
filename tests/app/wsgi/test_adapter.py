"""WSGI apps over a real socket: PEP 3333, its validator, Flask and Django."""

import contextvars
import errno
import io
import logging
import ssl
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest

import tinyasgi.testing
from tests.support.helpers import GET, LOOPS, PATIENCE, Client, Command, in_loop, until, upload
from tests.support.processes import wait_until
from tinyasgi.errors import ClientDisconnected
from tinyasgi.testing import LiveServer, connect

CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=LOOPS)
def serve(request: pytest.FixtureRequest) -> Any:
    """Provide `tinyasgi.testing.serve` on each event loop; check that all threads end."""

    @contextmanager
    def serve(app: Any, **options: Any) -> Iterator[LiveServer]:
        loop = "uvloop" if "uvloop" in request.param.__module__ else "asyncio"
        with tinyasgi.testing.serve(app, loop=loop, **options) as server:
            yield server

    yield serve
    for thread in threading.enumerate():
        if thread.name == "wsgi":
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as http:
        yield http


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


class Pieces:
    """An iterable of pieces of body with an event for `close()`."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self.closed.set()


# The environ.


def test_environ(serve: Any) -> None:
    seen = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        return hello(environ, start_response)

    head = (
        b"POST /base/caf%C3%A9/%FF%2Fx?a=%20b HTTP/1.1\r\nHost: here:80\r\nX-Two: 1\r\nX-Two: 2\r\n"
        b"X_Two: 3\r\nContent_Length: 7\r\nCookie: a=1\r\nCookie: b=2\r\nX-Latin: \xe9\r\n"
        b"Content-Type: text/x\r\nContent-Length: 0\r\n\r\n"
    )
    with serve(app, root_path="/base") as server, Client(server) as http:
        port = http.sock.getsockname()[1]
        assert http.response(head).body == b"hello"
    assert seen["REQUEST_METHOD"] == "POST"
    assert seen["SCRIPT_NAME"] == "/base"
    assert seen["PATH_INFO"] == "/caf\xc3\xa9/\xff/x"
    assert seen["QUERY_STRING"] == "a=%20b"
    assert seen["REQUEST_URI"] == "/base/caf%C3%A9/%FF%2Fx?a=%20b"
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == ("127.0.0.1", str(port))
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert seen["CONTENT_TYPE"] == "text/x"
    assert seen["CONTENT_LENGTH"] == "0"
    assert seen["HTTP_HOST"] == "here:80"
    assert seen["HTTP_X_TWO"] == "1, 2"  # a name with an underscore is none of these
    assert seen["HTTP_COOKIE"] == "a=1; b=2"
    assert seen["HTTP_X_LATIN"] == "\xe9"
    assert seen["wsgi.url_scheme"] == "http"
    assert seen["wsgi.multithread"]
    assert seen["asgi.scope"]["path"] == "/base/café/\ufffd/x"
    assert seen["wsgi.input_terminated"]
    assert not {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"} & set(seen)


@pytest.mark.parametrize(
    ("path", "name", "info"),
    [
        ("/m/x", "/m", "/x"),
        ("/x", "/m", "/x"),
        ("/m", "/m", ""),
        ("/m/", "/m", "/"),
        ("/mx", "/m", "/mx"),
        ("/%6D/x", "/m", "/x"),
    ],
)
def test_mounted(path: str, name: str, info: str) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [f"{environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode("latin-1")]

    with tinyasgi.testing.serve(app, root_path="/m") as server, Client(server) as http:
        answer = http.response(GET.replace(b" / ", f" {path} ".encode()))
    assert answer.body.decode() == f"{name} {info}"


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_unix_socket(tmp_path: Path) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        keys = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
        return [repr([environ.get(key) for key in keys]).encode()]

    path = str(tmp_path / "socket")
    with tinyasgi.testing.serve(validated(app), uds=path, interface="wsgi"), Client(path) as http:
        assert http.response(GET).body == b"['localhost', '80', '']"


def test_tls() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    with tinyasgi.testing.serve(app, tls=True) as server:
        context = ssl.create_default_context(cafile=server.ca_certs)
        with Client(server, context) as http:
            assert http.response(GET).body == b"https"


def test_the_app_may_change_the_environ(serve: Any) -> None:
    pieces = Pieces(iter(lambda: b"x" * 1000, None))

    def clears(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("before")
        environ["asgi.scope"].clear()
        environ.clear()
        return hello(environ, start_response)

    def overrides(environ: Any, start_response: Any) -> Pieces:
        environ["REQUEST_METHOD"] = "GET"  # as middleware for HEAD does
        start_response("200 OK", [])
        return pieces

    assert responds(serve, clears).body == b"hello"
    with serve(overrides) as server, Client(server) as http:
        http.send(GET.replace(b"GET", b"HEAD"))
        assert http.head()[0] == 200
        assert pieces.closed.wait(PATIENCE)


# The validator of wsgiref.


def validated(app: Any) -> Any:
    """Wrap an app in the validator, which needs a content type and takes any arguments."""

    def typed(environ: Any, start_response: Any) -> Any:
        def start(status: str, fields: list[Any], *exc_info: Any) -> Any:
            return start_response(status, [("Content-Type", "text/plain"), *fields], *exc_info)

        return app(environ, start)

    return validator(typed)


def test_validator(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        source = environ["wsgi.input"]
        start_response("200 OK", [])
        yield source.readline()
        yield source.read(3)
        yield b"".join(source.readlines(5))
        yield from source
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].flush()

    lines = b"one\n" + b"two\n" * 3 + b"three"
    with serve(validated(app), interface="wsgi") as server, Client(server) as http:
        assert http.response(upload(len(lines)) + lines).body == lines
        assert http.response(CHUNKED + b"5\r\none\nt\r\n0\r\n\r\n").body == b"one\nt"
        http.send(CHUNKED)
        for byte in lines:
            http.send(b"1\r\n%c\r\n" % byte)
        assert http.response(b"0\r\n\r\n").body == lines
        assert http.response(GET).body == b""
        http.send(GET.replace(b"GET", b"HEAD"))
        assert http.head()[0] == 200
        assert http.response(GET).status == 200


# Responses.


def responds(serve: Any, app: Any, request: bytes = GET) -> Any:
    with serve(app) as server, Client(server) as http:
        return http.response(request)


def test_whole_responses_have_a_length(serve: Any) -> None:
    def several(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"", b"one", b""]

    def none(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Nothing here", [])
        return []

    assert responds(serve, hello).fields["content-length"] == "5"
    assert responds(serve, several).body == b"one"
    answer = responds(serve, none)
    assert (answer.status, answer.fields["content-length"]) == (404, "0")


@pytest.mark.parametrize("kind", [iter, tuple, list])
def test_headers_of_any_iterable(serve: Any, kind: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", kind([("X-One", "1"), ["X-Two", "2"]]))
        return []

    fields = responds(serve, app).fields
    assert (fields["x-one"], fields["x-two"]) == ("1", "2")


def test_pieces_of_a_subclass_of_bytes(serve: Any) -> None:
    class Piece(bytes):
        pass

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield Piece(b"one")
        yield Piece(b"two")

    assert responds(serve, app).body == b"onetwo"


def test_write(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"")
        write(b"one ")
        write(b"two ")
        return [b"three"]

    assert responds(serve, app).body == b"one two three"


def test_write_alone(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])(b"all")
        return []

    assert responds(serve, app).body == b"all"


def test_error_page_instead(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-First", "1")])
        try:
            raise KeyError
        except KeyError:
            start_response("503 Later", [("X-Second", "2")], sys.exc_info())
        return [b"sorry"]

    answer = responds(serve, app)
    assert (answer.status, answer.body) == (503, b"sorry")
    assert "x-second" in answer.fields
    assert "x-first" not in answer.fields


@pytest.mark.parametrize(
    ("method", "status"),
    [(b"HEAD", "200 OK"), (b"GET", "204 No Content"), (b"GET", "304 Not Modified")],
)
def test_an_endless_response_without_a_body(serve: Any, method: bytes, status: str) -> None:
    pieces = Pieces(iter(lambda: b"x" * 1000, None))

    def app(environ: Any, start_response: Any) -> Pieces:
        start_response(status, [])
        return pieces

    with serve(app) as server, Client(server) as http:
        http.send(GET.replace(b"GET", method))
        assert http.head()[0] == int(status[:3])
        assert pieces.closed.wait(PATIENCE)


def test_file_wrapper(serve: Any) -> None:
    content = bytes(range(256)) * 4096
    file = io.BytesIO(content)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"](file, 8192)

    assert responds(serve, app).body == content
    assert file.closed


def test_the_client_does_not_wait_for_what_follows_the_response(serve: Any) -> None:
    release, closed = threading.Event(), threading.Event()

    class Response(list[bytes]):
        def close(self) -> None:
            closed.set() if release.wait(PATIENCE) else None

    def app(environ: Any, start_response: Any) -> Response:
        start_response("200 OK", [])
        return Response([b"done"])

    with serve(app) as server, Client(server) as http:
        assert http.response(GET).body == b"done"
        assert http.response(GET).body == b"done"
        assert not closed.is_set()
        release.set()
    assert closed.is_set()  # the stop has waited for it


# Streams.


def test_streams(serve: Any) -> None:
    release = threading.Semaphore(0)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while line := environ["wsgi.input"].readline():
            yield line.upper()
            assert release.acquire(timeout=PATIENCE)

    with serve(app) as server, Client(server) as http:
        http.send(upload(8) + b"one\ntwo\n")
        assert http.head()[0] == 200
        assert http.chunk() == b"ONE\n"
        release.release()
        assert http.chunk() == b"TWO\n"
        release.release()
        assert http.chunk() == b""


def test_a_client_that_does_not_read(serve: Any) -> None:
    piece, count = bytes(64 * 1024), 2048  # 128 MiB
    produced = 0

    def pieces() -> Iterator[bytes]:
        nonlocal produced
        for produced in range(1, count + 1):  # noqa: B007
            yield piece

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/other":
            return hello(environ, start_response)
        start_response("200 OK", [])
        return pieces()

    with serve(app, wsgi_threads=2) as server, Client(server) as slow, Client(server) as http:
        slow.send(GET)
        assert slow.head()[0] == 200
        for _ in range(100):
            assert http.response(GET.replace(b" / ", b" /other ")).body == b"hello"
        assert produced < count // 4
        assert sum(map(len, slow.chunks())) == count * len(piece)


def test_a_long_upload(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        source, size = environ["wsgi.input"], 0
        while data := source.read(100_000):
            size += len(data)
        start_response("200 OK", [])
        return [str(size).encode()]

    with serve(app) as server, Client(server) as http:
        length = 16 << 20
        assert http.response(upload(length) + bytes(length)).body == str(length).encode()


# Request bodies.


def echo(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [environ["wsgi.input"].read()]


EXPECT = upload(3).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (EXPECT, b"abc"),
        (upload(3) + b"ab", b"c"),
        (upload(100_003) + bytes(100_000), b"abc"),
        (CHUNKED + b"1\r\na\r\n", b"2\r\nbc\r\n0\r\n\r\n"),
    ],
)
def test_an_unfinished_request_holds_no_thread(serve: Any, head: bytes, rest: bytes) -> None:
    with serve(echo, wsgi_threads=1) as server, Client(server) as slow, Client(server) as http:
        slow.send(head)
        wait_until(lambda: server.server._context.running)
        assert http.response(GET).body == b""
        if head == EXPECT:
            assert slow.head()[0] == 100  # at once: nothing but the client is waited for
        assert slow.response(rest).body[-3:] == b"abc"


def test_a_chunked_body_has_a_length(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["wsgi.input_terminated"]
        assert "HTTP_TRANSFER_ENCODING" not in environ
        return echo(environ, start_response)

    answer = responds(serve, app, CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
    assert (answer.body, answer.fields["x-length"]) == (b"abcd", "4")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (upload(200_001), 413),  # refused at once
        (EXPECT.replace(b": 3", b": 200001"), 413),
        (CHUNKED + b"493e0\r\n" + bytes(300_000) + b"\r\n", 413),
        (upload(190_001) + bytes(190_000), 503),
    ],
)
def test_a_full_spool(serve: Any, head: bytes, status: int) -> None:
    with (
        serve(echo, wsgi_spool_size=200_000) as server,
        Client(server) as other,
        Client(server) as http,
        Client(server) as third,
    ):
        spool = server.server._app._spool
        if status == 503:
            other.send(upload(180_001) + bytes(180_000))
            wait_until(lambda: spool._used)
        assert http.response(head).status == status
        assert third.response(upload(3) + b"abc").body == b"abc"  # needs no file
        if status == 503:
            assert len(other.response(b"x").body) == 180_001
        wait_until(lambda: not spool._used)


def test_a_disk_that_is_full(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with serve(echo) as server, Client(server) as http:
        http.send(upload(200_000), bytes(70_000))
        assert http.response(bytes(1000)).status == 503
        assert "No space left" in server.records[-1].getMessage()
        wait_until(lambda: not server.server._app._spool._used)


def test_a_body_is_closed_after_the_request(serve: Any) -> None:
    streams = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        streams.append(environ["wsgi.input"])
        return hello(environ, start_response)

    with serve(app) as server, Client(server) as http:
        http.send(upload(200_000), bytes(100_000))
        wait_until(lambda: server.server._app._spool._used)
        assert http.response(bytes(100_000)).body == b"hello"
        wait_until(lambda: not server.server._context.running)
        assert streams[0].closed


# Disconnects.


def test_close_is_called_when_the_client_leaves(serve: Any) -> None:
    pieces = Pieces(iter(lambda: b"x" * 10_000, None))

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/other":
            return hello(environ, start_response)
        start_response("200 OK", [])
        return pieces

    with serve(app, wsgi_threads=1) as server:
        with Client(server) as http:
            http.send(GET)
            assert http.head()[0] == 200
            http.reset()
        assert pieces.closed.wait(PATIENCE)
        with Client(server) as http:
            assert http.response(GET.replace(b" / ", b" /other ")).body == b"hello"


@pytest.mark.parametrize("first", [b"", b"x"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_empty_pieces_end_when_the_client_leaves(serve: Any, method: bytes, first: bytes) -> None:
    began = threading.Event()

    def stream() -> Iterator[bytes]:
        began.set()
        yield first
        while True:
            yield b""

    pieces = Pieces(stream())

    def app(environ: Any, start_response: Any) -> Pieces:
        start_response("200 OK", [])
        return pieces

    with serve(app) as server, Client(server) as http:
        http.send(GET.replace(b"GET", method))
        assert began.wait(PATIENCE)
        http.reset()
        assert pieces.closed.wait(PATIENCE)


def test_empty_pieces_before_the_response_of_a_half_closed_client(serve: Any) -> None:
    def stream() -> Iterator[bytes]:
        while True:
            yield b""

    pieces = Pieces(stream())

    def app(environ: Any, start_response: Any) -> Pieces:
        start_response("200 OK", [])
        return pieces

    with serve(app) as server, Client(server) as http:
        http.send(GET)
        http.half_close()  # as much as can be seen of a close
        assert http.response().status == 503
        assert pieces.closed.wait(PATIENCE)
    assert not [record for record in server.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("head", [upload(1 << 20), upload(5), EXPECT, CHUNKED + b"3\r\n"])
def test_an_unfinished_body_does_not_reach_the_app(serve: Any, head: bytes) -> None:
    paths = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with serve(app) as server:
        with Client(server) as http:
            http.send(
                head, b"abc"[: len(head) % 3], bytes(100_000 if head == upload(1 << 20) else 0)
            )
            wait_until(lambda: server.server._context.running)
            http.reset()
        wait_until(lambda: not server.server._context.running)
        assert server.server._app._spool._used == 0
        with Client(server) as http:
            assert http.response(GET.replace(b" / ", b" /next ")).body == b"hello"
    assert paths == ["/next"]


def test_a_client_that_leaves_while_it_waits_for_a_thread(serve: Any) -> None:
    began, release = threading.Event(), threading.Event()
    paths = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        began.set()
        assert release.wait(PATIENCE)
        return hello(environ, start_response)

    with serve(app, wsgi_threads=1) as server, Client(server) as first, Client(server) as last:
        first.send(GET)
        assert began.wait(PATIENCE)
        with Client(server) as gone:
            gone.send(GET.replace(b" / ", b" /gone "))
            gone.half_close()  # as much as can be seen of a close
            assert gone.response().status == 503
        last.send(GET.replace(b" / ", b" /last "))
        release.set()
        assert first.response().body == last.response().body == b"hello"
    assert paths == ["/", "/last"]


# Errors of the app.


def start(*fields: tuple[Any, Any], status: Any = "200 OK") -> Callable[..., Any]:
    """Return an app that responds with these headers and five bytes."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, list(fields))
        return [b"hello"]

    return app


def test_hop_by_hop_headers_are_not_sent(
    serve: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is reported once. The response has the framing and the connection of the server."""
    monkeypatch.setattr("tinyasgi.app.wsgi.adapter._reported", set())
    app = start(("Connection", "close"), ("X", "1"), ("transfer-encoding", "chunked"))
    with serve(app) as server, Client(server) as http:
        for _ in range(3):
            response = http.response(GET)
            assert response.body == b"hello"
            names = response.fields.keys()
            assert "x" in names
            assert not names & {"transfer-encoding", "connection"}
    messages = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert messages == [
        f"the response header '{name}' of the app is not sent; only a server may set it"
        for name in ("Connection", "transfer-encoding")
    ]


def raises_at_once(environ: Any, start_response: Any) -> list[bytes]:
    raise LookupError("at once")


def raises_after_start(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    raise LookupError("after the start")


def starts_twice(environ: Any, start_response: Any) -> list[bytes]:
    hello(environ, start_response)
    return hello(environ, start_response)


def sends_text(environ: Any, start_response: Any) -> list[str]:
    start_response("200 OK", [])
    return ["text"]


@pytest.mark.parametrize(
    ("app", "error", "said"),
    [
        (raises_at_once, LookupError, "at once"),
        (raises_after_start, LookupError, "after the start"),
        (starts_twice, RuntimeError, "twice"),
        (sends_text, TypeError, "str"),
        (lambda environ, start_response: [b"x"], RuntimeError, "start_response"),
        (lambda environ, start_response: [], RuntimeError, "start_response"),
        (lambda environ, start_response: None, TypeError, "iter"),
        (start(("X", "a\r\nb: c")), ValueError, "CR, LF"),
        (start(("X Y", "a")), ValueError, "header name"),
        (start(("X", "\u20ac")), UnicodeEncodeError, "latin-1"),
        (start(("Content-Length", "7")), ValueError, "7"),
        (start(("Content-Length", "3")), ValueError, "3"),
        (start(status="OK"), ValueError, "'OK'"),
        (start(status="100 Continue"), ValueError, "100"),
        (start(status="2000 OK"), ValueError, "'2000 OK'"),
        (start(status="\uff12\uff10\uff10 OK"), ValueError, "OK"),
        (start(status=b"200 OK"), TypeError, "bytes"),
        (start(("X", 1)), TypeError, "('X', 1)"),
        (start((b"X", b"1")), TypeError, "(b'X', b'1')"),
    ],
)
def test_faults(serve: Any, app: Any, error: type[Exception], said: str) -> None:
    with serve(app) as server, Client(server) as http:
        with server.expect(error) as errors:
            assert http.response(GET).status == 500
        assert said in str(errors[0])
        told = [record for record in server.records if record.levelname == "ERROR"]
        assert len(told) == 1
        assert told[0].exc_info is not None
        assert told[0].exc_info[1] is errors[0]


def test_a_cancelled_error_of_the_app_is_a_fault(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise CancelledError

    with serve(app) as server, Client(server) as http:
        with server.expect(RuntimeError) as errors:
            assert http.response(GET).status == 500
        assert isinstance(errors[0].__cause__, CancelledError)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_base_exception_ends_one_request_only(serve: Any, error: type[BaseException]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        raise error(7)

    with serve(app) as server, Client(server) as http:
        for _ in range(2):
            with server.expect(error):
                assert http.response(GET.replace(b"/ ", b"/exit ")).status == 500
        assert http.response(GET).body == b"hello"


def test_a_traceback_leads_to_the_app(serve: Any) -> None:
    with serve(raises_at_once) as server, Client(server) as http:
        with server.expect(LookupError) as errors:
            http.response(GET)
        frame = errors[0].__traceback__
        names = []
        while frame is not None:
            names.append(frame.tb_frame.f_code.co_name)
            frame = frame.tb_next
        assert names[-1] == "raises_at_once"


@pytest.mark.parametrize("length", [None, "3"])
def test_a_fault_within_the_body(serve: Any, length: str | None) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise LookupError

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", length)] if length else [])
        return pieces()

    with serve(app) as server, Client(server) as http, server.expect(LookupError):
        http.send(GET)
        assert http.head()[0] == 200
        rest = http.file.read(3) if length else http.rest()
        assert rest in (b"one", b"3\r\none\r\n")


def test_more_than_was_announced(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [b"one", b"two"]

    with serve(app) as server, Client(server) as http:
        with server.expect(ValueError) as errors:
            assert http.response(GET).body == b"one"
        assert "longer" in str(errors[0])


def test_a_fault_after_the_head(serve: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        try:
            raise LookupError
        except LookupError:
            start_response("500 Late", [], sys.exc_info())

    with serve(app) as server, Client(server) as http, server.expect(LookupError):
        http.send(GET)
        assert http.head()[0] == 200
        assert http.rest() == b"3\r\none\r\n"


def test_a_fault_in_close(serve: Any) -> None:
    class Response(list[bytes]):
        def close(self) -> None:
            raise LookupError

    def app(environ: Any, start_response: Any) -> Response:
        start_response("200 OK", [])
        return Response([b"hello"])

    with serve(app) as server, Client(server) as http:
        with server.expect(LookupError):
            assert http.response(GET).body == b"hello"
        with server.expect(LookupError):
            assert http.response(GET).body == b"hello"


def test_errors_are_records(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        errors = environ["wsgi.errors"]
        print("one", 2, file=errors)
        errors.writelines(["three\n", "fo"])
        errors.write("ur\nfive\n")
        errors.write("\n")
        errors.write("six")
        errors.flush()
        errors.write("seven")
        return hello(environ, start_response)

    with serve(app) as server, Client(server) as http:
        assert http.response(GET).body == b"hello"
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == ["one 2", "three", "four\nfive", "six", "seven"]


def test_errors_keep_their_level(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A text may be a line of another log, as that of Flask."""
    lines = {
        "[2026-11-30 08:00:00,000] DEBUG in views: a": "DEBUG",
        "[2026-11-30 08:00:00 +0000] [7] [INFO] ready": "INFO",
        "WARNING:app:ERROR": "WARNING",
        "[2026-11-30 08:00:00,000] ERROR in app: failed\nTraceback\nINFO": "ERROR",
        "CRITICAL": "CRITICAL",
        "INFORMATION": "ERROR",
        "first\nWARNING": "ERROR",
    }

    def app(environ: Any, start_response: Any) -> list[bytes]:
        for line in lines:
            environ["wsgi.errors"].write(line + "\n")
        return hello(environ, start_response)

    with serve(app) as server, Client(server) as http:
        assert http.response(GET).body == b"hello"
    records = [record for record in caplog.records if record.name == "tinyasgi.server"]
    assert {record.getMessage(): record.levelname for record in records} == lines


def test_filter_that_fails_for_errors(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.getMessage() == "text":
                raise SystemExit
            return True

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("text\n")
        return hello(environ, start_response)

    failing, logger = Failing(), logging.getLogger("tinyasgi.server")
    logger.addFilter(failing)
    try:
        with serve(app) as server, Client(server) as http:
            assert http.response(GET).body == b"hello"
    finally:
        logger.removeFilter(failing)
    assert "logging failed: text" in caplog.text


# Threads.


def test_more_requests_than_threads(serve: Any) -> None:
    began, release = SimpleQueue[str](), threading.Semaphore(0)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        began.put(environ["PATH_INFO"])
        assert release.acquire(timeout=PATIENCE)
        return hello(environ, start_response)

    with serve(app, wsgi_threads=2) as server:
        clients = []
        order = []
        for number in range(6):
            clients.append(Client(server))
            clients[-1].send(GET.replace(b" / ", b" /%d " % number))
            if number < 2:
                order.append(began.get(timeout=PATIENCE))
            else:  # it is read before the next one is sent
                wait_until(lambda: len(server.server._context.running) > number)  # noqa: B023
        assert began.empty()
        for _ in range(4):
            release.release()
            order.append(began.get(timeout=PATIENCE))
        release.release(2)
        for each in clients:
            assert each.response().body == b"hello"
            each.close()
    assert order == [f"/{number}" for number in range(6)]


def test_limit_concurrency(serve: Any) -> None:
    began, release = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        began.set()
        assert release.wait(PATIENCE)
        return hello(environ, start_response)

    with (
        serve(app, limit_concurrency=1) as server,
        Client(server) as first,
        Client(server) as second,
    ):
        first.send(GET)
        assert began.wait(PATIENCE)
        assert second.response(GET).status == 503
        release.set()
        assert first.response().status == 200


def test_context_variables(serve: Any) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    class Response:
        def __iter__(self) -> Iterator[bytes]:
            yield variable.get().encode()

        def close(self) -> None:
            at_close.append(variable.get())

    at_close: list[str] = []

    def app(environ: Any, start_response: Any) -> Response:
        assert variable.get() == "unset"
        variable.set(environ["PATH_INFO"])
        start_response("200 OK", [])
        return Response()

    with serve(app, wsgi_threads=1) as server, Client(server) as http:
        for path in (b"/a", b"/b"):
            answer = http.response(GET.replace(b" / ", b" %b " % path))
            assert answer.body == path
    assert at_close == ["/a", "/b"]


def test_cancel_on_disconnect(serve: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        began.set()
        try:
            while True:
                write(b"x")
        finally:
            ended.set()

    with serve(app, cancel_on_disconnect=True) as server:
        with Client(server) as http:
            http.send(GET)
            assert began.wait(PATIENCE)
            http.reset()
        assert ended.wait(PATIENCE)


def test_a_write_that_is_cancelled(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answers(SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(item)  # and the thread that waits for it is the next one that runs
            assert failed.wait(PATIENCE)

    failures, failed = [], threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        try:
            write(bytes(16 << 20))
        except Exception as error:
            failures.append(type(error))
            failed.set()
        return []

    monkeypatch.setattr("tinyasgi.app.wsgi.adapter.SimpleQueue", Answers)
    with serve(app, timeout_graceful_shutdown=0) as server, Client(server) as http:
        http.send(GET)
        assert http.head()[0] == 200
        server.stop()
        assert failed.wait(PATIENCE)
    assert failures == [ClientDisconnected]


# Shutdown.


def test_a_running_request_ends_before_the_stop(serve: Any) -> None:
    began, release = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        began.set()
        assert release.wait(PATIENCE)
        return hello(environ, start_response)

    with serve(app) as server, Client(server) as http:
        http.send(GET)
        assert began.wait(PATIENCE)
        stop = threading.Thread(target=server.stop)
        stop.start()
        wait_until(lambda: server.server._context.stopping)
        release.set()
        assert http.response().body == b"hello"
        stop.join(PATIENCE)


APP = """
import sys, threading

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [])
        return iter(lambda: b"x" * 1000, None)
    print("blocked", file=sys.stderr, flush=True)
    threading.Event().wait()

def create():
    return app
"""


def test_a_blocked_thread_does_not_hold_up_the_end(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    words = ("--port", "0", "--timeout-graceful-shutdown", "0", "--factory", "app:create")
    with Command(*words, cwd=tmp_path) as command:
        with Client(command.port) as blocked, Client(command.port) as stream:
            blocked.send(GET)
            stream.send(GET.replace(b" / ", b" /stream "))
            assert stream.head()[0] == 200
            command.wait_for("^blocked")
            assert command.stop() == 0
        assert "1 requests did not react to cancellation" in command.log
        assert command.log.rstrip().endswith("stopped")
        assert "Traceback" not in command.log


def test_threads_end_without_lifespan(serve: Any) -> None:
    with serve(hello, lifespan="off") as server, Client(server) as http:
        assert http.response(GET).body == b"hello"
    # The fixture waits for the threads.


@in_loop
async def test_threads_of_a_connection_in_memory_end() -> None:
    threads = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        threads.append(threading.current_thread())
        return hello(environ, start_response)

    async with connect(app) as connection:
        await connection.feed(GET)
        await until(lambda: connection.sent.endswith(b"hello"))
    await until(lambda: not threads[0].is_alive())


def test_websocket_is_refused(serve: Any) -> None:
    handshake = (
        b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert responds(serve, hello, handshake).status == 403


# Frameworks.


def test_flask(serve: Any) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")

    @app.get("/")
    def index() -> str:
        return "café"

    @app.post("/json")
    def json() -> Any:
        return flask.jsonify(flask.request.get_json())

    @app.post("/upload")
    def upload() -> Any:
        file = flask.request.files["file"]
        return {"name": file.filename, "size": len(file.read()), "note": flask.request.form["note"]}

    @app.post("/raw")
    def raw() -> Any:
        return str(len(flask.request.get_data()))

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(flask.stream_with_context(f"{n}\n" for n in range(100)))

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(__file__)

    @app.get("/fail")
    def fail() -> Any:
        raise LookupError("of the view")

    @app.get("/where/<name>")
    def where(name: str) -> Any:
        return flask.jsonify([name, flask.request.url, flask.url_for("index", _external=True)])

    with serve(app, root_path="/base") as server, client(server) as http:
        assert http.get("/").text == "café"
        assert http.post("/json", json={"a": [1, 2]}).json() == {"a": [1, 2]}
        content = bytes(2_000_000)
        sent = http.post("/upload", files={"file": ("a.bin", content)}, data={"note": "b"})
        assert sent.json() == {"name": "a.bin", "size": len(content), "note": "b"}
        assert http.post("/raw", content=iter([b"ab", b"cde"])).text == "5"  # chunked
        assert http.get("/stream").text == "".join(f"{n}\n" for n in range(100))
        assert http.get("/file").content == Path(__file__).read_bytes()
        assert http.get("/missing").status_code == 404
        assert http.get("/fail").status_code == 500
        head = http.head("/")
        assert (head.content, head.headers["content-length"]) == (b"", "5")
        base = f"{server.url}/base"
        answer = http.get("/base/where/caf%C3%A9?q=1").json()
        assert answer == ["café", f"{base}/where/café?q=1", f"{base}/"]


def test_django(serve: Any, django_settings: Any) -> None:
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def plain(request: Any) -> Any:
        return HttpResponse(f"{request.build_absolute_uri()} {request.META['REMOTE_ADDR']}")

    def upload(request: Any) -> Any:
        file = request.FILES["file"]
        return JsonResponse({"name": file.name, "size": file.size, "note": request.POST["note"]})

    def size(request: Any) -> Any:
        return JsonResponse({"method": request.method, "size": len(request.body)})

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(f"{number}\n" for number in range(100))

    def file(request: Any) -> Any:
        return FileResponse(open(__file__, "rb"))  # Django closes it

    urls = ModuleType("tinyasgi_test_wsgi_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("plain", plain),
        path("size", size),
        path("upload", upload),
        path("stream", stream),
        path("file", file),
    ]
    sys.modules[urls.__name__] = urls
    django_settings.ROOT_URLCONF = urls.__name__
    with serve(get_wsgi_application()) as server, client(server) as http:
        answer = http.get("/plain?a=b")
        assert answer.text == f"{server.url}/plain?a=b 127.0.0.1"
        assert answer.headers["content-length"] == str(len(answer.text))
        assert http.post("/size", content=bytes(2_000_000)).json() == {
            "method": "POST",
            "size": 2_000_000,
        }
        sent = http.post("/upload", files={"file": ("a.txt", b"content")}, data={"note": "b"})
        assert sent.json() == {"name": "a.txt", "size": 7, "note": "b"}
        assert http.get("/stream").text == "".join(f"{number}\n" for number in range(100))
        assert http.get("/file").content == Path(__file__).read_bytes()
        assert http.get("/missing").status_code == 404
        assert http.head("/plain").content == b""
    del sys.modules[urls.__name__]
