"""The process: start, exit codes and error messages."""

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Client, Command, hello
from tests.support.processes import SLEEP, wait_until
from tinyasgi import Config, run
from tinyasgi.testing import serve

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals end a process at once")

APPS = """
import asyncio, contextlib, sys

def say(what):
    sys.stderr.write(what + "\\n")  # in one write, because the log shares stderr

async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})

async def lifespan(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("lifespan shutdown")
    await send({"type": "lifespan.shutdown.complete"})

async def watched(scope, receive, send):
    await (lifespan if scope["type"] == "lifespan" else hello)(scope, receive, send)

async def stuck(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        say("request begins")
        try:
            await asyncio.Event().wait()
        finally:
            say("request is cancelled")

async def stream(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"goodbye"})

async def leaves(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        sys.exit(7)

async def slow_start(scope, receive, send):
    await receive()
    say("starting")
    try:
        await asyncio.Event().wait()
    finally:
        say("start is cancelled")

async def fails_in_startup(scope, receive, send):
    await receive()
    raise ValueError("no database")

async def awaits_a_cancelled_task():
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task

async def cancelled_in_startup(scope, receive, send):
    await receive()
    await awaits_a_cancelled_task()

async def cancelled_in_shutdown(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await awaits_a_cancelled_task()

@contextlib.asynccontextmanager
async def cancelled_factory():
    await awaits_a_cancelled_task()
    yield hello

async def says_failed(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

async def fails_in_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("can't close")

async def hangs_in_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("hanging")
        await asyncio.Event().wait()

def create():
    return hello

async def create_later():
    return hello

@contextlib.asynccontextmanager
async def create_and_close():
    say("factory enters")
    yield hello
    say("factory exits")

def cannot_create():
    raise ValueError("no settings")

async def two(scope, receive): ...

number = 7
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Command]:
    """Return a function that starts the command in a directory with a few modules."""
    (tmp_path / "apps.py").write_text(APPS)
    (tmp_path / "raising.py").write_text("raise ValueError('at import')\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(9)\n")
    (tmp_path / "wanting.py").write_text("import nonexistent_dependency\n")
    (tmp_path / "waiting.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\n" + SLEEP
    )

    def start(app: str, *options: str, **environment: str) -> Command:
        return Command("--port", "0", *options, app, cwd=tmp_path, **environment)

    return start


def end(command: Command, code: int) -> str:
    """Wait for the exit; return the log."""
    with command:
        assert command.wait() == code, command.log
    return command.log


# Successful start and shutdown.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_start_line(loop: str, http: str, start: Any) -> None:
    pytest.importorskip(loop)
    pytest.importorskip(http)
    with start("apps:watched", "--loop", loop, "--http", http) as command:
        assert command.port > 0
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop() == 0
    line = command.log.splitlines()[0]
    for word in (
        f"http://127.0.0.1:{command.port}",
        loop,
        http,
        str(command.process.pid),
        "Ctrl-C",
    ):
        assert word in line
    assert "lifespan shutdown\n" in command.log
    assert "Traceback" not in command.log
    assert "Warning" not in command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(number: int, start: Any) -> None:
    with start("apps:watched") as command, Client(command.port) as idle:
        idle.response(GET)
        assert command.stop(number) == 0
        assert idle.rest() == b""
    assert command.log.count("lifespan shutdown\n") == 1
    assert "Traceback" not in command.log


def test_stop_before_anyone_came(start: Any) -> None:
    with start("apps:watched") as command:
        command.port  # noqa: B018
        assert command.stop() == 0
    assert "lifespan shutdown\n" in command.log


def test_stop_with_a_stream(start: Any) -> None:
    with start("apps:stream") as command, Client(command.port) as client:
        client.send(GET)
        client.head()
        assert client.chunk() == b"hello"
        command.process.send_signal(signal.SIGTERM)
        assert list(client.chunks()) == [b"goodbye"]
        client.close()
        assert command.wait() == 0
    assert "lifespan shutdown\n" in command.log
    assert "Traceback" not in command.log


def test_deadline_of_a_stop(start: Any) -> None:
    with (
        start("apps:stuck", "--timeout-graceful-shutdown", "0.2") as command,
        Client(command.port) as client,
    ):
        client.send(GET)
        command.wait_for("request begins")
        assert command.stop() == 0
    assert "request is cancelled\n" in command.log
    assert command.log.index("request is cancelled\n") < command.log.index("lifespan shutdown\n")
    assert "Traceback" not in command.log


@pytest.mark.parametrize("numbers", [(15, 15), (2, 2), (15, 2)])
def test_second_signal_quits(numbers: tuple[int, int], start: Any) -> None:
    with (
        start("apps:stuck", "--timeout-graceful-shutdown", "600") as command,
        Client(command.port) as client,
    ):
        client.send(GET)
        command.wait_for("request begins")
        command.process.send_signal(numbers[0])
        command.wait_for("stopping")
        assert command.stop(numbers[1]) == 0
    assert "request is cancelled\n" in command.log
    assert "lifespan shutdown\n" in command.log
    assert "Traceback" not in command.log


def test_second_signal_while_lifespan_shuts_down(start: Any) -> None:
    with start("apps:hangs_in_shutdown", "--timeout-graceful-shutdown", "600") as command:
        command.port  # noqa: B018
        command.process.send_signal(signal.SIGTERM)
        command.wait_for("hanging")
        assert command.stop() == 0
    assert "Traceback" not in command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("app", ["apps:slow_start", "waiting"])
def test_signal_during_the_start(app: str, number: int, start: Any) -> None:
    with start(app) as command:
        command.wait_for("starting|importing")
        assert command.stop(number) == 0
    assert "Traceback" not in command.log
    assert "http://" not in command.log
    assert app == "waiting" or "start is cancelled\n" in command.log


def test_request_that_exits(start: Any) -> None:
    """The exception does not end the process."""
    with start("apps:leaves") as command:
        with Client(command.port) as client:
            for _ in range(2):
                assert client.response(GET).status == 500
        assert command.stop() == 0
    assert command.log.count("SystemExit: 7") == 2
    assert "lifespan shutdown\n" in command.log


@pytest.mark.parametrize("factory", ["create", "create_later", "create_and_close"])
def test_factory(factory: str, start: Any) -> None:
    with start(f"apps:{factory}", "--factory") as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop() == 0
    assert "Traceback" not in command.log
    assert ("factory exits\n" in command.log) == (factory == "create_and_close")


def test_unix_socket(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket file of a killed server is replaced."""
    monkeypatch.chdir(tmp_path)
    with start("apps:hello", "--uds", "sock") as command:
        command.wait_for(r"unix:\S+/sock")
        command.process.kill()
        command.wait()
    assert os.path.exists("sock")
    with start("apps:hello", "--uds", "sock") as command:
        command.wait_for(r"unix:\S+/sock")
        with Client("sock") as client:
            assert client.response(GET).body == b"hello"
        assert "another server" in end(start("apps:hello", "--uds", "sock"), 3)
        assert command.stop() == 0
    assert not os.path.exists("sock")


