"""A server whose app starts anew when its files change."""

import importlib.util
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, PATIENCE, Client
from tests.support.processes import APP, Start, nothing_left, start, who
from tinyasgi import Config
from tinyasgi.workers.reload import Changes

__all__ = ["nothing_left", "start"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

CHANGED = APP.replace('f"{os', 'f"1{os')


def write(path: Path, text: str) -> None:
    """As editors do it: there is no moment at which it is empty."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


# Which files.


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    made = []

    def changes(**options: Any) -> Changes:
        made.append(Changes(Config(**options)))
        return made[0]

    yield changes
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("file", "watched"),
    [
        ("app.py", True),
        ("package/inner/module.py", True),
        ("page.html", True),
        ("package/page.html", True),
        ("notes.txt", False),
        ("skipped.py", False),
        ("tests/test_app.py", False),
        ("tests/inner/test_app.py", False),
        ("package/__pycache__/app.py", False),
        (".git/hook.py", False),
        (".venv/lib/module.py", False),
        ("node_modules/module.py", False),
        ("environment/lib/module.py", False),
        ("../other/app.py", False),
    ],
)
def test_is_watched(file: str, watched: bool, changes: Any, tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "pyvenv.cfg").touch()
    found = changes(reload_include=("*.html",), reload_exclude=("tests", "skipped.py"))
    assert found.is_watched(os.path.normpath(tmp_path / file)) is watched


def test_directories(changes: Any, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    found = changes(reload_dir=("src",))
    assert found.is_watched(str(tmp_path / "src" / "app.py"))
    assert not found.is_watched(str(tmp_path / "app.py"))


@pytest.mark.parametrize("file", ["link/app.py", "link/elsewhere.py", "inner/app.py"])
@pytest.mark.parametrize("directory", ["link", "real"])
def test_links(directory: str, file: str, changes: Any, tmp_path: Path) -> None:
    """A file is watched by the path of either side, whichever the app is imported from."""
    (tmp_path / "real" / "package").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    (tmp_path / "inner").symlink_to("real/package", target_is_directory=True)
    (tmp_path / "real" / "elsewhere.py").symlink_to(tmp_path / "other.py")
    found = changes(reload_dir=(directory,))
    assert found.is_watched(str(tmp_path / file))
    assert not found.is_watched(str(tmp_path / "other.py"))


@pytest.mark.parametrize("how", ["watchfiles", "looks", "fails"])
def test_changes(
    how: str,
    changes: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if how == "looks":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        watchfiles = pytest.importorskip("watchfiles")
    if how == "fails":

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError("OS file watch limit reached")

        monkeypatch.setattr(watchfiles, "watch", fail)
    app, ignored = tmp_path / "app.py", tmp_path / "notes.txt"
    app.write_text("")
    found = changes()
    found.imported([str(app), str(ignored)])
    with selectors.DefaultSelector() as selector:
        selector.register(found, selectors.EVENT_READ)
        for number in range(2):
            ready: Any = []
            stamp = 1e9 + number * 1000
            for _ in range(int(PATIENCE / 0.1)):  # until it watches
                stamp += 1
                ignored.write_text(str(stamp))
                app.write_text(str(stamp))
                os.utime(app, (stamp, stamp))
                if ready := selector.select(0.1):
                    break
            assert ready
            assert found.take() == [str(app)]
            while selector.select(0.3):
                assert found.take() == [str(app)]
    assert ("OS file watch limit reached; only files" in caplog.text) is (how == "fails")


# The process.


@linux
def test_change(start: Start, tmp_path: Path) -> None:
    with start("--reload") as command:
        before = who(command.port, 1)
        write(tmp_path / "app.py", CHANGED)
        command.wait_for("app.py changed; restarting the app")
        command.wait_for(f"shutdown of {before[0]}")
        assert who(command.port, 1).keys() == {10}  # it waits, if it must
        assert command.stop() == 0
    assert "Traceback" not in command.log


@linux
def test_change_with_a_stream_that_goes_on(start: Start, tmp_path: Path) -> None:
    with start("--reload") as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /stream "))
        client.head()
        assert client.chunk() == b"begin"
        write(tmp_path / "app.py", CHANGED)
        assert client.rest() == b""
        assert who(command.port, 1).keys() == {10}
        assert command.stop() == 0


@linux
def test_change_while_the_loop_is_blocked(start: Start, tmp_path: Path) -> None:
    with start("--reload") as command, Client(command.port) as client:
        client.send(GET.replace(b" / ", b" /block "))
        command.wait_for("time.sleep")
        write(tmp_path / "app.py", CHANGED)
        command.wait_for("is ready")
        assert who(command.port, 1).keys() == {10}
        assert command.stop() == 0
    assert "did not stop in time; killing it" in command.log


@linux
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("text", "error"), [("syntax error", "SyntaxError"), ("raise ValueError", "ValueError")]
)
def test_error(text: str, error: str, first: bool, start: Start, tmp_path: Path) -> None:
    """It is shown, and the next change is waited for."""
    app = tmp_path / "other.py"
    app.write_text(text if first else APP)
    with start("--reload", app="other:app") as command:
        if not first:
            assert who(command.port, 1)
            write(app, text)
        command.wait_for(error)
        command.wait_for("waiting for a file change to restart the app")
        write(app, CHANGED)
        command.wait_for("Ctrl-C" if first else "is ready")
        assert who(command.port, 1).keys() == {10}
        assert command.log.count("Traceback") == 1
        assert command.stop() == 0


@linux
def test_wrong_option_is_not_waited_for(start: Start) -> None:
    with start("--reload", "--ssl-certfile", "nothing.pem") as command:
        assert command.wait() == 2


@linux
@pytest.mark.parametrize("directory", ["missing", "app.py"])
def test_directory_that_is_none(directory: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with start("--reload", "--reload-dir=src", "--reload-dir", directory) as command:
        assert command.wait() == 2
    expected = (
        f"tinyasgi: error: --reload-dir {tmp_path}/{directory} must be an existing directory\n"
    )
    assert command.log == expected


@linux
@pytest.mark.parametrize("how", ["request", "change"])
def test_killed_child(how: str, start: Start, tmp_path: Path) -> None:
    with start("--reload") as command:
        before = who(command.port, 1)
        os.kill(before[0], signal.SIGKILL)
        command.wait_for("waiting for a file change or a request to restart")
        if how == "change":
            write(tmp_path / "app.py", CHANGED)
            command.wait_for("is ready")
        ((index, pid),) = who(command.port, 1).items()
        assert pid != before[0]
        assert index == (10 if how == "change" else 0)
        assert command.stop() == 0


@pytest.mark.slow
@linux
def test_several_workers(start: Start, tmp_path: Path) -> None:
    with start("--reload", "--workers", "2") as command:
        who(command.port, 2)
        write(tmp_path / "app.py", CHANGED)
        command.wait_for("is ready", 2)
        assert who(command.port, 2).keys() == {10, 11}
        assert command.stop() == 0


@pytest.mark.slow
@linux
def test_without_watchfiles(start: Start, tmp_path: Path) -> None:
    """The files that the app has imported are looked at."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'watchfiles' else find(name, *more)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with start("--reload", PYTHONPATH=path) as command:
        who(command.port, 1)
        write(tmp_path / "app.py", "syntax error")
        command.wait_for("waiting for a file change to restart the app")
        write(tmp_path / "app.py", CHANGED)
        command.wait_for("is ready")
        assert who(command.port, 1).keys() == {10}
        assert command.stop() == 0
