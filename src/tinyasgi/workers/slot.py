"""A worker as its supervisor sees it, and the place that it fills."""

import math
import signal
import socket
import time
from dataclasses import dataclass

from ..config.config import Config
from . import channel
from .channel import Channel
from .spawn import SIGNALS, Process

__all__ = ["MARGIN", "Child", "Slot", "WorkerFailed", "fate", "patience", "reason"]

#: Seconds beyond the times that a worker keeps by itself, until it is killed.
MARGIN = 10.0

#: Seconds between two starts of a worker that fails again and again.
MAX_WAIT = 30.0


class WorkerFailed(Exception):
    """A worker could not start; `code` is for the process, the message all that there is to say."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(eq=False)
class Slot:
    """A place for a worker. Its listeners stay, whoever fills it."""

    index: int
    sockets: list[socket.socket]
    worker: "Child | None" = None
    """Serves, or starts where there is none to be replaced."""
    successor: "Child | None" = None
    """Starts, and takes the place when it is ready."""
    due: str = ""
    """Why the worker is to be replaced."""
    start_at: float = 0.0
    """When the next worker may start; infinite: not before something happens."""
    failures: int = 0
    """Workers in a row that did not live for a second."""
    helper: "Child | None" = None
    """A worker of another place that takes from this queue meanwhile."""

    def back_off(self, child: "Child") -> None:
        """Sets when the next one may start after `child`: at once, then later each time."""
        now = time.monotonic()
        lived = now - child.ready_at if child.ready_at is not None else 0.0
        self.failures = self.failures + 1 if lived < 1 else 0
        self.start_at = now
        if self.failures > 1:
            self.start_at += min(2.0 ** (self.failures - 2), MAX_WAIT)

    def close(self) -> None:
        """Closes its listeners; a worker that has them goes on."""
        for sock in self.sockets:
            sock.close()


@dataclass(eq=False)
class Child:
    """A worker process, and what has been heard of it. Times are of `time.monotonic`."""

    slot: Slot
    process: Process
    channel: Channel
    generation: int
    """The count of HUP signals when it was started."""
    sockets: list[socket.socket]
    """What it accepts from."""
    shard: int
    """Where it counts, 0 for nowhere."""
    ready_at: float | None = None
    heard_at: float = 0.0
    kill_at: float = math.inf
    is_killed: bool = False
    """By its supervisor."""
    parts: str = ""
    """The names of its parser and its event loop."""
    failure: str = ""
    """What it has said of a start that failed."""

    def __str__(self) -> str:
        return f"worker {self.slot.index} (pid {self.process.pid})"

    @property
    def is_doomed(self) -> bool:
        """It was killed, or is to be."""
        return self.is_killed or self.kill_at < math.inf

    def take(self, queues: list[socket.socket]) -> None:
        """Makes it accept connections from these queues, too."""
        new = [sock for sock in queues if sock not in self.sockets]
        if new:
            self.sockets += new
            self.channel.send(channel.TAKE, sockets=new)

    def tell(self, word: str, seconds: float) -> None:
        """Tells it to end; after so many seconds it is killed."""
        if self.ready_at is not None:
            self.channel.send(word)
        else:  # it does not listen yet, and has nothing to lose
            self.process.terminate()
        self.kill_at = min(self.kill_at, time.monotonic() + seconds)


def reason(child: Child, code: int | None, told: bool) -> str:
    """What has ended a worker, in one of the words of `store.REASONS`. told: it was to end."""
    if child.is_killed:
        return "killed"
    if told and (not code or -code in SIGNALS):
        return "stopped"
    return "signal" if code and code < 0 else "failed"


def fate(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None or code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", maybe out of memory" if name == "SIGKILL" else "")


def patience(config: Config) -> float:
    """Seconds in which a worker that was told to end has ended by itself."""
    return config.shutdown_delay + 2 * config.timeout_graceful_shutdown + MARGIN
