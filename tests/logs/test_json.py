"""`--log-format json`: every line of stdout and stderr is a JSON object."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Client, Command, Response, workers_option

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

KEYS = ["time", "level", "logger", "message", "pid"]
ACCESS_KEYS = ["client", "method", "path", "query", "version", "status", "bytes", "duration_ms"]
ACCESS_KEYS += ["referer", "user_agent", "request_id", "aborted"]

APP = """
import asyncio, gc, logging, os, threading, warnings

warnings.warn("at the import", stacklevel=1)

class Thing:
    def __del__(self):
        raise ValueError("in __del__")

async def fail():
    raise KeyError("in a task")

async def app(scope, receive, send):
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/fail":
        raise ValueError("two\\nlines")
    elif path == "/log":
        extra = {"n": float("nan"), "o": {(): 1}}
        logging.getLogger("app").warning("two\\n%s", "lines", extra=extra)
        logging.getLogger("app").error("%d", "wrong")
    elif path == "/warn":
        warnings.warn("two\\nlines", stacklevel=1)
    elif path == "/task":
        await asyncio.wait([asyncio.create_task(fail())])
        gc.collect()
    elif path == "/thread":
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    elif path == "/del":
        Thing()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def objects(text: str) -> list[dict[str, Any]]:
    """Parse the lines of a text. Each line must be an object with the common keys."""
    found = []
    for line in text.splitlines():
        value = json.loads(line, parse_constant=pytest.fail)
        assert list(value)[: len(KEYS)] == KEYS, line
        assert line.isascii()
        found.append(value)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Command]:
    def start(*words: str, app: str = APP, target: str = "app:app", **environment: Any) -> Command:
        (tmp_path / "app.py").write_text(app)
        options = ["--log-format", "json", "--lifespan", "off", "--port", "0"]
        warned = {"PYTHONWARNINGS": "always"} | environment
        return Command(*options, *words, target, cwd=tmp_path, **warned)

    return start


def get(port: int, target: str) -> Response:
    with Client(port) as client:
        return client.response(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_and_what_goes_wrong_in_them(workers: str, start: Any) -> None:
    with start("--workers", str(workers)) as command:
        for path in ("/", "/fail", "/log", "/warn", "/task", "/thread", "/del", "/a%0Ab?c=%22\\"):
            get(command.port, path)
        for _ in range(50):
            with Client(command.port) as client:
                assert client.response(b"NONS\x1b[31mENSE\r\n\r\n").status == 400
        assert command.stop() == 0
    lines = objects(command.log)
    messages = [line["message"] for line in lines]
    assert sum("UserWarning: at the import" in message for message in messages) == workers
    for message in ("GET /fail HTTP/1.1: exception in the app", "two\nlines", "%d ('wrong',)"):
        assert message in messages
    for error in ("two\nlines", "'in a task'", "division by zero", "in __del__"):
        (line,) = [line for line in lines if line.get("exception", "").endswith(f": {error}")]
        assert line["traceback"].startswith("Traceback")
        assert line["worker"] in range(workers)
    (line,) = [line for line in lines if line["message"] == "two\nlines"]
    assert (line["n"], line["o"]) == ("nan", "{(): 1}")
    assert sum("NONS" in message for message in messages) <= 40
    served = objects(command.output)
    assert [line["status"] for line in served].count(500) == 1
    assert list(served[0]) == [*KEYS, "worker", *ACCESS_KEYS]
    (line,) = [line for line in served if line["path"] == "/a%0Ab"]
    assert line == line | {
        "query": "c=%22\\",
        "method": "GET",
        "client": "127.0.0.1",
        "aborted": False,
        "referer": None,
    }


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        ("logging.warning('a line')", "WARNING:root:a line"),  # calls basicConfig
        ("logging.basicConfig(); logging.warning('a line')", "WARNING:root:a line"),
        ("logging.basicConfig(format='mine: %(message)s'); logging.error('x')", "mine: x"),
    ],
)
def test_root_handlers_of_the_app_keep_their_format(setup: str, expected: str, start: Any) -> None:
    with start(app=f"import logging\n{setup}\n{APP}") as command:
        get(command.port, "/")
        assert command.stop() == 0
    lines = command.log.splitlines()
    assert expected in lines
    (ready,) = [line for line in lines if "on http://" in line]
    assert json.loads(ready)["logger"] == "tinyasgi.server"


@pytest.mark.parametrize("name", ["", "py.warnings"])
def test_handlers_of_the_app_get_warnings_once(name: str, start: Any) -> None:
    handler = f"logging.getLogger({name!r}).addHandler(logging.StreamHandler(sys.stdout))"
    with start("--no-access-log", app=f"import logging, sys\n{handler}\n{APP}") as command:
        get(command.port, "/warn")
        assert command.stop() == 0
    assert command.output.count("UserWarning: two\nlines") == 1
    assert not any("UserWarning" in line["message"] for line in objects(command.log))


@pytest.mark.slow
def test_worker_that_is_killed(start: Any) -> None:
    with start("--workers", "2") as command:
        os.kill(int(get(command.port, "/").body), signal.SIGKILL)
        command.wait_for("SIGKILL")
        command.wait_for("is ready")
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        get(command.port, "/")
        assert command.stop() == 0
    lines = objects(command.log)
    assert {line.get("worker") for line in lines if "SIGKILL" in line["message"]} == {None}
    assert objects(command.output)


