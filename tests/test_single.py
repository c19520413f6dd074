"""A single process, and its change to a supervisor on SIGHUP and SIGTTIN."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.helpers import GET, Certificates, Client
from tests.support.load import Load
from tests.support.processes import APP, Start, ask, members, nothing_left, start, wait_until, who

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

__all__ = ["nothing_left", "start"]


def test_it_is_one_process(start: Start, tmp_path: Path) -> None:
    with start() as command:
        assert ask(command.port) == f"0 {command.process.pid}"
        assert members(tmp_path) == {command.process.pid}
        assert command.stop() == 0


@pytest.mark.parametrize("words", [[], ["--workers", "2"], ["--preload"]])
def test_app_that_changes_the_directory(words: list[str], start: Start, tmp_path: Path) -> None:
    """Relative paths are resolved at startup, before the app changes the directory."""
    pytest.importorskip("dotenv")
    certificates = Certificates(tmp_path)
    (tmp_path / "moves.py").write_text("import os\nos.chdir('inner')\nfrom app import app\n")
    for folder in (tmp_path / "inner", tmp_path / "inner" / "inner"):
        folder.mkdir()
    (tmp_path / "settings").write_text("A=1\n")

    def said(text: str) -> bool:
        log = tmp_path / "error.log"
        return log.exists() and text in log.read_text()

    files = ["--access-log-file=access.log", "--error-log-file=error.log", "--env-file=settings"]
    more = ["--access-log", "--ssl-certfile=server.pem", "--bind=unix:sock", *files]
    with start(*words, *more, app="moves:app") as command:
        wait_until(lambda: said("Ctrl-C"))
        for name in ("error.log", "access.log"):
            (tmp_path / name).rename(tmp_path / f"{name}.1")
        command.send(signal.SIGUSR1)
        wait_until((tmp_path / "access.log").exists)
        command.send(signal.SIGHUP)
        wait_until(lambda: said("all workers are replaced" if words else "1 worker"))
        with Client(str(tmp_path / "sock"), certificates.context()) as client:
            assert client.response(GET).status == 200
        assert command.stop() == 0
    assert "GET / HTTP/1.1" in (tmp_path / "access.log").read_text()
    assert not list((tmp_path / "inner").glob("*.*"))
    assert not (tmp_path / "sock").exists()


def test_hup(start: Start, tmp_path: Path) -> None:
    """The process becomes the supervisor of a worker, and frees the memory of the app."""
    with start() as command:
        pid = command.process.pid
        who(command.port, 1)
        (tmp_path / "app.py").write_text(APP.replace('f"{os', 'f"1{os'))
        command.send(signal.SIGHUP)
        command.wait_for(f"1 worker, pid {pid}")
        command.wait_for(f"shutdown of {pid}")
        command.wait_for("^.*INFO stopped")
        ((index, worker),) = who(command.port, 1).items()
        assert index == 10
        assert members(tmp_path) == {pid, worker}
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        command.wait_for(f"shutdown of {worker}")
        os.kill(who(command.port, 1)[10], signal.SIGKILL)
        command.wait_for("is ready")
        assert who(command.port, 1)
        assert command.stop() == 0
    assert "Traceback" not in command.log
    assert "Warning" not in command.log


def test_hup_with_an_app_that_fails(start: Start, tmp_path: Path) -> None:
    with start() as command:
        before = who(command.port, 1)
        (tmp_path / "app.py").write_text("raise ValueError('broken')")
        for count in (1, 2):
            command.send(signal.SIGHUP)
            command.wait_for("goes on as it was", count)
            command.wait_for("ValueError: broken", count)
            assert who(command.port, 1) == before
        (tmp_path / "app.py").write_text(APP)
        command.send(signal.SIGHUP)
        command.wait_for("1 worker")
        assert command.stop() == 0


def test_one_more_worker(start: Start, tmp_path: Path) -> None:
    with start() as command:
        who(command.port, 1)
        command.send(signal.SIGTTOU)
        who(command.port, 1)  # pending signals arrive in the order of their numbers
        command.send(signal.SIGTTIN)
        command.wait_for("2 workers")
        command.wait_for("^.*INFO stopped")
        assert who(command.port, 2).keys() == {0, 1}
        assert command.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_a_worker_takes_over(number: int, start: Start) -> None:
    words = ["--timeout-graceful-shutdown", "0.5"]
    with start(*words) as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /hang "))
        command.wait_for("hanging")
        command.send(signal.SIGHUP)
        command.wait_for("1 worker")
        assert command.stop(number) == 0
    assert "Traceback" not in command.log


@pytest.mark.slow
def test_nothing_fails_when_it_is_replaced(start: Start) -> None:
    with start() as command, Load(command.port) as load:
        for count in (1, 2):
            command.send(signal.SIGHUP)
            command.wait_for("1 worker" if count == 1 else "all workers are replaced")
            if count == 1:
                command.wait_for("^.*INFO stopped")
        wait_until(lambda: len(load.answers) == 3)
    assert load.failures == []


def test_unix_socket(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with start("--uds", "sock") as command:
        command.wait_for(r"unix:\S+/sock")
        command.send(signal.SIGHUP)
        command.wait_for("1 worker")
        command.wait_for("^.*INFO stopped")
        with Client("sock") as client:
            assert client.response(GET).status == 200
        assert command.stop() == 0
    assert not os.path.exists("sock")


def test_log_files_are_opened_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(
        "import logging\n"
        + APP.replace("    path = ", "    log.warning('asked')\n    path = ")
        + "log = logging.getLogger('app')\nlog.addHandler(logging.FileHandler('log.txt'))\n"
    )
    with start(app="logs:app") as command:
        ask(command.port)
        os.rename(tmp_path / "log.txt", tmp_path / "old.txt")
        command.send(signal.SIGUSR1)
        while not (tmp_path / "log.txt").exists():
            ask(command.port)
        assert command.stop() == 0


def test_app_without_a_name_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys, tinyasgi\nfrom app import app\nsys.exit(tinyasgi.run(app, port=0))\n"
    )
    with start(script="script.py") as command:
        pid = command.process.pid
        assert who(command.port, 1) == {0: pid}
        command.send(signal.SIGHUP)
        command.wait_for("SIGHUP: an app that is not given as module:attribute stays as it is")
        assert who(command.port, 1) == {0: pid}
        assert command.stop() == 0


def test_script_that_names_its_app(start: Start, tmp_path: Path) -> None:
    """The `__main__` part of the script does not run in the workers."""
    (tmp_path / "script.py").write_text(
        "import sys, tinyasgi\nfrom app import app\nprint('module', flush=True)\n"
        "if __name__ == '__main__':\n    print('main', flush=True)\n"
        "    sys.exit(tinyasgi.run('script:app', port=0, workers=2, access_log=False))\n"
    )
    with start(script="script.py") as command:
        assert len(who(command.port, 2)) == 2
        assert command.stop() == 0
    assert command.output.split().count("main") == 1
    assert command.output.split().count("module") == 3
