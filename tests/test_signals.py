"""Signals: none is lost from the start of the process on, and child processes are not affected."""

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Client
from tests.support.processes import (
    APP,
    Start,
    ask,
    is_alive,
    members,
    nothing_left,
    start,
    wait_until,
    who,
)
from tinyasgi.signals import Signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

__all__ = ["nothing_left", "start"]

IMPORTING = """
import os, sys, time
words = ["importing\\n"]
while not os.path.exists("go"):
    try:
        while words:
            sys.stderr.write(words.pop())
        time.sleep(0.01)
    except:
        sys.stderr.write("swallowed\\n")
        open("go", "w").close()
"""

DELETING = """
import os, sys, time
class Slow:
    def __del__(self):
        sys.stderr.write("importing\\n")
        for _ in range(1000):
            time.sleep(0.01)
Slow()
"""

FORKING = """
import multiprocessing, os, signal, sys, time

def child():
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
    names = [getattr(signal.getsignal(number), "__name__", "default") for number in numbers]
    sys.stderr.write(f"child {os.getpid()} {names}\\n")
    time.sleep(600)

def fork():
    multiprocessing.get_context("fork").Process(target=child, daemon=True).start()
"""

OPTIONS = [(), ("--workers", "2"), ("--workers", "2", "--preload")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", OPTIONS)
@pytest.mark.parametrize("text", [IMPORTING, DELETING], ids=["except", "del"])
def test_stop_during_an_import_that_swallows_it(
    text: str, words: tuple[str, ...], number: int, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(text + APP)
    with start(*words) as command:
        command.wait_for("importing", 2 if words == OPTIONS[1] else 1)
        assert command.stop(number) == 0
    assert "http://" not in command.log
    assert "Traceback" not in command.log


@pytest.mark.parametrize("words", OPTIONS)
def test_second_stop_during_the_import(
    words: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(IMPORTING.replace('open("go", "w").close()', "pass") + APP)
    with start(*words, "--timeout-graceful-shutdown", "600") as command:
        command.wait_for("importing", 2 if words == OPTIONS[1] else 1)
        command.send(signal.SIGTERM)
        command.wait_for("swallowed")
        assert command.stop() == 0
    assert "Traceback" not in command.log


def test_stop_of_a_factory_that_swallows_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP + "async def create():\n    say('creating')\n"
        "    try:\n        await asyncio.sleep(600)\n"
        "    except asyncio.CancelledError:\n        return app\n"
    )
    with start("--factory", app="app:create") as command:
        command.wait_for("creating")
        assert command.stop() == 0
    assert "http://" not in command.log


@pytest.mark.parametrize("stops", [1, 2])
def test_stop_during_a_later_import(stops: int, start: Start, tmp_path: Path) -> None:
    """A new zygote imports the app, and that does not end."""
    swallow = IMPORTING.replace('open("go", "w").close()', "pass")
    (tmp_path / "app.py").write_text((swallow if stops == 2 else IMPORTING) + APP)
    (tmp_path / "go").touch()
    with start("--preload", "--workers", "2", "--timeout-graceful-shutdown", "600") as command:
        command.port  # noqa: B018
        (tmp_path / "go").unlink()
        command.send(signal.SIGHUP)
        command.wait_for("importing")
        if stops == 2:
            command.send(signal.SIGTERM)
            command.wait_for("swallowed")
        assert command.stop() == 0
    assert "Traceback" not in command.log


@pytest.mark.slow
def test_usr1_while_workers_start(start: Start, tmp_path: Path) -> None:
    """The workers have not read their specification yet."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "while '-c' in sys.orig_argv and not os.path.exists('go'):\n    time.sleep(0.01)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    log = tmp_path / "log.txt"
    with start("--workers", "2", "--error-log-file", "log.txt", PYTHONPATH=path) as command:
        wait_until(lambda: len(members(tmp_path)) == 3)
        wait_until(log.exists)
        log.unlink()
        command.send(signal.SIGUSR1)
        wait_until(log.exists)
        (tmp_path / "go").touch()
        wait_until(lambda: "2 workers" in log.read_text() or command.process.poll() is not None)
        assert command.stop() == 0
    assert "Traceback" not in command.log


def test_app_that_exits_in_a_later_import(start: Start, tmp_path: Path) -> None:
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "app.py").write_text("import sys\nsys.exit('no database')\n")
        command.send(signal.SIGHUP)
        command.wait_for("reload failed.*\n.*no database")
        assert who(command.port, 2) == before
        assert command.stop() == 0


def test_server_in_a_thread_of_an_app(start: Start, tmp_path: Path) -> None:
    """Only the server in the main thread handles signals."""
    inner = "threading.Thread(target=tinyasgi.run, args=(app,), kwargs={'port': 0}, daemon=True)"
    app = APP.replace("        await receive()\n", "        begin()\n        await receive()\n", 1)
    (tmp_path / "app.py").write_text(
        "import threading, tinyasgi\nbegun = []\ndef begin():\n    if not begun:\n"
        f"        begun.append(1)\n        {inner}.start()\n{app}"
    )
    with start() as command:
        command.wait_for("Ctrl-C stops it", 2)
        assert command.stop() == 0


@pytest.mark.parametrize("words", OPTIONS)
def test_hup_and_usr1_during_the_import(
    words: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    """They are handled when the start is over."""
    (tmp_path / "app.py").write_text(IMPORTING + APP)
    with start(*words, "--error-log-file", "log.txt") as command:
        command.wait_for("importing")
        command.send(signal.SIGUSR1)
        command.send(signal.SIGHUP)
        (tmp_path / "go").touch()
        expected = "all workers are replaced" if words else "SIGHUP ignored"
        wait_until(lambda: expected in (tmp_path / "log.txt").read_text())
        assert command.stop() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("words", OPTIONS)
def test_child_of_a_fork(words: tuple[str, ...], loop: str, start: Start, tmp_path: Path) -> None:
    """A child process has Python's default handlers and no listening sockets."""
    pytest.importorskip(loop)
    app = APP.replace(
        '    if path == "/block":',
        '    if path == "/fork":\n        fork()\n    if path == "/block":',
    )
    (tmp_path / "app.py").write_text(FORKING + app)
    with start("--loop", loop, *words) as command:
        ask(command.port, "/fork")
        child = int(command.wait_for(r"child (\d+) .*default.*default_int_handler.*default.*")[1])
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_alive(child) or "Z" in _state(child))
        ask(command.port, "/fork")
        command.wait_for(r"child \d+ ", 2)
        port, log = command.port, command.log
        workers = set(who(port, 2 if words else 1).values()) - {command.process.pid}
        for process in (command.process.pid, *workers):
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: not _listens(port))
        for found in re.findall(r"^child (\d+)", log, re.MULTILINE):
            if is_alive(int(found)):
                os.kill(int(found), signal.SIGKILL)


@pytest.mark.parametrize("words", OPTIONS)
def test_client_of_a_forked_child_sees_the_end(
    words: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    """A child process does not keep connections of the server open."""
    app = APP.replace(
        '    if path == "/block":',
        '    if path == "/fork":\n        fork()\n    if path == "/block":',
    )
    (tmp_path / "app.py").write_text(FORKING + app)
    with start(*words) as command:
        with Client(command.port) as client:
            client.send(b"GET /fork HTTP/1.0\r\n\r\n")
            assert client.rest().startswith(b"HTTP/1.1 200")
        assert command.stop() == 0


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_handlers_are_restored() -> None:
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    signals = Signals(numbers[:1], numbers[1:])
    stops: list[Any] = []
    signals.on_stop = stops.append
    try:
        for number in numbers:
            signal.raise_signal(number)
        assert signals.received() == list(numbers)
        assert signals.received() == []
        assert stops == [1]
    finally:
        signals.restore()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