def test_single_process(start: Any) -> None:
    with start() as command:
        command.wait_for("on http")
        command.send(signal.SIGHUP)
        command.wait_for("SIGHUP ignored")
        assert command.stop() == 0
    assert objects(command.log)


@pytest.mark.slow
def test_reload_of_an_app_that_fails(start: Any, tmp_path: Path) -> None:
    with start("--reload") as command:
        command.wait_for("on http")
        (tmp_path / "app.py").write_text("import nothing_of_the_kind")
        command.wait_for("waiting for a file change")
        assert command.stop() == 0
    assert any("ModuleNotFoundError" in line["message"] for line in objects(command.log))


CONFIGURED = "import logging; logging.basicConfig(level=20, format='OWN %(message)s')\n"


def test_app_that_has_configured_the_root_logger(start: Any) -> None:
    with start(app=CONFIGURED + APP, PYTHONWARNINGS="ignore") as command:
        get(command.port, "/log")
        assert command.stop() == 0
    own = [line for line in command.log.splitlines() if line.startswith("OWN")]
    others = [line for line in command.log.splitlines() if line.startswith("{")]
    assert own[0] == "OWN two"
    assert not any("tinyasgi" in line for line in own)
    assert [line["level"] for line in objects("\n".join(others))] == ["info"] * 3
    assert len(objects(command.output)) == 1


# Errors at startup.

BROKEN = [
    ([], {}, "import nothing_of_the_kind", "can't import 'app'"),
    (["--factory"], {}, "def app(): raise ValueError", "the app factory raised"),
    (["--workers", "2"], {}, "import nothing_of_the_kind", "can't import 'app'"),
    (["--preload", "--workers", "2"], {}, "import nothing_of_the_kind", "can't import 'app'"),
    ([], {}, "import sys; sys.exit('no database')", "no database"),
    (["--workers", "2"], {}, "import sys; sys.exit('no database')", "no database"),
    (["--lifespan", "on"], {}, "async def app(s, r, S): raise ValueError('two\\nlines')", "lines"),
    (["--ssl-certfile", "missing.pem"], {}, APP, "missing.pem"),
    (["--access-log-format", "%(zz)s"], {}, APP, "unknown field %(zz)s"),
    (["--access-log-format", "%(zz)s", "--workers", "2"], {}, APP, "unknown field %(zz)s"),
    (["--access-log-file", "no/x"], {}, APP, "/no/x can't be opened: No such"),
    (["--error-log-file", "no/x"], {}, APP, "/no/x can't be opened: No such"),
    (["--access-log-file", "no/x", "--workers", "2"], {}, APP, "/no/x can't be opened"),
    (["--log-config", "missing.json"], {}, APP, "/missing.json can't be used: No such"),
]


@pytest.mark.parametrize(("words", "environment", "app", "cause"), BROKEN)
def test_failed_start(words: Any, environment: Any, app: str, cause: str, start: Any) -> None:
    with start(*words, app=app, **{"PYTHONWARNINGS": "ignore"} | environment) as command:
        assert command.wait() in (1, 2, 3)
    line = objects(command.log)[-1]
    assert cause in line["message"]
    assert line["level"] == "error"
    assert command.output == ""


@pytest.mark.parametrize("workers", ["", "2"])
def test_port_in_use(workers: str, start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        with start("--port", port, *workers_option(workers), PYTHONWARNINGS="ignore") as command:
            assert command.wait() == 3
    (line,) = objects(command.log)
    assert port in line["message"]


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--timeout-head", "long"], {}, "--timeout-head long: expected a number"),
        (["--nonsense"], {}, "unknown option --nonsense"),
        (["--use-colors=3"], {}, "--use-colors/--no-use-colors takes no value"),
        ([], {"TINYASGI_BACKLOG": "many"}, "TINYASGI_BACKLOG=many: expected a whole number"),
    ],
)
def test_option_error_is_text(words: Any, environment: Any, message: str, start: Any) -> None:
    """The log format is unknown until all options are parsed."""
    with start(*words, **environment) as command:
        assert command.wait() == 2
    assert command.log.startswith(f"tinyasgi: error: {message}")
    assert command.log.count("\n") == 1


def test_option_error_of_run_is_text() -> None:
    code = "import tinyasgi; tinyasgi.run('app', log_format='json', port=-1)"
    words = [sys.executable, "-c", code]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("tinyasgi: error: port=-1: expected a whole number")


def test_error_that_nobody_catches(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import tinyasgi\n"
        "try:\n"
        "    tinyasgi.run('nothing_of_the_kind', log_format='json')\n"
        "except SystemExit:\n"
        "    pass\n"
        "raise ValueError('two\\nlines')\n"
    )
    command = Command(script="script.py", cwd=tmp_path)
    assert command.wait() == 1
    line = objects(command.log)[-1]
    assert (line["level"], line["exception"]) == ("critical", "ValueError: two\nlines")


def test_failed_start_is_in_the_error_log_file_too(start: Any, tmp_path: Path) -> None:
    with start("--error-log-file", "log", app="1 +", PYTHONWARNINGS="ignore") as command:
        assert command.wait() == 3
    assert (tmp_path / "log").read_text() == command.log
