"""Logging of client errors, the set-up of loggers, `--log-config` and the formatters."""

import asyncio
import io
import json
import logging
import os
import re
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.support.helpers import (
    ACCESS_LINE,
    GET,
    LOOPS,
    START,
    Certificates,
    Client,
    Command,
    hello,
    in_loop,
    quick_loop,
    until,
    upload,
    workers_option,
)
from tinyasgi import Config, Server
from tinyasgi.config.kinds import OptionError
from tinyasgi.logs.formatters import JSONFormatter, TextFormatter
from tinyasgi.logs.setup import _File, reopen_files, set_up_loggers, set_up_process
from tinyasgi.testing import connect, serve

# Client errors: one line each, with peer and cause.


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages of the server. Each is one printable line."""
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
    assert message.startswith(f"127.0.0.1:{port}: {status}: ")
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
    assert message.startswith("unix: 400: ")


def test_tls_on_a_port_without(caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.create_default_context()
    with serve(hello, lifespan="off") as server, pytest.raises(ssl.SSLError):
        Client(server, context)
    (message,) = faults(caplog)
    assert message.startswith("127.0.0.1:")
    assert "TLS" in message


@in_loop
async def test_tls_hello_with_what_looks_like_a_line_end(caplog: pytest.LogCaptureFixture) -> None:
    """A TLS ClientHello contains random bytes."""
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
                connection.context.log_peer_error(("127.0.0.1", number), "is at fault")
            assert len(faults(caplog)) <= 20
            await until(lambda: "more" in caplog.messages[-1])

    with asyncio.Runner(loop_factory=quick_loop(asyncio.SelectorEventLoop, 100)) as runner:
        runner.run(main())
    written = sum("is at fault" in message for message in caplog.messages)
    assert str(1000 - written) in caplog.messages[-1]


# Disconnects are not logged.


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


# The set-up of a process. `Server` itself configures no logging.

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
    """Return a function that serves one request and returns stderr and stdout.

    setup: code of the app that configures logging.
    """

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
    assert ACCESS_LINE.fullmatch(rest)


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
    assert ACCESS_LINE.fullmatch(line)
    assert '"GET / ' not in log


@pytest.mark.parametrize(
    "setting", ["setLevel('WARNING')", "addFilter(lambda record: record.status != 200)"]
)
def test_process_with_an_access_logger_that_passes_nothing(setting: str, run: Any) -> None:
    assert run(f"logging.getLogger('tinyasgi.access').{setting}")[1] == ""


def test_process_with_an_access_logger_that_is_disabled(run: Any) -> None:
    assert run("logging.getLogger('tinyasgi.access').disabled = True")[1] == ""


def test_process_with_root_configured(run: Any) -> None:
    """Server messages go only to the handlers of the app, in the format of the app."""
    log, output = run("logging.basicConfig(level='INFO', format='OWN %(name)s %(message)s')")
    lines = log.splitlines()
    assert lines
    assert all(line.startswith("OWN ") for line in lines)
    assert len(lines) == len(set(lines))
    assert (output + log).count('"GET / HTTP/1.1"') == 1


def test_process_with_dict_config(run: Any) -> None:
    """By default, `dictConfig` disables loggers that it does not name. tinyasgi enables its own."""
    log, output = run("logging.config.dictConfig({'version': 1})")
    assert "http://127.0.0.1:" in log
    assert output.count('"GET / HTTP/1.1"') == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_supervisor_with_dict_config(run: Any) -> None:
    setup = "logging.config.dictConfig({'version': 1})"
    log, output = run(setup, "--preload", "--workers", "2")
    assert "http://127.0.0.1:" in log
    assert log.endswith(" INFO stopped\n")
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


@contextmanager
def fresh() -> Iterator[None]:
    """Reset the loggers of tinyasgi as in a new process, without the handlers of pytest."""
    logger, server = logging.getLogger("tinyasgi"), logging.getLogger("tinyasgi.server")
    logger.propagate = False
    yield
    server.handlers.clear()
    server.propagate = logger.propagate = True
    logger.setLevel(logging.NOTSET)


# Apps and libraries that configure logging.

IN_LIFESPAN = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        logging.config.dictConfig({"version": 1})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})
hello = app
"""
OWN_HANDLER = "logging.getLogger('tinyasgi').addHandler(logging.StreamHandler())"
IN_FACTORY = """
def app():
    logging.config.dictConfig({"version": 1})
    return hello
async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""
#: Passes all records to another library, as in loguru's documentation.
INTERCEPTED = """
import sys
class Intercepting(logging.Handler):
    def emit(self, record):
        print("OWN", record.getMessage(), file=sys.stderr)
