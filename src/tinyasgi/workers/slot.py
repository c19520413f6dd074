"""Slots and workers: the data of the policy."""

import enum
import math
import signal
from dataclasses import dataclass

from ..config.config import Config
from ..signals import OTHERS, STOPS

#: Signals that may end a stopping worker without an error: a terminal sends them to all processes.
SIGNALS = (*STOPS, *OTHERS)
#: Name of the slot whose process imports the app and forks the workers.
ZYGOTE = "zygote"
#: Seconds before the next start, by the number of failures; the last value is the maximum.
BACK_OFF = (0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: Seconds that a worker has to live for its exit not to count as a failed start.
MIN_LIFE = 1.0


class SlotState(enum.Enum):
    """State of a slot; docs/design.md has a diagram."""

    EMPTY = "no worker; the next one starts as soon as the zygote can fork it"
    STARTING = "the worker starts; no other one serves"
    READY = "the worker serves"
    REPLACING = "the worker serves, and its successor starts"
    BACKING_OFF = "no worker until `start_at`"
    STOPPING = "no worker until the last one has exited"
    WAITING = "no worker until a file changes or a request arrives"


class WorkerState(enum.Enum):
    """State of a worker process."""

    STARTING = "starting"
    READY = "serving, or ready to fork workers"
    ENDING = "told to stop, or to retire"


@dataclass(eq=False)
class Worker:
    """A worker process, or the zygote. Times are values of `now` in the policy."""

    slot: "Slot"
    generation: int
    """Number of reloads before the start of this process, or before the start of its zygote."""
    started_at: float
    state: WorkerState = WorkerState.STARTING
    pid: int = 0
    """0 until it is known."""
    ready_at: float | None = None
    heard_at: float = 0.0
    kill_at: float = math.inf
    is_killed: bool = False
    """The supervisor has killed it."""
    failure: str = ""
    """Reason of a failed start."""

    def __str__(self) -> str:
        return f"{self.slot.name} (pid {self.pid})"

    def blocked_at(self, config: Config) -> float:
        """Return the time from which this process counts as blocked."""
        if self.state is WorkerState.ENDING or self.is_killed or self.kill_at < math.inf:
            return math.inf
        if self.state is WorkerState.STARTING:
            return self.started_at + (config.timeout_start or math.inf)
        limit = config.worker_timeout
        return self.heard_at + limit + 1 if limit and self.slot.name != ZYGOTE else math.inf


@dataclass(eq=False)
class Slot:
    """A position for a worker, which keeps its number and its accept queue."""

    index: int
    name: str
    state: SlotState = SlotState.EMPTY
    worker: Worker | None = None
    successor: Worker | None = None
    """Starts while `worker` still serves."""
    reason: str = ""
    """Why the worker is to be replaced; empty if it is not."""
    start_at: float = 0.0
    """The earliest time of the next start."""
    failures: int = 0
    """Consecutive workers that lived for less than MIN_LIFE."""

    @property
    def serving(self) -> Worker | None:
        """The worker, if it is ready."""
        return self.worker if self.state in (SlotState.READY, SlotState.REPLACING) else None

    @property
    def workers(self) -> list[Worker]:
        return [worker for worker in (self.worker, self.successor) if worker is not None]

    def remove(self, worker: Worker, now: float) -> None:
        """Remove a process that has exited or could not start. Its successor takes its place.

        Ignore a process that has lost its slot already.
        """
        if worker not in self.workers:
            return
        self.back_off(worker, now)
        if worker is self.successor:
            self.successor, self.state = None, SlotState.READY
        else:
            self.worker, self.successor, self.reason = self.successor, None, ""
            self.state = SlotState.STARTING if self.worker is not None else SlotState.BACKING_OFF

    def back_off(self, worker: Worker, now: float) -> None:
        """Set the time of the next start, after the exit of `worker`. Failures delay it."""
        lived = now - worker.ready_at if worker.ready_at is not None else 0.0
        self.failures = self.failures + 1 if lived < MIN_LIFE else 0
        self.start_at = now + BACK_OFF[min(self.failures, len(BACK_OFF) - 1)]


def exit_reason(worker: Worker, code: int | None) -> str:
    """Return why a worker exited, as one of `store.EXIT_REASONS`. code: None if it is not known."""
    if worker.is_killed:
        return "killed"
    if worker.state is WorkerState.ENDING and (not code or -code in SIGNALS):
        return "stopped"
    return "signal" if code and code < 0 else "failed"


def describe_exit(code: int | None) -> str:
    """Return how a process ended. code: None if it is not known."""
    if code is None:
        return "exited"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", maybe out of memory" if name == "SIGKILL" else "")
