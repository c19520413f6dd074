"""What is logged, and what is not."""

import asyncio
import logging
import os
import re
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    GET,
    LOOPS,
    Certificates,
    Client,
    Command,
    hello,
    in_loop,
    quick_loop,
    until,
    upload,
)

from tinyasgi import Server
from tinyasgi.testing import connect, serve

START = {"type": "http.response.start", "status": 200}
LINE = re.compile(r'(\S+) "(\S+) (\S+) HTTP/(1\.[01])" (\d+) (\d+) B (\d+\.\d) ms( aborted)?')


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
