"""The writer of access lines: files, pipes, slow readers, full disks, rotation."""

import contextlib
import errno
import os
import selectors
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, PATIENCE, Client, Command, workers_option
from tinyasgi import Config
from tinyasgi.config.kinds import OptionError
from tinyasgi.logs.writer import PIPE_BUF, AccessLog, AccessLogFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes that can be asked")


class Pipe:
    """A pipe that replaces stdout."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._reader, writer = os.pipe()
        self._stdout = os.fdopen(writer, "w")

    def output(self) -> AccessLogFile:
        self._monkeypatch.setattr(sys, "stdout", self._stdout)
        return AccessLogFile(Config())

    def read(self) -> bytes:
        """Return the bytes in the pipe, without waiting."""
        os.set_blocking(self._reader, False)
        return b"".join(iter(self._some, b""))

    def _some(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._reader, 1 << 16)
        return b""

    def leave(self) -> None:
        """Close the reading end."""
        if self._reader >= 0:
            os.close(self._reader)
        self._reader = -1

    def close(self) -> None:
        self.leave()
        self._stdout.close()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe(monkeypatch)
    yield pipe
    pipe.close()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of the sizes of all writes."""
    write, found = os.write, []

    def count(number: int, data: bytes) -> int:
        found.append(len(data))
        return write(number, data)

    monkeypatch.setattr(os, "write", count)
    return found


def numbered(count: int) -> bytearray:
    return bytearray().join([b"line %d %s\n" % (number, b"x" * 90) for number in range(count)])


def test_what_a_pipe_takes_whole(pipe: Pipe, sizes: list[int]) -> None:
    lines = bytearray(b"y" * 5_000 + b"\n") + numbered(300)
    output, rest, found = pipe.output(), lines.copy(), b""
    while rest:  # the pipe may be too small for all lines
        output.write(rest)
        found += pipe.read()
    is_same = found == lines  # not in the assert: pytest would take minutes to show the difference
    assert is_same
    assert max(size for size in sizes if size != 5_001) <= PIPE_BUF
    assert len(sizes) < 20


def test_file_in_one_write(tmp_path: Path, sizes: list[int]) -> None:
    output = AccessLogFile(Config(access_log_file=str(tmp_path / "log")))
    output.write(numbered(300))
    output.write(bytearray(b"more\n"))
    output.close()
    assert (tmp_path / "log").read_bytes() == numbered(300) + b"more\n"
    assert len(sizes) == 2


def test_reader_that_does_not_read(pipe: Pipe) -> None:
    """`write` does not wait, and loses or doubles nothing."""
    output, lines = pipe.output(), numbered(2000)
    output.write(rest := lines.copy())
    left = len(rest)
    assert left
    output.write(rest)
    output.write(rest, timeout=0.001)
    assert len(rest) == left
    found = pipe.read()
    while rest:
        assert found.endswith(b"\n")
        output.write(rest)
        found += pipe.read()
    is_same = found == lines  # not in the assert: pytest would take minutes to show the difference
    assert is_same


def test_what_an_app_has_printed_comes_first(pipe: Pipe) -> None:
    output = pipe.output()
    print("printed")
    output.write(bytearray(b"line\n"))
    assert pipe.read() == b"printed\nline\n"


def test_stdout_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    AccessLogFile(Config()).write(lines := bytearray(b"line\n"))
    assert lines == b""


def test_object_in_the_place_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    AccessLogFile(Config()).write(bytearray(b"line\n"))
    assert capsys.readouterr().out == "line\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
def test_fifo(tmp_path: Path) -> None:
    """A FIFO without a reader is an error. A server that waited for a reader would seem to hang."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with pytest.raises(OptionError, match=r"access_log_file=.* no process reads it"):
        AccessLogFile(Config(access_log_file=path))
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = AccessLogFile(Config(access_log_file=path))
    output.write(bytearray(b"line\n"))
    assert os.read(reader, 100) == b"line\n"
    output.reopen()
    os.close(reader)
    with pytest.raises(OptionError):
        output.reopen()
    output.close()


def test_file_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^access_log_file=.* can't be opened: Is a"):
        AccessLogFile(Config(access_log_file=str(tmp_path)))


@pytest.mark.parametrize("call", ["open", "epoll"])
def test_file_that_can_not_be_reopened(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays in use. Its descriptor must not be that of another file by then."""
    output = AccessLogFile(Config(access_log_file=str(tmp_path / "log")))

    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(*(os, "open") if call == "open" else (selectors, "DefaultSelector"), fail)
        with pytest.raises(OptionError, match="Too many open files"):
            output.reopen()
    with open(tmp_path / "other", "wb"):  # it would get a descriptor that was closed
        output.write(bytearray(b"line\n"))
    assert (tmp_path / "log").read_bytes() == b"line\n"
    assert (tmp_path / "other").read_bytes() == b""
    output.close()


def lines_to(output: AccessLogFile, loop: Any) -> Any:
    return AccessLog(str, output, loop)  # type: ignore[arg-type]