logging.basicConfig(handlers=[Intercepting()], level=0, force=True)
"""
DJANGO = """
import django.conf
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
console = {"class": "logging.StreamHandler", "formatter": "own"}
LOGGING = {"version": 1, "handlers": {"console": console}, "root": {"handlers": ["console"]}}
LOGGING["formatters"] = {"own": {"format": "OWN %(message)s"}}
LOGGING["root"]["level"] = "INFO"
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
django.conf.settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING=LOGGING)
django_app = get_asgi_application()
"""


@pytest.mark.parametrize(
    ("setup", "options", "own"),
    [
        (IN_LIFESPAN, ["--lifespan", "on", "logging_app:hello"], False),
        (IN_FACTORY, ["--factory", "logging_app:app"], False),
        (INTERCEPTED, ["logging_app:app"], True),
        (DJANGO, ["logging_app:django_app"], True),
        (
            "logging.getLogger('tinyasgi').addHandler(logging.StreamHandler())",
            ["logging_app:app"],
            False,
        ),
    ],
    ids=["lifespan", "factory", "loguru", "django", "tinyasgi"],
)
def test_who_configures_logging_keeps_it(
    setup: str, options: list[str], own: bool, tmp_path: Path
) -> None:
    """No line is doubled or lost, and the root logger is not changed."""
    text = APP.format(setup=setup) if "hello" not in options[-1] + options[0] else ""
    if options[0] in ("--lifespan", "--factory"):
        text = "import logging, logging.config\n" + setup
    (tmp_path / "logging_app.py").write_text(text)
    if "--lifespan" not in options:
        options = ["--lifespan", "off", *options]
    with Command("--port", "0", *options, cwd=tmp_path) as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop() == 0
    for what in (r"on http://", r"stopping$", r"stopped$"):
        (line,) = [line for line in command.log.splitlines() if re.search(what, line)]
        assert line.startswith("OWN ") == own
    assert (command.output + command.log).count('"GET / HTTP/1.1" 200') == 1


@fresh()
def test_level_of_the_app_stays() -> None:
    logger = logging.getLogger("tinyasgi")
    set_up_loggers(Config(log_level="debug"))
    assert logger.level == logging.DEBUG
    set_up_loggers(Config(log_level="info"))
    assert logger.level == logging.INFO
    logger.setLevel("ERROR")
    set_up_loggers(Config(log_level="debug"))
    assert logger.level == logging.ERROR


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
@pytest.mark.parametrize("option", ["access_log_file", "error_log_file"])
@pytest.mark.parametrize("workers", ["", "2"])
def test_fifo(option: str, workers: str, tmp_path: Path) -> None:
    """A FIFO without a reader is an error. The server does not wait for a reader."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "app.py").write_text("async def app(scope, receive, send): ...")
    name = f"--{option.replace('_', '-')}"
    words = ["--port=0", *workers_option(workers), f"{name}=fifo", "app:app"]
    with Command(*words, cwd=tmp_path) as command:
        assert command.wait() == 2
    assert f"{name} {tmp_path}/fifo can't be opened: no process reads" in command.log
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with Command(*words, cwd=tmp_path) as command, os.fdopen(reader, "rb") as file:
        found = b""
        while option == "error_log_file" and b"Ctrl-C" not in found:
            found += file.read() or b""
        if option == "access_log_file":
            assert command.port
        assert command.stop() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is full")
