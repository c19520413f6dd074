"""Files as responses, over sockets: TCP, TLS and unix, with both event loops and parsers."""

import asyncio
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.support.helpers import GET, PATIENCE, Certificates, Client, elapse, in_loop
from tinyasgi.errors import ClientDisconnected
from tinyasgi.testing import connect, serve

SIZE = 3_000_001
CONTENT = os.urandom(65536) * (SIZE // 65536 + 1)
CONTENT = CONTENT[:SIZE]
OLD = GET.replace(b"1.1", b"1.0")
START = {"type": "http.response.start", "status": 200}
ZERO = {"type": "http.response.zerocopysend"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "big"
    file.write_bytes(CONTENT)
    (tmp_path / "small").write_bytes(b"small\n")
    (tmp_path / "empty").write_bytes(b"")
    return str(file)


@pytest.fixture(
    params=[
        "tcp-asyncio-h11",
        "tcp-uvloop-httptools",
        "tls-asyncio-httptools",
        "tls-uvloop-h11",
        "unix-asyncio-httptools",
        "unix-uvloop-h11",
    ]
)
def ask(request: Any, tls: Certificates, tmp_path: Path) -> Iterator[Callable[[Any], Client]]:
    """Serve an app; return a client. The log must have no errors of the server itself."""
    kind, loop, http = request.param.split("-")
    options: dict[str, Any] = {"loop": loop, "http": http, "lifespan": "off"}
    context: ssl.SSLContext | None = None
    if kind == "tls":
        options |= {"ssl_certfile": tls.certfile}
        context = tls.context()
    socket = str(tmp_path / "socket")
    if kind == "unix":
        options["uds"] = socket
    with ExitStack() as stack:

        def ask(app: Any, **more: Any) -> Client:
            server = stack.enter_context(serve(app, **options, **more))
            where = socket if kind == "unix" else server
            return stack.enter_context(Client(where, context))

        yield ask


def sends(*messages: dict[str, Any], errors: list[BaseException] | None = None) -> Any:
    """Return an app that sends a start and messages; with `errors`, it catches exceptions."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            try:
                await send(message)
            except BaseException as error:
                if errors is None:
                    raise
                errors.append(error)

    return app


def pathsend(path: object) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": path}


@pytest.mark.parametrize("name", ["big", "small", "empty"])
def test_pathsend(ask: Any, path: str, name: str) -> None:
    content = {"big": CONTENT, "small": b"small\n", "empty": b""}[name]
    client = ask(sends(START, pathsend(path.replace("big", name))))
    for _ in range(3):
        found = client.response(GET)
        assert found.status == 200
        assert found.fields["content-length"] == str(len(content))
        assert found.body == content
    client.send(GET + GET.replace(b"GET", b"HEAD") + GET)  # pipelined
    assert client.response().body == content
    assert client.head()[1].get("content-length", "0") == str(len(content))
    assert client.response().body == content


def test_pathsend_to_http10(ask: Any, path: str) -> None:
    client = ask(sends(START, pathsend(path)))
    client.send(OLD)
    assert client.response().body == CONTENT
    assert client.rest() == b""


def test_parts(ask: Any, path: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with open(path, "rb") as file:
            file.read(3)  # the position counts, not what was read ahead
            await send(START)
            await send({"type": "http.response.body", "body": b"<", "more_body": True})
            await send({**ZERO, "file": file, "count": 5, "more_body": True})
            await send({**ZERO, "file": file, "count": 1_000_000, "more_body": True})
            await send({**ZERO, "file": file.fileno(), "offset": 7, "more_body": True})
            await send({**ZERO, "file": file, "count": 0, "more_body": True})
            await send({"type": "http.response.body", "body": b">", "more_body": True})
            await send({**ZERO, "file": file})

    expected = b"<" + CONTENT[3:1_000_008] + CONTENT[7:] + b">" + CONTENT[1_000_008:]
    client = ask(app)
    for _ in range(2):
        assert client.response(GET).body == expected
    assert client.response(OLD).body == expected


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 2**63])
def test_part_beyond_the_end(ask: Any, path: str, offset: int) -> None:
    """It is empty."""
    with open(path, "rb") as file:
        client = ask(sends(START, {**ZERO, "file": file, "offset": offset}))
        for _ in range(2):
            found = client.response(GET)
            assert (found.status, found.fields["content-length"]) == (200, "0")


def test_trailers_after_a_file(ask: Any, path: str) -> None:
    end = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
    client = ask(sends({**START, "trailers": True}, pathsend(path), end))
    client.send(GET[:-2] + b"TE: trailers\r\nConnection: close\r\n\r\n")
    assert client.head()[1]["transfer-encoding"] == "chunked"
    assert client.rest().endswith(CONTENT[-9:] + b"\r\n0\r\nx-sum: 1\r\n\r\n")


def test_the_app_waits_before_the_file(ask: Any, path: str) -> None:
    """The head is sent without the size of the file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.sleep(0)
        await send(pathsend(path))

    client = ask(app)
    for _ in range(2):
        found = client.response(GET)
        assert "content-length" not in found.fields
        assert found.body == CONTENT


@pytest.mark.parametrize("status", [204, 304])
def test_no_body(ask: Any, path: str, status: int) -> None:
    client = ask(sends({**START, "status": status}, pathsend(path)))
    client.send(GET * 2)
    for _ in range(2):
        assert client.head()[0] == status


def test_faults(ask: Any, path: str, tmp_path: Path) -> None:
    """Each is an exception in the app, before the head is written."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    with open(path, "rb") as file, open(path, "ab") as write_only:
        faults = [
            (pathsend(str(tmp_path / "missing")), FileNotFoundError),
            (pathsend(str(tmp_path / "link")), FileNotFoundError),
            (pathsend(str(tmp_path)), OSError),
            (pathsend(str(tmp_path / "fifo")), OSError),
            (pathsend("/dev/zero"), OSError),
            (pathsend(path + "\0"), ValueError),
            (pathsend(7), TypeError),
            (pathsend(None), TypeError),
            ({"type": "http.response.pathsend"}, KeyError),
            (ZERO, KeyError),
            ({**ZERO, "file": BytesIO(b"x")}, TypeError),
            ({**ZERO, "file": path}, TypeError),
            ({**ZERO, "file": write_only, "offset": 0}, OSError),
            ({**ZERO, "file": 10_000}, OSError),
            ({**ZERO, "file": file, "offset": -1}, ValueError),
            ({**ZERO, "file": file, "count": -1}, ValueError),
            ({**ZERO, "file": file, "count": SIZE + 1}, ValueError),
            ({**ZERO, "file": file, "offset": "1"}, TypeError),
            ({**ZERO, "file": file, "count": True}, TypeError),
        ]
        errors: list[BaseException] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            message, _ = faults[int(scope["path"][1:])]
            await sends(START, message, errors=errors)(scope, receive, send)
            await send({"type": "http.response.body", "body": b"instead"})

        client = ask(app)
        for number, (_, error) in enumerate(faults):
            found = client.response(GET.replace(b"/ ", b"/%d " % number))
            assert (found.status, found.body) == (200, b"instead")
            assert isinstance(errors[-1], error), (number, errors[-1])
        assert len(errors) == len(faults)


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1])
def test_wrong_length(ask: Any, path: str, length: int) -> None:
    start = {**START, "headers": [(b"content-length", b"%d" % length)]}
    errors: list[BaseException] = []
    instead = {"type": "http.response.body", "body": bytes(length)}
    client = ask(sends(start, pathsend(path), instead, errors=errors))
    assert client.response(GET).body == bytes(length)
    assert [type(each) for each in errors] == [ValueError]


@pytest.mark.parametrize(
    "order",
    [
        ["path", "start", "last"],
        ["start", "part", "path", "last"],
        ["start", "path", "path"],
        ["start", "path", "last"],
    ],
)
def test_misplaced(ask: Any, path: str, order: list[str]) -> None:
    last = {"type": "http.response.body", "body": b"x"}
    messages = {"start": START, "path": pathsend(path), "last": last}
    messages["part"] = {**last, "more_body": True}
    errors: list[BaseException] = []
    client = ask(sends(*[messages[name] for name in order], errors=errors))
    for _ in range(2):  # the connection is still usable
        assert client.response(GET).status == 200
    assert {type(each) for each in errors} == {RuntimeError}


def test_file_becomes_shorter(ask: Any, path: str) -> None:
    """The connection is closed, and the response is incomplete."""
    size = 64 << 20
    os.truncate(path, size)
    errors: list[BaseException] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sends(START, pathsend(path), errors=errors)(scope, receive, send)
        done.set()

    client = ask(app)
    client.send(GET)
    assert client.head()[1]["content-length"] == str(size)
    client.file.read(1000)
    os.truncate(path, 2_000_000)
    with suppress(OSError):  # reset
        assert len(client.rest()) < size
    assert done.wait(PATIENCE)
    assert "shorter" in str(errors[0])


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_leaves(ask: Any, path: str, how: str) -> None:
    os.truncate(path, 1 << 30)
    errors: list[BaseException] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sends(START, pathsend(path), errors=errors)(scope, receive, send)
        done.set()

    client = ask(app)
    client.send(GET)
    client.file.read(100_000)
    getattr(client, how)()
    assert done.wait(PATIENCE)
    assert isinstance(errors[0], ClientDisconnected)


def test_half_close(ask: Any, path: str) -> None:
    client = ask(sends(START, pathsend(path)))
    client.send(GET)
    if not isinstance(client.sock, ssl.SSLSocket):
        client.half_close()
    assert client.response().body == CONTENT


@pytest.mark.parametrize("trailers", [False, True])
@in_loop
async def test_more_after_a_half_close(path: str, trailers: bool) -> None:
    """A file that more follows does not end the response."""
    begin = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await begin.wait()
        await send({**START, "trailers": trailers})
        with open(path, "rb") as file:
            await send({**ZERO, "file": file, "count": 5, "more_body": True})
            await send({**ZERO, "file": file})
        if trailers:
            await send({"type": "http.response.trailers"})

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.eof()
        begin.set()
        while not connection.closed:
            await connection.settle()
        assert connection.sent.endswith(CONTENT[-9:] + b"\r\n0\r\n\r\n")


def test_stop_during_a_file_that_more_follows(path: str) -> None:
    """`receive` returns `http.disconnect` after the file."""
    size = 32 << 20
    os.truncate(path, size)
    stopping = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        disconnect = asyncio.create_task(receive())
        await send(START)
        loop = asyncio.get_running_loop()
        loop.call_soon(server.server.stop)
        loop.call_later(0, stopping.set)
        with open(path, "rb") as file:
            await send({**ZERO, "file": file, "more_body": True})
        await disconnect
        await send({"type": "http.response.body", "body": b"bye"})

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        assert stopping.wait(PATIENCE)
        body = client.response().body
    assert (len(body), body[-3:]) == (size + 3, b"bye")


def test_other_messages_meanwhile(ask: Any, path: str) -> None:
    os.truncate(path, 16 << 20)
    errors: list[BaseException] = []
    begun = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        task = asyncio.create_task(send(pathsend(path)))
        await asyncio.sleep(0)
        for message in (pathsend(path), {"type": "http.response.body", "body": b"x"}):
            try:
                await send(message)
            except RuntimeError as error:
                errors.append(error)
        begun.set()
        await task

    client = ask(app)
    client.send(GET)
    assert begun.wait(PATIENCE)
    assert [str(each).endswith("while a file was being sent") for each in errors] == [True] * 2
    found = client.response()
    assert len(found.body) == 16 << 20
    assert found.body.startswith(CONTENT)


def test_cancelled(ask: Any, path: str) -> None:
    """A response whose task is cancelled is incomplete; nothing else can follow."""
    os.truncate(path, 1 << 30)
    errors: list[BaseException] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            async with asyncio.timeout(0.05):
                await send(pathsend(path))
        except TimeoutError as error:
            errors.append(error)
        try:
            await send({"type": "http.response.body"})
        except OSError as error:
            errors.append(error)
        done.set()

    client = ask(app)
    client.send(GET)
    assert done.wait(PATIENCE)
    assert [type(each) for each in errors] == [TimeoutError, ClientDisconnected]
    with suppress(OSError):  # reset
        assert len(client.response().body) < 1 << 30


def test_stop_waits_for_a_file(path: str) -> None:
    size = 32 << 20
    os.truncate(path, size)
    found = []
    with serve(sends(START, pathsend(path)), lifespan="off") as server:
        client = Client(server)
        client.send(GET)
        head = client.head()
        reader = threading.Thread(target=lambda: found.append(len(client.file.read(size))))
        reader.start()
    reader.join()
    client.close()
    assert (head[0], found) == (200, [size])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_slow_client(kind: str, path: str, tmp_path: Path) -> None:
    """A client that reads nothing is disconnected; the app does not wait longer."""
    os.truncate(path, 1 << 30)
    errors: list[BaseException] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sends(START, pathsend(path), errors=errors)(scope, receive, send)
        done.set()

    where = str(tmp_path / "socket")
    options = {"uds": where} if kind == "unix" else {}
    with (
        serve(app, lifespan="off", timeout_write=1, **options) as server,
        Client(where if kind == "unix" else server) as client,
    ):
        client.send(GET)
        assert done.wait(PATIENCE)
    assert isinstance(errors[0], ClientDisconnected)


@in_loop
async def test_without_a_socket(path: str) -> None:
    async with connect(sends(START, pathsend(path))) as connection:
        sent = await connection.feed(GET)
        while not sent.endswith(CONTENT[-100:]):
            await elapse(connection, 1)
            sent = bytes(connection.sent)
        assert sent.partition(b"\r\n\r\n")[2] == CONTENT


def test_starlette(ask: Any, path: str) -> None:
    """Its file responses use pathsend, without any change."""

    async def file(request: Any) -> FileResponse:
        return FileResponse(path)

    used: set[str] = set()
    static = StaticFiles(directory=os.path.dirname(path))
    framework = Starlette(routes=[Route("/file", file), Mount("/", static)])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def recorded(message: Any) -> None:
            used.add(message["type"])
            await send(message)

        await framework(scope, receive, recorded)

    client = ask(app, pathsend=True)
    for target in (b"/file ", b"/big "):
        request = GET.replace(b"/ ", target)
        assert client.response(request).body == CONTENT
        assert used == {"http.response.start", "http.response.pathsend"}
        found = client.response(request[:-2] + b"Range: bytes=5-1000004\r\n\r\n")
        assert (found.status, found.body) == (206, CONTENT[5:1_000_005])
        used.clear()
    client.send(request[:-2] + b"If-None-Match: " + found.fields["etag"].encode() + b"\r\n\r\n")
    assert client.head()[0] == 304


@pytest.mark.parametrize("pathsend", [True, None, False])
def test_middleware_compresses_files(pathsend: bool | None, path: str) -> None:
    """It is imported, so `http.response.pathsend` is not offered by default."""
    static = Starlette(routes=[Mount("/", StaticFiles(directory=os.path.dirname(path)))])
    request = GET.replace(b"/ ", b"/big ")[:-2] + b"Accept-Encoding: gzip\r\n\r\n"
    with serve(GZipMiddleware(static), pathsend=pathsend) as server, Client(server) as client:
        found = client.response(request)
    assert found.status == 200
    assert found.fields.get("content-encoding") == (None if pathsend else "gzip")
