"""What tests of several processes share: an app that tells who answers, and a look at the end."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, PATIENCE, Client, Command

__all__ = ["APP", "SLEEP", "Start", "ask", "is_alive", "members", "nothing_left", "start"]
__all__ += ["wait_until", "who"]

#: The app `app:app` of a test; it answers with index and process id of its worker.
APP = """
import asyncio, os, sys, time

def say(what):
    sys.stderr.write(what + "\\n")  # at once: several processes write to it

async def answer(send, body):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body.encode()})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say(f"shutdown of {os.getpid()}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/block":
        time.sleep(600)
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await asyncio.Event().wait()
    elif path == "/hang":
        say("hanging")
        await asyncio.Event().wait()
    elif path == "/exit":
        os._exit(5)
    await answer(send, f"{os.environ['TINYASGI_WORKER']} {os.getpid()}")
"""

#: Sleeps for ever. CPython does not notice a signal that arrives just before one long sleep.
SLEEP = "while True: time.sleep(0.01)\n"

Start = Callable[..., Command]


def members(folder: Path) -> set[int]:
    """The processes that run in a folder, which are those of its test."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.readlink(f"/proc/{name}/cwd") == str(folder):
                    found.add(int(name))
            except OSError:  # it is gone, or ends
                pass
    return found


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def wait_until(condition: Callable[[], object]) -> None:
    """For what happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[list[int]]:
    """After a test: no process, no file of a socket and no listener on these ports."""
    ports: list[int] = []
    yield ports
    if sys.platform == "linux":
        wait_until(lambda: not members(tmp_path))
        ports.clear()  # without a process no one listens, but a parallel test may get the port
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]
    for port in ports:
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def start(tmp_path: Path, nothing_left: list[int]) -> Iterator[Start]:
    """Starts the command in a folder with the app; what is still there at the end is killed."""
    (tmp_path / "app.py").write_text(APP)
    commands = []

    def start(*words: str, app: str = "app:app", **environment: Any) -> Command:
        where = [] if {"--bind", "--fd", "--uds"} & set(words) else ["--port", "0"]
        command = Command(*where, "--no-access-log", *words, app, cwd=tmp_path, **environment)
        commands.append(command)
        return command

    yield start
    for command in commands:
        if "https://" in command.log or "http://" in command.log:
            nothing_left.append(command.port)
        command.__exit__()


def ask(port: int, path: str = "/") -> str:
    """The body of an answer on a fresh connection."""
    with Client(port) as client:
        return client.response(GET.replace(b" / ", f" {path} ".encode())).body.decode()


def who(port: int, count: int) -> dict[int, int]:
    """The process ids of so many workers, by index."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        index, pid = map(int, ask(port).split())
        found[index] = pid
        assert time.monotonic() < deadline
    return found
