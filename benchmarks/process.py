"""One server while it runs: how it is started and stopped, and what its processes consume."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from .servers import Failure, Server, Setup

__all__ = ["CLIENT_CPU", "HOST", "ROOT", "Process", "fetch", "running"]

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]
START_LIMIT = 15.0  # seconds until the first answer
STOP_LIMIT = 3.0  # seconds from SIGTERM to SIGKILL


@dataclass(slots=True)
class Process:
    """A server that runs, the leader of a process group of its own."""

    leader: subprocess.Popen[bytes]
    port: int
    tls: bool
    start_ms: float = 0.0

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{HOST}:{self.port}/"

    def members(self) -> list[tuple[Path, list[str]]]:
        """/proc/PID of each living process of the group, and its stat from "state" on."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                stat = (directory / "stat").read_text(errors="replace")
                fields = stat.rpartition(")")[2].split()
                if int(fields[2]) == self.leader.pid and fields[0] != "Z":
                    found.append((directory, fields))
        return found

    def cpu_seconds(self) -> float:
        """User and system time, in seconds, of the group and its reaped children."""
        ticks = sum(int(field) for _, fields in self.members() for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_kib(self) -> int:
        """The proportional set size, in KiB: pages that n processes share count 1/n."""
        rollups = [(directory / "smaps_rollup").read_text() for directory, _ in self.members()]
        lines = [line for rollup in rollups for line in rollup.splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def wakeups(self) -> int:
        """How often its threads have gone to sleep so far, which is how often they woke up."""
        count = 0
        for directory, _ in self.members():
            for status in directory.glob("task/*/status"):
                lines = status.read_text().splitlines()
                count += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        return count

    def wait_until_ready(self, began: float) -> None:
        """Asks until there is an answer; began: the `perf_counter` of the spawn."""
        while True:
            try:
                fetch(self.port, tls=self.tls)
            except ConnectionRefusedError:
                ended = os.waitid(os.P_PID, self.leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended or time.perf_counter() - began > START_LIMIT:
                    raise Failure("did not start") from None
                time.sleep(0.001)
            else:
                self.start_ms = (time.perf_counter() - began) * 1000
                return

    def stop(self) -> None:
        """Asks the group to end, then ends it.

        The leader is reaped last (and never by `poll`): until then, its number is no one else's.
        """
        try:
            os.killpg(self.leader.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_LIMIT
            while self.members() and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os.killpg(self.leader.pid, signal.SIGKILL)
            self.leader.wait()


def fetch(port: int, body: bytes = b"", tls: bool = False) -> tuple[int, bytes]:
    """One request on a connection of its own; the status and the body of its response."""
    if tls:  # of a certificate that was made for this run
        context = ssl._create_unverified_context()
        connection: HTTPConnection = HTTPSConnection(HOST, port, timeout=10, context=context)
    else:
        connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("POST" if body else "GET", "/", body or None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def running(
    server: Server, python: Path, setup: Setup, tls_files: Mapping[str, Path]
) -> Iterator[Process]:
    """Runs a server on its core and a free port; it is stopped however the block is left.

    Workers get a core each, as far as there are any. An access log goes to /dev/null, so that
    formatting it is measured and the disk is not. The environment is nearly empty, so that no
    setting of the user's own shell reaches a server.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    words = server.words(setup, host=HOST, port=port, **tls_files)
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        os.sched_setaffinity(0, CPUS[: setup.workers])  # what is started now inherits it
        try:
            leader = subprocess.Popen(
                [python, *words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if setup.log else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, {CLIENT_CPU})
        process = Process(leader, port, setup.tls)
        try:
            try:
                process.wait_until_ready(began)
            except (Failure, OSError, HTTPException) as error:
                output.seek(0)
                last = output.read().decode(errors="replace").splitlines()[-1:]
                raise Failure(": ".join([str(error), *last])) from error
            yield process
        finally:
            process.stop()