class Loop:
    """Fake event loop that stores callbacks."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []
        self.reader: Callable[[], None] | None = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def add_reader(self, output: AccessLogFile, callback: Callable[[], None]) -> None:
        assert self.reader is None
        self.reader = callback

    def remove_reader(self, output: AccessLogFile) -> None:
        assert self.reader is not None
        self.reader = None

    def turn(self) -> None:
        if self.later:
            self.later.pop()()
        elif self.reader is not None:
            self.reader()


def test_lines_that_nobody_reads_are_lost_and_counted(
    pipe: Pipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    access = lines_to(pipe.output(), loop)
    monkeypatch.setattr("tinyasgi.logs.writer.MAX_PENDING", 100_000)
    for _ in range(3):
        for _ in range(200):
            access("x" * 999)
        loop.turn()
    assert caplog.messages == ["dropping access log lines: the reader is too slow"]
    found = pipe.read()
    while loop.reader:
        loop.turn()
        found += pipe.read()
    assert 0 < found.count(b"\n") < 600
    lost = 600 - found.count(b"\n")
    assert caplog.messages[1:] == [f"dropped {lost} access log lines"]
    access("x")
    loop.turn()
    assert not loop.reader
    assert pipe.read() == b"x\n"
    assert len(caplog.messages) == 2


def test_reader_that_has_left(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    access = lines_to(pipe.output(), loop)
    pipe.leave()
    for _ in range(3):
        access("x")
        loop.turn()
    access("x")
    access.close()
    lost = "dropped 4 access log lines"
    assert caplog.messages == ["dropping access log lines: Broken pipe", lost]


@contextlib.contextmanager
def room(path: Path, size: int) -> Iterator[None]:
    """Limit the size of files to `size` bytes more than the file at `path` has."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_line_that_is_cut_by_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next line starts a new line of the file."""
    path = tmp_path / "access.log"
    output = AccessLogFile(Config(access_log_file=str(path)))
    output.write(bytearray(b"first\n"))
    for _ in range(2):
        with room(path, 3), pytest.raises(OSError, match="large"):
            output.write(bytearray(b"second\nthird\n"))
        with room(path, 0), pytest.raises(OSError, match="large"):
            output.write(bytearray(b"fourth\n"))
        output.write(bytearray(b"fifth\nsixth\n"))
    output.close()
    assert path.read_text() == "first\n" + "sec\nfifth\nsixth\n" * 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is full")
def test_disk_that_is_full(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    access = lines_to(AccessLogFile(Config(access_log_file="/dev/full")), loop)
    access("x")
    loop.turn()
    assert caplog.messages == ["dropping access log lines: No space left on device"]
    access.close()


def test_end_with_a_reader_that_does_not_read(
    pipe: Pipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyasgi.logs.writer.CLOSE_TIMEOUT", 0.001)
    access = lines_to(pipe.output(), Loop())
    for _ in range(200):
        access("x" * 1000)
    access.close()
    lost = int(caplog.messages[-1].split()[1])
    assert pipe.read().count(b"\n") == 200 - lost


def test_file_that_was_moved_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    access = lines_to(AccessLogFile(Config(access_log_file=str(folder / "log"))), Loop())
    access("before")
    os.rename(folder / "log", tmp_path / "log.1")
    access.reopen()
    access("after")
    access.flush()
    assert (tmp_path / "log.1").read_text() == "before\n"
    assert (folder / "log").read_text() == "after\n"
    os.rename(folder, tmp_path / "gone")
    access.reopen()
    assert "can't be opened" in caplog.text
    access("still")
    access.close()
    assert (tmp_path / "gone" / "log").read_text() == "after\nstill\n"


# Processes.

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def test_lines_of_workers_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    reader, writer = os.pipe()
    found = bytearray()

    def read() -> None:
        while data := os.read(reader, 1000):
            found.extend(data)

    thread = threading.Thread(target=read)
    words = ["--port", "0", "--lifespan", "off", "--workers", "2", "app:app"]
    with Command(*words, cwd=tmp_path, stdout=writer) as command:
        os.close(writer)
        thread.start()
        request = GET.replace(b"/ ", b"/" + b"x" * 300 + b" ")
        clients = [Client(command.port) for _ in range(16)]
        for _ in range(5):
            for client in clients:
                client.send(request * 16)
            for client in clients:
                for _ in range(16):
                    assert client.response().body == b"hello"
        for client in clients:
            client.close()
        assert command.stop() == 0
    thread.join()
    os.close(reader)
    lines = bytes(found).splitlines()
    assert len(lines) == 16 * 5 * 16
    assert {line.count(b"x" * 300) for line in lines} == {1}
    assert {line[-3:] for line in lines} == {b" ms"}


@pytest.mark.parametrize("workers", ["", "2"])
def test_rotation(workers: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    files = ["--access-log-file", "access.log", "--error-log-file", "error.log"]
    words = ["--port", "0", "--lifespan", "off", *workers_option(workers), *files, "app:app"]
    (tmp_path / "access.log").write_text("yesterday\n")

    def wait_for(name: str, text: str) -> None:
        deadline = threading.Event()
        for _ in range(int(PATIENCE * 100)):
            if (tmp_path / name).exists() and text in (tmp_path / name).read_text():
                return
            deadline.wait(0.01)
        raise AssertionError(f"{name} does not say {text!r}")

    with Command(*words, cwd=tmp_path) as command:
        wait_for("error.log", "on http://")
        port = int((tmp_path / "error.log").read_text().partition("127.0.0.1:")[2].split()[0])
        with Client(port) as client:
            client.response(GET)
            wait_for("access.log", '"GET / HTTP')
            for name in ("access.log", "error.log"):
                os.rename(tmp_path / name, tmp_path / f"{name}.1")
            command.send(signal.SIGUSR1)
            wait_for("access.log", "")
            while "GET /later HTTP" not in (tmp_path / "access.log").read_text():
                client.response(GET.replace(b"/ ", b"/later "))
        assert command.stop() == 0
    assert (command.log, command.output) == ("", "")
    assert (tmp_path / "access.log.1").read_text().startswith("yesterday\n")
    assert (tmp_path / "error.log").read_text().splitlines()[-1].endswith("INFO stopped")