def test_options_from_the_environment(start: Any) -> None:
    with start("apps:hello", TINYASGI_HEADER="X-A: b", TINYASGI_LIFESPAN="off") as command:
        with Client(command.port) as client:
            assert client.response(GET).fields["x-a"] == "b"
        assert command.stop() == 0
    assert "WARNING" not in command.log


def test_directory_of_the_app(start: Any, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "inner_apps.py").write_text(APPS)
    with start("inner_apps:hello", "--app-dir", "inner") as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop() == 0


# Errors that end the process: one line and an exit code.


def test_port_taken(start: Any) -> None:
    with serve(hello) as server:
        log = end(start("apps:hello", "--port", str(server.port)), 3)
    assert log.count("\n") == 1
    assert str(server.port) in log


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("no_such_module:app", ["no_such_module"]),
        ("apps:helo", ["'helo'", "hello"]),
        ("apps:number", ["number", "int"]),
        ("apps.py:hello", ["module"]),
        ("apps:two", ["ASGI 3", "WSGI"]),
        ("apps:create", ["--factory"]),
    ],
)
def test_no_app(app: str, words: list[str], start: Any) -> None:
    log = end(start(app), 3)
    assert log.count("\n") == 1
    for word in words:
        assert word in log


@pytest.mark.parametrize(
    ("app", "error"),
    [("raising:app", "ValueError: at import"), ("wanting:app", "ModuleNotFoundError")],
)
def test_module_that_raises(app: str, error: str, start: Any) -> None:
    log = end(start(app), 3)
    assert log.count("Traceback") == 1
    assert error in log
    assert f"{app.partition(':')[0]}.py" in log


