"""What a server takes that has little or nothing to do: time to start, memory, wake-ups."""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .load import run_wrk
from .process import HOST, Process
from .samples import Launch, Sample, Workload
from .servers import CROWD, Failure

__all__ = ["crowd", "memory_connection", "memory_idle", "start", "wakeups"]

STARTS = 5
STEPS = (1000, 2000, 3000, 4000, 5000)  # connections at which memory is read
SETTLED = 0.2  # seconds in which a server does what is left after its last answer
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # closes without a TIME_WAIT, of which there is no end of room


def start(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """From spawn to first answer: the best of a few, as noise can only add to it."""
    best = math.inf
    for _ in range(STARTS):
        with launch() as process:
            workload.check(process)
            best = min(best, process.start_ms)
    return {"value": best}


def memory_idle(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """The memory of all of a server's processes once it has answered."""
    with launch() as process:
        workload.check(process)
        return {"value": process.memory_kib() / 1024}


def memory_connection(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """What a server keeps for an open connection that waits for its next request."""
    with launch() as process, connected(process, workload) as connections:
        before = process.memory_kib()
        sample = {"value": 0.0, "MiB at 0": before / 1024}
        for step in STEPS:
            connections.open(step - len(connections.sockets))
            time.sleep(SETTLED)
            sample[f"MiB at {step}"] = process.memory_kib() / 1024
        connections.check()
        sample["value"] = (process.memory_kib() - before) / STEPS[-1]
        return sample


def wakeups(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """How often a second a server wakes up that has no connections."""
    with launch() as process:
        workload.check(process)
        time.sleep(2)  # the last of what follows a connection is over
        before, began = process.wakeups(), time.perf_counter()
        time.sleep(seconds)
        return {"value": (process.wakeups() - before) / (time.perf_counter() - began)}


def crowd(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Load on a few connections while many others wait for their next request."""
    with launch() as process, connected(process, workload) as connections:
        connections.open(CROWD - workload.connections)
        run_wrk(process, workload, 1)
        sample = run_wrk(process, workload, seconds)
        connections.check()
        return sample | {"MiB": process.memory_kib() / 1024}


class Connections:
    """Connections that have been answered once."""

    def __init__(self, port: int, answer: bytes) -> None:
        self.sockets: list[socket.socket] = []
        self._port = port
        self._answer = answer

    def open(self, count: int) -> None:
        """Opens so many more."""
        for _ in range(count):
            connection = socket.create_connection((HOST, self._port), timeout=10)
            self.sockets.append(connection)
            connection.sendall(REQUEST)
            received = b""
            while not received.endswith(self._answer):
                data = connection.recv(65536)
                if not data:
                    raise Failure(f"refused connection {len(self.sockets)}")
                received += data
            if not received.startswith(b"HTTP/1.1 200 "):
                raise Failure(f"wrong answer on connection {len(self.sockets)}")

    def check(self) -> None:
        """Fails unless all are still open."""
        poll = select.poll()
        for connection in self.sockets:
            poll.register(connection, select.POLLIN)
        if closed := len(poll.poll(0)):
            raise Failure(f"closed {closed} connections that should be kept alive")


@contextmanager
def connected(process: Process, workload: Workload) -> Iterator[Connections]:
    """Connections to a server, none at first; all are closed at the end."""
    workload.check(process)
    connections = Connections(process.port, workload.answer)
    with ExitStack() as stack:
        try:
            yield connections
        finally:
            for connection in connections.sockets:
                stack.enter_context(connection)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
