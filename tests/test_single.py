"""A process that serves without a supervisor."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.helpers import GET, Certificates, Client
from tests.support.processes import APP, Start, ask, members, nothing_left, start, wait_until, who

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

__all__ = ["nothing_left", "start"]


def test_one_process(start: Start, tmp_path: Path) -> None:
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
        wait_until(lambda: said("all workers are replaced" if words else "HUP ignored"))
        with Client(str(tmp_path / "sock"), certificates.context()) as client:
            assert client.response(GET).status == 200
        assert command.stop() == 0
    assert "GET / HTTP/1.1" in (tmp_path / "access.log").read_text()
    assert not list((tmp_path / "inner").glob("*.*"))
    assert not (tmp_path / "sock").exists()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTTIN", "SIGTTOU"])
def test_signals_for_a_supervisor(name: str, start: Start, tmp_path: Path) -> None:
    """They change nothing, and the log tells how to get what they are for."""
    with start() as command:
        pid = command.process.pid
        assert who(command.port, 1) == {0: pid}
        command.send(getattr(signal, name))
        command.wait_for(f"{name} ignored: .* start it with --workers 1")
        assert who(command.port, 1) == {0: pid}
        assert members(tmp_path) == {pid}
        assert command.stop() == 0


@pytest.mark.parametrize("words", [["--workers", "1"], ["--limit-max-requests", "100"]])
def test_one_worker_has_a_supervisor(words: list[str], start: Start) -> None:
    with start(*words) as command:
        command.wait_for(f"1 worker, pid {command.process.pid}")
        assert who(command.port, 1)[0] != command.process.pid
        assert command.stop() == 0


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


def test_script_that_names_its_app(start: Start, tmp_path: Path) -> None:
    """The `__main__` part of the script does not run in the workers."""
    (tmp_path / "script.py").write_text(
        "import sys, tinyasgi\nfrom app import app\nsys.stdout.write('module\\n')\n"
        "if __name__ == '__main__':\n    print('main', flush=True)\n"
        "    tinyasgi.run('script:app', port=0, workers=2, access_log=False)\n"
    )
    with start(script="script.py") as command:
        assert len(who(command.port, 2)) == 2
        assert command.stop() == 0
    assert command.output.split().count("main") == 1
    assert command.output.split().count("module") == 3
