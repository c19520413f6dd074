"""Helpers for tests of several processes: an app, fixtures, and checks of the exit."""

import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, PATIENCE, Client, Command

__all__ = ["APP", "SLEEP", "Start", "ask", "children", "free_ports", "is_alive", "members"]
__all__ += ["nothing_left", "start", "wait_until", "who"]

#: The app `app:app` of a test. A response contains the slot and the process id of the worker.
APP = """
import asyncio, os, sys, time

def say(what):
    sys.stderr.write(what + "\\n")  # in one write, because several processes share stderr

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

#: Sleeps forever. CPython misses a signal that arrives just before a single long sleep.
SLEEP = "while True: time.sleep(0.01)\n"

Start = Callable[..., Command]


def members(folder: Path) -> set[int]:
    """Return the processes whose working directory is `folder`."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.readlink(f"/proc/{name}/cwd") == str(folder):
                    found.add(int(name))
            except OSError:  # the process has exited
                pass
    return found


def children(pid: int) -> set[int]:
    """The child processes of a process."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another process fulfils."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Return free ports below the ephemeral ones, which no parallel test gets from the kernel."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[list[int]]:
    """Check after a test that no process, unix socket or listener on these ports is left."""
    ports: list[int] = []
    yield ports
    if sys.platform == "linux":
        wait_until(lambda: not members(tmp_path))
        ports.clear()  # a parallel test may use the port now
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]
    for port in ports:
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def start(tmp_path: Path, nothing_left: list[int]) -> Iterator[Start]:
    """Return a function that starts the command with the app. It is killed after the test."""
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
    """Send a request on a new connection; return the body of the response."""
    with Client(port) as client:
        return client.response(GET.replace(b" / ", f" {path} ".encode())).body.decode()


def who(port: int, count: int) -> dict[int, int]:
    """Return the process ids of `count` workers by their slot."""
    found: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        index, pid = map(int, ask(port).split())
        found[index] = pid
        assert time.monotonic() < deadline
    return found
