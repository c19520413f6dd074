"""`tinyasgi --check`: every failure is reported, nothing is served."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="for POSIX")

APPS = """
import sys
from contextlib import asynccontextmanager

async def app(scope, receive, send):
    sys.stderr.write("called\\n")

def wsgi(environ, start_response):
    sys.stderr.write("called\\n")

@asynccontextmanager
async def factory():
    yield app

def failing():
    raise ValueError("no database")

async def task(scope, receive):
    pass
"""


def check(folder: Path, *words: str, **environment: Any) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr."""
    (folder / "apps.py").write_text(APPS)
    with Command("--check", *words, cwd=folder, **environment) as command:
        code = command.wait()
    return code, command.output, command.log


@pytest.mark.parametrize("words", [["apps:app"], ["apps:wsgi"], ["--factory", "apps:factory"]])
@pytest.mark.parametrize("more", [["--port=0"], ["--uds=server.sock"], ["--bind=127.0.0.1:0"]])
def test_nothing_wrong(words: list[str], more: list[str], tmp_path: Path) -> None:
    assert check(tmp_path, *more, *words) == (0, f"tinyasgi: {words[-1]} can be served\n", "")
    assert not (tmp_path / "server.sock").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["apps:nothing"], 3, "has no attribute 'nothing'"),
        (["missing:app"], 3, "no module named 'missing'"),
        (["--factory", "apps:failing"], 3, "the app factory raised an exception"),
        (["apps:task"], 3, "unknown kind of app"),
        (["--bind=192.0.2.1:80", "apps:app"], 3, "can't listen on 192.0.2.1:80"),
        (["--uds=no/server.sock", "apps:app"], 3, "can't listen on"),
        (["--metrics-bind=192.0.2.1:80", "apps:app"], 3, "can't listen on 192.0.2.1:80"),
        (["--ssl-certfile=no.pem", "apps:app"], 2, "no.pem can't be read"),
        (["--log-config=no.toml", "apps:app"], 2, "no.toml can't be used"),
        (["--access-log-file=no/a.log", "apps:app"], 2, "a.log can't be opened"),
        (["--error-log-file=no/a.log", "apps:app"], 2, "a.log can't be opened"),
        (["--access-log-format=%(x)s", "apps:app"], 2, "unknown field"),
        (["--reload", "--reload-dir=no", "apps:app"], 2, "must be an existing directory"),
        (["--loop=apps:nothing", "apps:app"], 2, "has no attribute 'nothing'"),
        (["--port=99999", "apps:app"], 2, "from 0 to 65535"),
    ],
)
def test_failure(words: list[str], code: int, message: str, tmp_path: Path) -> None:
    port = [] if any("bind" in word or "port" in word for word in words) else ["--port=0"]
    found, out, log = check(tmp_path, *port, *words)
    assert found == code
    assert out == ""
    assert message in log
    assert log.count("tinyasgi: error: ") == 1


def test_each_failure_is_reported(tmp_path: Path) -> None:
    words = ["--access-log-format=%(x)s", "--ssl-certfile=no.pem", "--bind=192.0.2.1:80"]
    code, _, log = check(tmp_path, *words, "apps:nothing")
    assert code == 2
    assert log.count("tinyasgi: error: ") == 4


def test_address_in_use_is_a_warning(tmp_path: Path) -> None:
    """The server that is to be replaced may use it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        code, out, log = check(tmp_path, f"--bind={address}", "apps:app")
    assert code == 0
    assert out == "tinyasgi: apps:app can be served\n"
    assert log.startswith(f"tinyasgi: warning: can't listen on {address}: ")


def test_unix_socket_in_use(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "server.sock"))
        sock.listen()
        code, _, log = check(tmp_path, "--uds=server.sock", "apps:app")
    assert code == 0
    assert "another server is listening there" in log
    assert os.path.exists(tmp_path / "server.sock")