@pytest.mark.parametrize("again", [reopen_files, lambda: set_up_loggers(Config())])
@fresh()
def test_disk_is_full_when_its_log_file_is_closed(
    again: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    set_up_loggers(Config(error_log_file=str(log)))
    logger = logging.getLogger("tinyasgi.server")
    logger.error("first")
    log.unlink()
    again()
    logger.error("second")
    text = log.read_text() if again is reopen_files else capsys.readouterr().err
    assert "second" in text
    if again is reopen_files:
        assert "are lost: No space left on device" in text
    set_up_loggers(Config())


@fresh()
def test_error_log_file_is_obeyed(tmp_path: Path) -> None:
    ours, theirs = logging.getLogger("tinyasgi.server"), io.StringIO()
    handler = logging.StreamHandler(theirs)
    logging.getLogger("tinyasgi").addHandler(handler)
    set_up_loggers(Config(error_log_file=str(tmp_path / "log")))
    ours.error("first")
    set_up_loggers(Config())
    ours.error("second")
    logging.getLogger("tinyasgi").removeHandler(handler)
    assert (tmp_path / "log").read_text().endswith(" ERROR first\n")
    assert theirs.getvalue() == "second\n"


# `--log-config`.

AS_JSON = """{
  "formatters": {"json": {"()": "tinyasgi.logs.JSONFormatter"}},
  "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
  "loggers": {"tinyasgi": {"handlers": ["console"], "level": "INFO"}}
}"""
AS_TOML = """
[formatters.json]
"()" = "tinyasgi.logs.JSONFormatter"
[handlers.console]
class = "logging.StreamHandler"
formatter = "json"
[loggers.tinyasgi]
handlers = ["console"]
level = "INFO"
"""
AS_YAML = """
formatters: {json: {(): tinyasgi.logs.JSONFormatter}}
handlers: {console: {class: logging.StreamHandler, formatter: json}}
loggers: {tinyasgi: {handlers: [console], level: INFO}}
"""


@pytest.mark.parametrize(
    ("name", "text"), [("log.json", AS_JSON), ("log.toml", AS_TOML), ("log.yaml", AS_YAML)]
)
@pytest.mark.parametrize("workers", ["", "2"])
def test_log_config(name: str, text: str, workers: str, run: Any, tmp_path: Path) -> None:
    if name == "log.yaml":
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    log, output = run("", "--log-config", name, *workers_option(workers))
    lines = [json.loads(line) for line in log.splitlines()]
    (line,) = [line for line in lines if line["logger"] == "tinyasgi.access"]
    assert (line["status"], line["path"]) == (200, "/")
    assert output == ""
    assert [line["message"] for line in lines][-1] == "stopped"


def test_log_config_of_the_root_logger(run: Any, tmp_path: Path) -> None:
    text = AS_JSON.replace('"loggers": {"tinyasgi"', '"version": 1, "loggers": {""')
    (tmp_path / "log.json").write_text(text)
    log, output = run("", "--log-config", "log.json", "--log-format", "json")
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert messages[1:] == ["stopping", "stopped"]
    assert json.loads(output)["status"] == 200


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("log.json", "{", "Expecting property name"),
        ("log.json", "[]", "the top level must be a mapping"),
        ("log.json", '{"version": 2}', "Unsupported version: 2"),
        (
            "log.json",
            '{"root": {"handlers": ["a"]}}',
            "Unable to add handler",
        ),
        ("log.toml", "a = ", "Invalid value"),
        ("log.yaml", "a: [", "while parsing a flow"),
        ("log.ini", "[a]", "formatters"),
        ("log", "", "must end in .json"),
    ],
)
def test_wrong_log_config(name: str, text: str, cause: str, tmp_path: Path) -> None:
    if name == "log.yaml":
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    with pytest.raises(OptionError) as raised:
        set_up_process(Config(log_config=str(tmp_path / name)))
    message = str(raised.value)
    assert message.startswith(f"log_config={str(tmp_path / name)!r} can't be used: ")
    assert cause in message
    assert "\n" not in message


