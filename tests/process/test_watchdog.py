"""An event loop that is blocked: where, for how long, and what becomes of its worker."""

import signal
import sys
import threading
import time
from typing import Any

import pytest

from tests.support.helpers import GET, LOOPS, Client, in_loop
from tests.support.processes import APP, Start, ask, nothing_left, start, who
from tinyasgi.process.watchdog import LoopWatchdog, report_slow_start

__all__ = ["nothing_left", "start"]

linux = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

BLOCK = GET.replace(b" / ", b" /block ")

#: Holds the GIL in one call of a C function: for a while, and until the process is killed.
SEARCH = "import re\n" + APP.replace("time.sleep(600)", "re.match('(a+)+$', 'a' * 25 + 'b')")
DEADLOCK = "import ctypes\nlibc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)\n"
DEADLOCK += "lock = lambda: libc.pthread_mutex_lock(mutex)\n"
DEADLOCK += APP.replace("time.sleep(600)", "lock(); lock()")


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_the_line_that_blocks_is_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    watch = LoopWatchdog(asyncio.get_running_loop(), 0.05)

    def block() -> None:
        while "here" not in caplog.text:  # the line that blocks
            pass

    block()
    while "continues after" not in caplog.text:
        await asyncio.sleep(0.001)
    watch.close()
    warning = caplog.messages[0]
    assert "blocked for 0.05 s" in warning
    assert "# the line that blocks" in warning
    assert "in block" in warning
    assert "run_forever" not in warning


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_a_loop_that_runs_is_not_reported(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    beats = []
    watch = LoopWatchdog(asyncio.get_running_loop(), 20, lambda: beats.append(1))
    while not beats:
        await asyncio.sleep(0.001)
    watch.close()
    assert caplog.text == ""


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_no_block_is_too_short_to_be_seen(
    loop: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that begins when the loop has just been seen is reported after the given time."""
    import asyncio

    waits: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is not None:
                waits.append(timeout)
            return super().wait(timeout)

    monkeypatch.setattr("tinyasgi.process.watchdog.threading.Event", Event)
    last: list[float] = []

    def block() -> None:
        while "here" not in caplog.text:
            time.sleep(0.001)
        if not last:  # the waits since the loop was last seen; the one for its turn has no end
            last.extend(waits[-2:])

    watch = LoopWatchdog(asyncio.get_running_loop(), 0.5, block)
    while "continues after" not in caplog.text:
        await asyncio.sleep(0.001)
    watch.close()
    assert sum(last) == pytest.approx(0.5)


@linux
def test_debug_blocking(start: Start, tmp_path: Any) -> None:
    (tmp_path / "blocks.py").write_text(APP.replace("time.sleep(600)", "time.sleep(0.5)"))
    with start("--debug-blocking", "0.1", app="blocks:app") as command:
        assert ask(command.port, "/block")
        command.wait_for("continues after 0")
        assert command.stop() == 0
    assert "blocked for 0.1 s, here:" in command.log
    assert "time.sleep(0.5)" in command.log
    assert "blocks.py" in command.log


@linux
def test_reload_shows_what_blocks(start: Start) -> None:
    with start("--reload") as command:
        with Client(command.port) as client:
            client.send(BLOCK)
            command.wait_for("blocked for 1 s, here:")
            command.wait_for(r"time.sleep\(600\)")
        # It is told to stop, and to be quick about it, and then it is killed.
        command.send(signal.SIGTERM)
        command.wait_for("stopping")
        command.send(signal.SIGTERM)
        command.wait_for("stopping at once")
        assert command.stop() == 0


@linux
def test_blocked_worker_is_replaced(start: Start) -> None:
    with start("--workers", "2", "--worker-timeout", "0.5") as command:
        before = who(command.port, 2)
        with Client(command.port) as client:
            client.send(BLOCK)
            pid = int(command.wait_for(r"event loop of worker \d \(pid (\d+)\) was blocked")[1])
            assert client.rest() == b""
        command.wait_for("worker . .* was killed")
        command.wait_for("is ready")
        after = who(command.port, 2)
        assert pid in before.values()
        assert pid not in after.values()
        assert len(set(before.values()) & set(after.values())) == 1
        assert command.stop() == 0
    assert "has been blocked for 0.5 s, here:" in command.log
    assert "time.sleep(600)" in command.log


@linux
def test_worker_that_holds_the_gil_is_replaced(start: Start, tmp_path: Any) -> None:
    (tmp_path / "holds.py").write_text(DEADLOCK)
    with start("--worker-timeout", "0.5", app="holds:app") as command:
        before = who(command.port, 1)
        with Client(command.port) as client:
            client.send(BLOCK)
            command.wait_for(r'File ".*holds.py", line \d+ in app')
            assert client.rest() == b""
        command.wait_for("is ready")
        assert who(command.port, 1) != before
        assert command.stop() == 0


@linux
@pytest.mark.slow
def test_busy_workers_live(start: Start, tmp_path: Any) -> None:
    """Without --worker-timeout, silence is no reason."""
    (tmp_path / "holds.py").write_text(SEARCH)
    with start("--workers", "2", app="holds:app") as command:
        before = who(command.port, 2)
        ask(command.port, "/block")
        assert who(command.port, 2) == before
        assert command.stop() == 0
    assert "killed" not in command.log


# The start.


def test_slow_start_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """With the line of the thread that starts."""
    with report_slow_start(0.02):
        while not caplog.records:
            time.sleep(0.001)
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("the app has not started after 0.01 s (--timeout-start: 0.02 s), it is")
    assert "in test_slow_start_is_reported" in text


@pytest.mark.parametrize("limit", [0, 600, 1e9])
def test_start_in_time_is_not_reported(limit: float, caplog: pytest.LogCaptureFixture) -> None:
    """And no thread is left, which a forked process must not have."""
    before = threading.active_count()
    with report_slow_start(limit):
        assert threading.active_count() == before + bool(limit)
    assert threading.active_count() == before
    assert caplog.records == []