def test_module_that_leaves(start: Any) -> None:
    assert "Traceback" not in end(start("leaving:app"), 9)


def test_factory_that_raises(start: Any) -> None:
    log = end(start("apps:cannot_create", "--factory"), 3)
    assert log.count("Traceback") == 1
    assert "ValueError: no settings" in log


def test_startup_that_raises(start: Any) -> None:
    log = end(start("apps:fails_in_startup"), 3)
    assert log.count("Traceback") == 1
    assert "ValueError: no database" in log
    assert "http://" not in log


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["single", "workers"])
@pytest.mark.parametrize(
    ("app", "options"),
    [
        ("cancelled_in_startup", []),
        ("cancelled_in_shutdown", []),
        ("cancelled_factory", ["--factory"]),
    ],
)
def test_cancelled_error_of_the_app(
    app: str, options: list[str], workers: list[str], start: Any
) -> None:
    with start(f"apps:{app}", *workers, *options) as command:
        if app == "cancelled_in_shutdown":
            command.port  # noqa: B018
            assert command.stop() == (0 if workers else 3)
        else:
            assert command.wait() == 3
    assert "asyncio.exceptions.CancelledError" in command.log
    assert "in awaits_a_cancelled_task" in command.log


def test_startup_that_says_so(start: Any) -> None:
    log = end(start("apps:says_failed"), 3)
    assert log.count("\n") == 1
    assert "no database" in log


def test_shutdown_that_raises(start: Any) -> None:
    with start("apps:fails_in_shutdown") as command:
        command.port  # noqa: B018
        assert command.stop() == 3
    assert command.log.count("Traceback") == 1
    assert "ValueError: can't close" in command.log


def test_wrong_certificate(start: Any) -> None:
    log = end(start("apps:hello", "--ssl-certfile", "nothing.pem"), 2)
    assert log.count("\n") == 1
    assert "nothing.pem" in log