def test_yaml_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.yml").write_text("version: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(OptionError, match="needs PyYAML"):
        set_up_process(Config(log_config=str(tmp_path / "log.yml")))


# Formatters.


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    return logging.LogRecord("a", logging.WARNING, "", 0, message, args, None, **more)


@hypothesis.given(st.text(), st.text())
@hypothesis.example(
    "\r2026-01-01 00:00:00 INFO all is well", "\n2026-01-01 00:00:00 INFO\x1b[2J\u2028\x85"
)
def test_only_a_record_begins_a_line(message: str, error: str) -> None:
    try:
        raise ValueError(error)
    except ValueError as raised:
        made = record("%s", message)
        made.exc_info = (ValueError, raised, raised.__traceback__)
    text = TextFormatter().format(made)
    first, *others = text.split("\n")
    assert first.split(" ", 3)[2] == "WARNING"
    assert all(line.startswith("  ") for line in others)
    assert all(character.isprintable() or character in "\n\t" for character in text)
    assert len(text.splitlines()) == 1 + len(others)


def test_letters_of_all_languages_stay() -> None:
    assert TextFormatter().format(record("zażółć 漢字 🎉")).endswith("zażółć 漢字 🎉")


@pytest.mark.parametrize(
    ("terminal", "use_colors", "environment", "coloured"),
    [
        (True, None, {}, True),
        (False, None, {}, False),
        (True, None, {"NO_COLOR": "1"}, False),
        (True, None, {"NO_COLOR": ""}, True),
        (True, False, {}, False),
        (False, True, {"NO_COLOR": "1"}, True),
    ],
)
@fresh()
def test_colours(
    terminal: bool,
    use_colors: bool | None,
    environment: dict[str, str],
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_loggers(Config(use_colors=use_colors))
    logging.getLogger("tinyasgi.server").error("ERROR")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("\x1b[31mERROR\x1b[0m ERROR" if coloured else " ERROR ERROR")
    assert ("\x1b" in line) == coloured


def test_message_that_is_cut_by_a_full_disk(tmp_path: Path) -> None:
    """The rest of the message is written later. The next message starts a new line."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "error.log"
    handler = _File(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        for text in ("first " + "x" * 100_000, "second"):
            handler.handle(logging.makeLogRecord({"msg": text}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    handler.handle(logging.makeLogRecord({"msg": "third"}))
    handler.close()
    words = [line.split()[0] for line in path.read_text().splitlines()]
    assert words == ["first", "second", "third"]


class Mute(Exception):
    """Its `str` and `repr` raise an exception."""

    def __str__(self) -> str:
        raise LookupError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("values", "key", "shown"),
    [
        ({"exc_info": (Mute, Mute(), None)}, "exception", "Mute: <Mute, whose str() failed>"),
        ({"msg": "%s", "args": (Mute(),)}, "message", "%s <tuple, whose repr() failed>"),
        ({"msg": Mute()}, "message", "<Mute, whose str() failed> ()"),
        ({"extra": Mute()}, "extra", "<Mute, whose repr() failed>"),
    ],
)
def test_json_of_values_that_can_not_be_shown(values: Any, key: str, shown: str) -> None:
    record = logging.makeLogRecord({"msg": "text", **values})
    assert json.loads(JSONFormatter().format(record))[key] == shown


def test_json_of_a_forked_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formatter that was created before the fork shows the slot and the process id."""
    monkeypatch.delenv("TINYASGI_WORKER", raising=False)
    formatter = JSONFormatter()
    assert "worker" not in json.loads(formatter.format(record("before")))
    monkeypatch.setenv("TINYASGI_WORKER", "3")
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    line = json.loads(formatter.format(record("after")))
    assert (line["worker"], line["pid"]) == (3, 4711)
