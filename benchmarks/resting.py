"""Costs of a server with little or no load: start time, memory, wake-ups."""

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

STARTS = 5
STEPS = (1000, 2000, 3000, 4000, 5000)  # numbers of connections at which memory is measured
SETTLE_TIME = 0.2  # seconds for the work of a server after its last response
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # closes without TIME_WAIT, which would use up the ports


def start(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the time to the first response: the minimum, because noise only adds to it."""
    best = math.inf
    for _ in range(STARTS):
        with launch() as process:
            workload.check(process)
            best = min(best, process.start_ms)
    return {"value": best}


def memory_idle(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the memory of all processes of a server after the first requests."""
    with launch() as process:
        workload.check(process)
        return {"value": process.memory_kib() / 1024}


def memory_connection(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the memory of an idle keep-alive connection."""
    with launch() as process, connected(process, workload) as connections:
        before = process.memory_kib()
        sample = {"value": 0.0, "MiB at 0": before / 1024}
        for step in STEPS:
            connections.open(step - len(connections.sockets))
            time.sleep(SETTLE_TIME)
            sample[f"MiB at {step}"] = process.memory_kib() / 1024
        connections.check()
        sample["value"] = (process.memory_kib() - before) / STEPS[-1]
        return sample


def wakeups(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the wake-ups per second of a server without connections."""
    with launch() as process:
        workload.check(process)
        time.sleep(2)  # until the work after a connection is done
        before, began = process.wakeups(), time.perf_counter()
        time.sleep(seconds)
        return {"value": (process.wakeups() - before) / (time.perf_counter() - began)}


def crowd(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the load of a few connections while many others are idle."""
    with launch() as process, connected(process, workload) as connections:
        connections.open(CROWD - workload.connections)
        run_wrk(process, workload, 1)
        sample = run_wrk(process, workload, seconds)
        connections.check()
        return sample | {"MiB": process.memory_kib() / 1024}


class Connections:
    """Idle keep-alive connections that have had one response."""

    def __init__(self, port: int, answer: bytes) -> None:
        self.sockets: list[socket.socket] = []
        self._port = port
        self._answer = answer

    def open(self, count: int) -> None:
        """Open more connections."""
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
                raise Failure(f"wrong response on connection {len(self.sockets)}")

    def check(self) -> None:
        """Raise Failure unless all connections are open."""
        poll = select.poll()
        for connection in self.sockets:
            poll.register(connection, select.POLLIN)
        if closed := len(poll.poll(0)):
            raise Failure(f"closed {closed} connections that should be kept alive")


@contextmanager
def connected(process: Process, workload: Workload) -> Iterator[Connections]:
    """Yield an empty set of connections; close all of them at the end."""
    workload.check(process)
    connections = Connections(process.port, workload.answer)
    with ExitStack() as stack:
        try:
            yield connections
        finally:
            for connection in connections.sockets:
                stack.enter_context(connection)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
