"""What is logged, and what is not."""

import asyncio
import io
import logging
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    GET,
    LOOPS,
    PATIENCE,
    Certificates,
    Client,
    Command,
    hello,
    in_loop,
    quick_loop,
    reply,
    until,
    upload,
)

from tinyasgi import Server
from tinyasgi.log import AccessLines
from tinyasgi.testing import connect, serve

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


# The access log.


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

    class Stream(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream = Stream()
    async with connect(hello) as connection:
        connection.context.access = AccessLines(stream, Loop())  # type: ignore[arg-type]
        await connection.feed(*[GET] * 100)
        assert stream.writes == 0
        (flush,) = flushes
        flush()
        assert stream.writes == 1
        flush()
        assert stream.writes == 1
        await connection.feed(GET)
        assert len(flushes) == 2
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 100
    for line in text.splitlines():
        day, clock, rest = line.split(" ", 2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {clock}")
        assert LINE.fullmatch(rest)


# Faults of peers: one line each, with peer and cause.


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages of the server; each is one line that a terminal can show."""
    messages = [record.getMessage() for record in caplog.records]
    assert all(message.isprintable() for message in messages)
    return messages


@pytest.mark.parametrize(
    ("request_", "status", "cause"),
    [
        (b"NONSENSE\r\n\r\n", 400, "NONSENSE"),
        (b"G\x1b[31mT / HTTP/1.1\r\nHost: a\r\n\r\n", 400, r"\x1b[31m"),
        (b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n", 400, r"\x1b[31m"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nb: c\x08\r\n\r\n", 400, r"\x08"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nb : c\r\n\r\n", 400, "colon"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n", 400, r"\n"),
        (b"GET / HTTP/1.1\r\nHost: a\xe2\x80\xa8b\r\n\r\n", 400, r"\xe2"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, "HTTP/9.9"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "CONNECT"),
        (upload(100), 413, "100"),
    ],
)
def test_refused_request(
    request_: bytes, status: int, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(hello, lifespan="off", limit_body_size=50) as server, Client(server) as client:
        assert client.response(request_).status == status
        port = client.sock.getsockname()[1]
    (message,) = faults(caplog)
    assert message.startswith(f"127.0.0.1:{port}: {status} ")
    assert cause in message


def test_failing_app_can_not_forge_lines(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        raise ValueError

    path = "/%0A2026-01-01 INFO all is well %1B[2J%E2%80%A8".replace(" ", "%20")
    with serve(app, lifespan="off") as server, Client(server) as client, server.expect(ValueError):
        client.response(GET.replace(b"/ ", path.encode() + b" "))
    (message,) = faults(caplog)
    assert path in message


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_refused_request_on_a_unix_socket(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve(hello, lifespan="off", uds="sock"), Client("sock") as client:
        assert client.response(b"NONSENSE\r\n\r\n").status == 400
    (message,) = faults(caplog)
    assert "local" in message


def test_tls_on_a_port_without(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.create_default_context()
    with serve(hello, lifespan="off") as server, pytest.raises(ssl.SSLError):
        Client(server, context)
    (message,) = faults(caplog)
    assert message.startswith("127.0.0.1:")
    assert "TLS" in message


@in_loop
async def test_tls_hello_with_what_looks_like_a_line_end(caplog: pytest.LogCaptureFixture) -> None:
    """Much of a hello is random."""
    async with connect(hello) as connection:
        await connection.feed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x95\n\xd4\r\n\x8b")
    (message,) = faults(caplog)
    assert "TLS" in message


@pytest.mark.parametrize(
    ("request_", "cause"), [(GET, "without TLS"), (b"\x00\x01\x02 nonsense", "TLS")]
)
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_no_tls_on_a_port_with_it(
    loop: Any, request_: bytes, cause: str, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(port: int) -> int:
        with Client(port) as client:
            client.send(request_)
            with suppress(ConnectionError):
                client.rest()
            return client.sock.getsockname()[1]  # type: ignore[no-any-return]

    async with Server(hello, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        port = await asyncio.to_thread(talk, server.port)
    (message,) = faults(caplog)
    assert message.startswith(f"127.0.0.1:{port}: ")
    assert cause in message


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_client_that_does_not_trust_us(
    loop: Any, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context()
    async with Server(hello, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(Client, server, context)
    assert len(faults(caplog)) <= 1
    assert "Traceback" not in caplog.text


def test_flood_of_faults_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with connect(hello) as connection:
            for number in range(1000):
                connection.context.note(("127.0.0.1", number), "is at fault")
            assert len(faults(caplog)) <= 20
            await until(lambda: "more" in caplog.messages[-1])

    with asyncio.Runner(loop_factory=quick_loop(asyncio.SelectorEventLoop, 100)) as runner:
        runner.run(main())
    written = sum("is at fault" in message for message in caplog.messages)
    assert str(1000 - written) in caplog.messages[-1]


# Clients that come and go are no news.


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_clients_that_leave_are_no_news(
    loop: Any, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send(START)
        for _ in range(100):
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    def talk(port: int, context: ssl.SSLContext | None) -> None:
        for request in (b"", GET[:10], GET, GET + GET, upload(10) + b"x"):
            for leave in (Client.close, Client.reset):
                client = Client(port, context)
                client.send(request)
                leave(client)
                client = Client(port, context)
                client.send(request)
                if request.startswith(GET):
                    client.file.readline()
                leave(client)

    for context, given in ((None, {}), (tls.context(), {"ssl_certfile": tls.certfile})):
        options = {"port": 0, "lifespan": "off", "access_log": False, **given}
        async with Server(app, **options) as server:
            await asyncio.to_thread(talk, server.port, context)
    assert caplog.text == ""


# The set-up of a process; the library itself sets up nothing.

APP = """
import logging, logging.config
{setup}
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"hello"}})
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Runs an app with some logging of its own through a request; returns stderr and stdout."""

    def run(setup: str = "", *options: str, requests: bytes = GET) -> tuple[str, str]:
        (tmp_path / "logging_app.py").write_text(APP.format(setup=setup))
        words = ["--port", "0", "--lifespan", "off", *options, "logging_app:app"]
        with Command(*words, cwd=tmp_path) as command:
            with Client(command.port) as client:
                assert client.response(requests).body == b"hello"
            assert command.stop() == 0
        assert "Traceback" not in command.log
        return command.log, command.output

    return run


def test_process_without_logging_of_its_own(run: Any) -> None:
    log, output = run()
    for line in log.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO ", line), line
    assert "\x1b" not in log + output
    (line,) = output.splitlines()
    day_and_clock, rest = line[:19], line[20:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", day_and_clock)
    assert LINE.fullmatch(rest)


def test_process_without_access_log(run: Any) -> None:
    assert run("", "--no-access-log")[1] == ""


@pytest.mark.parametrize(("option", "coloured"), [("--use-colors", 1), ("--no-use-colors", 0)])
def test_process_with_colours(option: str, coloured: int, run: Any) -> None:
    log, _ = run("", option)
    assert ("\x1b[" in log) == coloured


def test_process_with_access_handler(run: Any, tmp_path: Path) -> None:
    log, output = run("logging.getLogger('tinyasgi.access').addHandler(logging.FileHandler('log'))")
    assert output == ""
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert LINE.fullmatch(line)
    assert '"GET / ' not in log


def test_process_with_root_configured(run: Any) -> None:
    """The server's lines go where the user's go, in the user's format, and only there."""
    log, output = run("logging.basicConfig(level='INFO', format='OWN %(name)s %(message)s')")
    lines = log.splitlines()
    assert lines
    assert all(line.startswith("OWN ") for line in lines)
    assert len(lines) == len(set(lines))
    assert (output + log).count('"GET / HTTP/1.1"') == 1


def test_process_with_dict_config(run: Any) -> None:
    """It disables loggers that it does not name, by default: not ours."""
    log, output = run("logging.config.dictConfig({'version': 1})")
    assert "http://127.0.0.1:" in log
    assert output.count('"GET / HTTP/1.1"') == 1


def test_process_whose_output_nobody_reads(tmp_path: Path) -> None:
    (tmp_path / "logging_app.py").write_text(APP.format(setup=""))
    reader, writer = os.pipe()
    words = ["--port", "0", "--lifespan", "off", "logging_app:app"]
    with Command(*words, cwd=tmp_path, stdout=writer) as command:
        os.close(writer)
        os.close(reader)
        for _ in range(3):
            with Client(command.port) as client:
                assert client.response(GET).body == b"hello"
        assert command.stop() == 0
    assert "Traceback" not in command.log
