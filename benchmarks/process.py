"""A running server: start, stop, and the resources that its processes use."""

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

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]
START_TIMEOUT = 15.0  # seconds until the first response
STOP_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL


@dataclass(slots=True)
class Process:
    """A running server, which has a process group of its own."""

    leader: subprocess.Popen[bytes]
    port: int
    tls: bool
    start_ms: float = 0.0

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{HOST}:{self.port}/"

    def members(self) -> list[tuple[Path, list[str]]]:
        """Return the /proc directory of each live process, and its `stat` fields from state on."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has exited
                stat = (directory / "stat").read_text(errors="replace")
                fields = stat.rpartition(")")[2].split()
                if int(fields[2]) == self.leader.pid and fields[0] != "Z":
                    found.append((directory, fields))
        return found

    def cpu_seconds(self) -> float:
        """Return user and system time in seconds, including that of reaped children."""
        ticks = sum(int(field) for _, fields in self.members() for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_kib(self) -> int:
        """Return the proportional set size in KiB: a page shared by n processes counts 1/n."""
        rollups = [(directory / "smaps_rollup").read_text() for directory, _ in self.members()]
        lines = [line for rollup in rollups for line in rollup.splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def wakeups(self) -> int:
        """Return the number of voluntary context switches, which equals the number of wake-ups."""
        count = 0
        for directory, _ in self.members():
            for status in directory.glob("task/*/status"):
                lines = status.read_text().splitlines()
                count += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        return count

    def wait_until_ready(self, began: float) -> None:
        """Send requests until the first response. began: `perf_counter` at the start."""
        while True:
            try:
                fetch(self.port, tls=self.tls)
            except ConnectionRefusedError:
                ended = os.waitid(os.P_PID, self.leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended or time.perf_counter() - began > START_TIMEOUT:
                    raise Failure("did not start") from None
                time.sleep(0.001)
            else:
                self.start_ms = (time.perf_counter() - began) * 1000
                return

    def stop(self) -> None:
        """Stop the group with SIGTERM, then with SIGKILL.

        The leader is reaped last, and never by `poll`, so that its id is not reused before.
        """
        try:
            os.killpg(self.leader.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            while self.members() and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os.killpg(self.leader.pid, signal.SIGKILL)
            self.leader.wait()


def fetch(port: int, body: bytes = b"", tls: bool = False) -> tuple[int, bytes]:
    """Send one request on a new connection; return the status and the body."""
    if tls:  # with a self-signed certificate
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
    """Run a server on its core and a free port for the duration of a `with` block.

    Each worker gets a core, as long as there are cores. An access log goes to /dev/null, so that
    its formatting is measured and the disk is not. The environment is nearly empty, so that
    settings of the user's shell have no effect.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    words = server.words(setup, host=HOST, port=port, **tls_files)
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        os.sched_setaffinity(0, CPUS[: setup.workers])  # the server inherits it
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
