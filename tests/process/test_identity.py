"""User, group, umask, title and pid file of the server."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Command
from tests.support.processes import APP, Start, ask, members, nothing_left, start, wait_until
from tinyasgi import Config
from tinyasgi.config.kinds import OptionError
from tinyasgi.process import identity

__all__ = ["nothing_left", "start"]  # fixtures

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="for POSIX")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change the user"
)


# The pid file.


@pytest.mark.parametrize("words", [[], ["--workers", "1"]])
def test_pid_file(words: list[str], start: Start, tmp_path: Path) -> None:
    """It exists before the app is served, and is removed at the end."""
    file = tmp_path / "server.pid"
    with start("--pid", "server.pid", *words) as command:
        ask(command.port)
        assert file.read_text() == f"{command.process.pid}\n"
        assert command.stop() == 0
    assert not file.exists()


def test_pid_file_of_another_server(tmp_path: Path) -> None:
    file = tmp_path / "server.pid"
    file.write_text(f"{os.getppid()}\n")
    with (
        pytest.raises(OptionError, match=f"names process {os.getppid()}, which is running"),
        identity.pid_file(Config(pid=str(file))),
    ):
        pass
    assert file.read_text() == f"{os.getppid()}\n"


@pytest.mark.parametrize("content", ["", "text", "999999999", "9" * 30])
def test_stale_pid_file_is_replaced(content: str, tmp_path: Path) -> None:
    file = tmp_path / "server.pid"
    file.write_text(content)
    with identity.pid_file(Config(pid=str(file))):
        assert file.read_text() == f"{os.getpid()}\n"
        file.write_text("1")  # it belongs to another server now
    assert file.read_text() == "1"


def test_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing" / "server.pid")
    with pytest.raises(OptionError, match="can't be written"), identity.pid_file(Config(pid=path)):
        pass


def test_pid_file_of_a_server_that_exits_at_its_limit(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP + "import atexit, threading\nthreading.Thread(target=time.sleep, args=[600]).start()\n"
    )
    words = ["--port=0", "--timeout-graceful-shutdown=0", "--pid=server.pid", "app:app"]
    with Command(*words, cwd=tmp_path) as command:
        ask(command.port)
        assert command.stop() == 0
        assert "thread" in command.log
    assert not (tmp_path / "server.pid").exists()


# The umask, and what is written to stdout and stderr.


def test_umask(start: Start, tmp_path: Path) -> None:
    with start("--umask", "077", "--pid", "server.pid") as command:
        ask(command.port)
        assert (tmp_path / "server.pid").stat().st_mode & 0o777 == 0o600
        assert command.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("words", [[], ["--workers", "1"]])
def test_captured_output(words: list[str], start: Start, tmp_path: Path) -> None:
    """Output of the app goes to the error log, also after the file was opened again."""
    noise = "    os.write(1, b'on stdout\\n')\n    say('on stderr')\n"
    (tmp_path / "noisy.py").write_text(APP.replace("    path = ", noise + "    path = "))
    log, socket_ = tmp_path / "error.log", tmp_path / "server.sock"
    words = [*words, "--error-log-file=error.log", "--capture-output"]
    with start("--uds", "server.sock", *words, app="noisy:app") as command:
        wait_until(lambda: log.exists() and "Ctrl-C stops it" in log.read_text())
        _request(socket_)
        assert "on stdout\non stderr\n" in log.read_text()
        log.rename(tmp_path / "old.log")
        command.send(signal.SIGUSR1)
        wait_until(lambda: log.exists() and all(_writes_to(log, pid) for pid in members(tmp_path)))
        _request(socket_)
        assert log.read_text() == "on stdout\non stderr\n"
        assert command.stop() == 0
    assert command.log == command.output == ""


def _writes_to(log: Path, pid: int) -> bool:
    return all(os.path.samefile(f"/proc/{pid}/fd/{number}", log) for number in (1, 2))


def _request(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        while client.recv(1000):
            pass


# Titles.


def test_titles(start: Start, tmp_path: Path) -> None:
    (tmp_path / "setproctitle.py").write_text(
        "def setproctitle(title):\n    open('titles', 'a').write(title + '\\n')\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with start("--name", "site", "--workers", "1", **environment) as command:
        ask(command.port)
        assert command.stop() == 0
    titles = (tmp_path / "titles").read_text().splitlines()
    assert titles == ["tinyasgi: supervisor [site]", "tinyasgi: worker 0 [site]"]


def test_title_without_setproctitle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    config = Config(name="site")
    identity.check(config)
    identity.set_title(config, "server")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("name='site' has no effect without setproctitle: pip install setproctitle")


# User and group.


@as_root
def test_group(start: Start, tmp_path: Path) -> None:
    """Workers have the group only, and can reopen log files. The supervisor stays root."""
    import grp

    group = next(entry for entry in grp.getgrall() if entry.gr_gid)
    (tmp_path / "groups.py").write_text(APP.replace('os.getpid()}")', 'os.getgroups()}")'))
    words = ["--group", group.gr_name, "--access-log-file=access.log", "--access-log"]
    with start(*words, app="groups:app") as command:
        assert ask(command.port) == f"0 {[group.gr_gid]}"
        assert (tmp_path / "access.log").stat().st_gid == group.gr_gid
        (tmp_path / "access.log").rename(tmp_path / "old.log")
        command.send(signal.SIGUSR1)
        wait_until(lambda: ask(command.port) and (tmp_path / "access.log").exists())
        assert command.stop() == 0


@as_root
def test_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups are set before the user, who may not change them."""
    import pwd

    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid)
    calls: list[Any] = []
    for name in ("initgroups", "setgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *values, name=name: calls.append((name, *values)))
    identity.change_user(Config(user=entry.pw_name))
    assert calls == [
        ("initgroups", entry.pw_name, entry.pw_gid),
        ("setgid", entry.pw_gid),
        ("setuid", entry.pw_uid),
    ]
    calls.clear()
    identity.change_user(Config(user=str(entry.pw_uid), group="0"))
    assert calls == [("initgroups", entry.pw_name, 0), ("setgid", 0), ("setuid", entry.pw_uid)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"user": "nobody-here"}, "user='nobody-here' can't be used: user 'nobody-here' does not"),
        ({"user": "4000000000"}, "does not exist"),
        ({"group": "nobody-here"}, "group='nobody-here' can't be used: group 'nobody-here' does"),
    ],
)
def test_unknown_user(options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(OptionError, match=text):
        identity.check(Config(**options))


@pytest.mark.parametrize("option", ["user", "group"])
def test_user_needs_root(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OptionError, match=f"{option}='root' needs root; leave it out"):
        identity.check(Config(**{option: "root"}))