def test_loop_that_is_not_installed(start: Any, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    log = end(start("apps:hello", "--loop", "uvloop"), 2)
    assert log.count("\n") == 1
    assert "uvloop" in log


def test_parser_that_is_not_installed(start: Any, tmp_path: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ImportError")
    log = end(start("apps:hello", "--http", "httptools"), 2)
    assert log.count("\n") == 1
    assert "httptools" in log


COLLECTED = """
import gc
{}
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": b"%d" % gc.get_threshold()[0]}})
"""


@pytest.mark.parametrize(("line", "seen"), [("", b"10000"), ("gc.set_threshold(900)", b"900")])
def test_garbage_collection(start: Any, tmp_path: Path, line: str, seen: bytes) -> None:
    """Garbage collection is less frequent, unless the app has set its own threshold."""
    (tmp_path / "collected.py").write_text(COLLECTED.format(line))
    command = start("collected:app")
    with Client(command.port) as client:
        assert client.response(GET).body == seen
    assert command.stop() == 0


# `run` called from a program.


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo the process-wide settings of a run."""
    loggers = [logging.getLogger(f"tinyasgi{name}") for name in ("", ".server", ".access")]
    before = [(logger, vars(logger).copy(), logger.handlers[:]) for logger in loggers]
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    for logger, attributes, handlers in before:
        vars(logger).update(attributes)
        logger.handlers[:] = handlers
        logger.setLevel(logger.level)  # clears the cache of levels
    gc.unfreeze()


@pytest.mark.usefixtures("own_logging")
def test_run_that_can_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    """The script ends with an exit code, as with `uvicorn.run`."""
    with serve(hello) as server:
        for app, port, code in [
            (hello, -1, 2),
            ("no_such_module:app", 0, 3),
            (hello, server.port, 3),
        ]:
            with pytest.raises(SystemExit) as leaving:
                run(app, port=port)
            assert leaving.value.code == code
    assert capsys.readouterr().err.count("\n") == 3


def test_run_in_a_notebook() -> None:
    async def cell() -> None:
        run(hello)

    with pytest.raises(RuntimeError, match=r"asyncio\.create_task\(tinyasgi\.serve\(app\)\)"):
        asyncio.run(cell())


@pytest.mark.usefixtures("own_logging")
def test_run_in_a_thread(tmp_path: Path) -> None:
    """Outside the main thread, signals are not handled. --limit-max-requests ends the server."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            options = {"lifespan": "off", "loop": "asyncio", "limit_max_requests": 1}
            run(hello, fd=listener.fileno(), **options)

        thread = threading.Thread(target=work)
        thread.start()
        with Client(listener.getsockname()[1]) as client:
            assert client.response(GET).status == 200
        thread.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_closed_standard_streams(words: list[str], tmp_path: Path) -> None:
    """Sockets must not get the numbers of the standard streams."""
    (tmp_path / "apps.py").write_text(APPS)
    command = [sys.executable, "-m", "tinyasgi", "--uds", "socket", *words, "apps:hello"]
    script = tmp_path / "script.py"
    script.write_text(f"import os\nos.closerange(0, 3)\nos.execv({command[0]!r}, {command!r})")
    path = str(tmp_path / "socket")

    def is_there() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(path) == 0

    with Command(script=str(script), cwd=tmp_path) as process:
        wait_until(is_there)
        with Client(path) as client:
            assert client.response(GET).body == b"hello"
        process.send(signal.SIGTERM)
        assert process.wait() == 0


# Options that scripts of uvicorn pass.


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The options with which `run` would serve; it does not serve."""
    found: list[Config] = []

    def serve(app: Any, config: Config, ending: Any, exits: bool) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr(sys.modules["tinyasgi.run"], "_serve", serve)
    for name in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_variables_of_platforms(configs: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are defaults, unless the caller has made a `Config`."""
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1,unix")
    run("app:app")
    run("app:app", workers=2, forwarded_allow_ips="*")
    run("app:app", Config(port=1))
    first, second, third = configs
    assert (first.workers, first.forwarded_allow_ips) == (3, ("10.0.0.1", "unix"))
    assert (second.workers, second.forwarded_allow_ips) == (2, ("*",))
    assert (third.workers, third.forwarded_allow_ips) == (None, Config().forwarded_allow_ips)


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({}, {"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY=many: expected a whole number"),
        ({"prot": 80}, {}, "unknown option prot; did you mean port?"),
        ({"reload_delay": 2}, {}, "reload_delay=2: there is no delay"),
        ({"graceful_timeout": 2}, {}, "unknown option graceful_timeout; write timeout_graceful_"),
    ],
)
def test_option_error_is_one_line(
    options: dict[str, Any],
    variables: dict[str, str],
    message: str,
    configs: list[Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as leaving:
        run("app:app", **options)
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tinyasgi: error: {message}")
    assert configs == []


def test_log_config_that_workers_cannot_get(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        run("app:app", workers=2, port=0, log_config={"formatters": {"a": {"()": lambda: None}}})
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("log_config={'formatters.* can't be passed to workers: Can't ", line)


def test_one_worker_for_an_object(tmp_path: Path) -> None:
    """As in uvicorn, it is a single process: no other process could import the app."""
    (tmp_path / "script.py").write_text(
        APPS + "\nimport tinyasgi\ntinyasgi.run(watched, port=0, workers=1)\n"
    )
    with Command(script="script.py", cwd=tmp_path) as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert f"pid {command.process.pid})" in command.log
        assert "1 worker" not in command.log
        assert command.stop() == 0


def test_loop_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APPS + "\ndef make():\n    say('made')\n    return asyncio.SelectorEventLoop()\n"
    )
    with Command("--port=0", "--loop=app:make", "app:watched", cwd=tmp_path) as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop() == 0
    assert command.log.count("made\n") == 1


def test_loop_that_cannot_be_created(start: Any, tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(
        "def make():\n    raise OSError(24, 'Too many open files')\n"
    )
    log = end(start("apps:hello", "--loop", "loops:make"), 3)
    assert "error: the event loop can't be created: [Errno 24] Too many open files" in log
    assert log.count("\n") == 1


def test_changed_directory(tmp_path: Path) -> None:
    """`--chdir` applies to the settings file, the app and relative paths."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "app.py").write_text(APPS)
    (folder / "tinyasgi.toml").write_text('app = "app:watched"\nport = 0\npid = "server.pid"')
    with Command("--chdir", "site", cwd=tmp_path) as command:
        assert command.port
        assert (folder / "server.pid").exists()
        assert command.stop() == 0
    with Command("--chdir", "missing", cwd=tmp_path) as command:
        assert command.wait() == 2
    assert command.log == "tinyasgi: error: --chdir missing: No such file or directory\n"
