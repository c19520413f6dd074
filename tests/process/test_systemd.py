"""What systemd gives to a service, and what it is told."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE, Command, workers_option
from tests.support.processes import Start, nothing_left, start, who
from tinyasgi.process import systemd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no systemd")

__all__ = ["nothing_left", "start"]

#: Without workers, and with them.
both = pytest.mark.parametrize("workers", ["", "2"])


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.settimeout(PATIENCE)
        yield sock
    os.unlink(tmp_path / "n")


def next_notice(notices: socket.socket) -> str:
    return notices.recv(1000).decode()


@both
def test_notices(workers: str, start: Start, notices: socket.socket) -> None:
    with start(*workers_option(workers), NOTIFY_SOCKET=notices.getsockname()) as command:
        assert next_notice(notices) == "READY=1"
        assert len(who(command.port, int(workers or 1))) == int(workers or 1)
        for _ in range(2 if workers else 0):
            command.send(signal.SIGHUP)
            state, moment = next_notice(notices).split("\n")
            assert state == "RELOADING=1"
            assert int(moment.removeprefix("MONOTONIC_USEC=")) > 0
            assert next_notice(notices) == "READY=1"
        command.send(signal.SIGTERM)
        assert next_notice(notices) == "STOPPING=1"
        assert command.wait() == 0


@both
def test_watchdog(workers: str, start: Start, notices: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": notices.getsockname(), "WATCHDOG_USEC": "100000"}
    with start(*workers_option(workers), **environment) as command:
        seen = []
        while "READY=1" not in seen or seen.count("WATCHDOG=1") < 5:
            seen.append(next_notice(notices))
        assert set(seen) == {"READY=1", "WATCHDOG=1"}
        assert command.stop() == 0


@both
def test_watchdog_of_another_process(workers: str, start: Start, notices: socket.socket) -> None:
    environment = {
        "NOTIFY_SOCKET": notices.getsockname(),
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
    }
    with start(*workers_option(workers), **environment) as command:
        assert next_notice(notices) == "READY=1"
        command.send(signal.SIGTERM)
        assert next_notice(notices) == "STOPPING=1"
        assert command.wait() == 0


@both
def test_sockets(workers: str, start: Start, tmp_path: Path) -> None:
    """They are descriptors from 3 on, and they stay when the service ends."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        script = f"""
import os, sys
os.dup2({given.fileno()}, 3)
os.set_inheritable(3, True)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}}
os.execv(sys.executable, [sys.executable, "-m", "tinyasgi", *{workers_option(workers)}, "app:app"])
"""
        (tmp_path / "script.py").write_text(script)
        with Command(script="script.py", cwd=tmp_path, pass_fds=[given.fileno()]) as command:
            assert command.port == port
            assert len(who(port, int(workers or 1))) == int(workers or 1)
            if workers:
                command.send(signal.SIGHUP)
                command.wait_for("all workers are replaced")
                command.wait_for("shutdown of", int(workers))
                assert len(who(port, int(workers))) == int(workers)
            assert command.stop() == 0
        with socket.create_connection(("127.0.0.1", port), PATIENCE):
            pass


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("LISTEN_FDS", "1000", "descriptor {} is not open"),
        ("LISTEN_FDS", "many", "a whole number"),
        ("WATCHDOG_USEC", "-1", "a whole number"),
    ],
)
def test_wrong_environment(variable: str, text: str, reason: str, tmp_path: Path) -> None:
    """It is an error in one line."""
    (tmp_path / "script.py").write_text(f"""
import os, sys
from tinyasgi import run
os.environ |= {{"LISTEN_PID": str(os.getpid()), "NOTIFY_SOCKET": "@x", "{variable}": "{text}"}}
run("app:app")
""")
    with Command(script="script.py", cwd=tmp_path) as command:
        assert command.wait() == 2
    pattern = reason.replace("{}", r"\d+")
    assert re.fullmatch(f"tinyasgi: error: {variable}='?{text}'?: .*{pattern}.*\n", command.log)


def test_sockets_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert systemd.inherited() == ()
    assert "LISTEN_FDS" not in os.environ


def test_full_queue(notices: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A systemd that reads nothing does not block the server."""
    monkeypatch.setenv("NOTIFY_SOCKET", notices.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setattr(systemd, "FULL_QUEUE", 0.01)
    notifier = systemd.Notifier()
    size = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(size + 10):
        notifier.beat()
    notifier.stopping()
    assert {next_notice(notices) for _ in range(size)} == {"WATCHDOG=1"}
    notifier.stopping()
    while next_notice(notices) != "STOPPING=1":
        pass


def test_notices_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # Linux chooses a name
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        systemd.Notifier().ready()
        assert sock.recv(100) == b"READY=1"
        assert "NOTIFY_SOCKET" not in os.environ


def test_reader_that_stands_still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Signs of life are dropped; the service does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        notifier = systemd.Notifier()
        for _ in range(1000):
            notifier.beat()
        assert sock.recv(100) == b"WATCHDOG=1"
