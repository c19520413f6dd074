"""How `run` ends a script: its exit code, and whether the script goes on. docs/from-uvicorn.md."""

import asyncio
import inspect
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Client, Command

SCRIPT = """
import sys, tinyasgi
from app import *

if __name__ == "__main__":
    tinyasgi.run({})
    sys.stderr.write("the script goes on")
"""
STREAM = b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    while scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await asyncio.sleep(3600)
    await send({"type": "http.response.body"})


async def fails_in_startup(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def fails_in_shutdown(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no database"})


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Return a function that starts a script with a call of `run`."""
    parts = map(inspect.getsource, (app, fails_in_startup, fails_in_shutdown))
    (tmp_path / "app.py").write_text("\n".join(["import asyncio", *parts]))
    (tmp_path / "broken.py").write_text("raise ValueError('broken')")

    def start(arguments: str) -> Command:
        (tmp_path / "script.py").write_text(SCRIPT.format(arguments))
        return Command(script="script.py", cwd=tmp_path)

    return start


@pytest.mark.parametrize(
    ("arguments", "numbers", "code"),
    [
        ("app, port=0", [signal.SIGINT], 0),
        ("app, port=0", [signal.SIGTERM], 0),
        ("app, port=0", [signal.SIGINT, signal.SIGINT], 0),
        ("app, port=0", [signal.SIGTERM, signal.SIGINT], 0),
        ("fails_in_shutdown, port=0", [signal.SIGINT], 3),
        *[
            pytest.param(*values, marks=pytest.mark.slow)
            for values in [
                ("'app:app', port=0", [signal.SIGTERM], 0),
                ("'app:app', port=0, workers=2", [signal.SIGINT], 0),
                ("'app:app', port=0, workers=2", [signal.SIGTERM], 0),
                ("'app:app', port=0, workers=2", [signal.SIGTERM, signal.SIGINT], 0),
                ("'app:app', port=0, reload=True", [signal.SIGINT], 0),
            ]
        ],
    ],
)
def test_stop_by_signals(arguments: str, numbers: list[int], code: int, script: Any) -> None:
    """Each further signal arrives while a stream keeps the server from stopping."""
    with script(arguments) as command, Client(command.port) as client:
        if "fails" not in arguments:
            client.send(STREAM if len(numbers) > 1 else GET)
            client.head()
        for number in numbers[:-1]:
            command.send(number)
            command.wait_for("waiting for ")
        assert command.stop(numbers[-1]) == code
        assert ("the script goes on" in command.log) == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("fails_in_startup, port=0", 3),
        ("'none_such:app', port=0", 3),
        ("'app:none_such', port=0", 3),
        ("'broken:app', port=0", 3),
        ("app, port=TAKEN", 3),
        ("app, port=0, none_such=1", 2),
        ("app, port=0, ws='none_such'", 2),
        ("app, port=0, workers=2", 2),
        pytest.param("'app:fails_in_startup', port=0, workers=2", 3, marks=pytest.mark.slow),
        pytest.param("'none_such:app', port=0, workers=2", 3, marks=pytest.mark.slow),
        pytest.param("'broken:app', port=0, workers=2", 3, marks=pytest.mark.slow),
        pytest.param("'app:app', port=TAKEN, workers=2", 3, marks=pytest.mark.slow),
    ],
)
def test_failed_start(arguments: str, code: int, script: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with script(arguments.replace("TAKEN", str(taken.getsockname()[1]))) as command:
            assert command.wait() == code
        assert "the script goes on" not in command.log
        assert "error: " in command.log
