"""How exits of workers are described and counted."""

import signal

import pytest

from tinyasgi.workers.slot import Slot, Worker, WorkerState, describe_exit, exit_reason


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, "exited"),
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGTERM, "was killed by SIGTERM"),
        (-signal.SIGKILL, "was killed by SIGKILL, maybe out of memory"),
        (-1000, "was killed by signal 1000"),
    ],
)
def test_description(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [
        (WorkerState.READY, 0, "failed"),
        (WorkerState.READY, None, "failed"),
        (WorkerState.STARTING, 3, "failed"),
        (WorkerState.READY, -signal.SIGSEGV, "signal"),
        (WorkerState.READY, -signal.SIGTERM, "signal"),
        (WorkerState.ENDING, 0, "stopped"),
        (WorkerState.ENDING, None, "stopped"),
        (WorkerState.ENDING, -signal.SIGTERM, "stopped"),
        (WorkerState.ENDING, 3, "failed"),
        (WorkerState.ENDING, -signal.SIGSEGV, "signal"),
    ],
)
def test_reason(state: WorkerState, code: int | None, reason: str) -> None:
    worker = Worker(Slot(0, "worker 0"), 0, 0.0, state)
    assert exit_reason(worker, code) == reason
    worker.is_killed = True
    assert exit_reason(worker, code) == "killed"


def test_back_off() -> None:
    """At once after a worker that has lived, else later each time."""
    slot = Slot(0, "worker 0")
    failed = Worker(slot, 0, 0.0)
    waits = []
    for _ in range(9):
        slot.back_off(failed, 100.0)
        waits.append(slot.start_at - 100.0)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    lived = Worker(slot, 0, 0.0, ready_at=99.0)
    slot.back_off(lived, 100.0)
    assert slot.start_at == 100.0
