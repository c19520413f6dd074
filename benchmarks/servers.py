"""The servers that are compared: how each is started, stopped, and what its processes consume."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HOST = "127.0.0.1"
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[:2][-1]
START_LIMIT = 15.0  # seconds until the first answer
STOP_LIMIT = 3.0  # seconds from SIGTERM to SIGKILL


class Failure(Exception):
    """A server did not start, or did not answer as the workload expects."""


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the table: the words after the interpreter, and the server's part in it all."""

    name: str
    command: str
    is_peer: bool = False
    is_fixed: bool = False  # it can only ever give the reply of ``apps.hello``


# Every server at its best for one core. For granian that is its own default threads (one runtime
# thread, one blocking thread) and runtime mode; HTTP/1 alone, without WebSockets, was measured a
# few per cent faster, and the pipeline flush makes it half as fast again when requests are
# pipelined, at no cost otherwise. Its "rust" task loop is left out: not for Python 3.12 or later.
SERVERS = {
    server.name: server
    for server in (
        Server(
            "tinyasgi",
            "-m tinyasgi benchmarks.apps:{app} --host {host} --port {port} {log}"
            " --loop uvloop --http httptools",
        ),
        Server(
            "uvicorn",
            "-m uvicorn benchmarks.apps:{app} --host {host} --port {port} {log}"
            " --loop uvloop --http httptools --no-proxy-headers",
            is_peer=True,
        ),
        Server(
            "granian",
            "-m granian benchmarks.apps:{app} --host {host} --port {port} {log}"
            " --interface asgi --loop uvloop --workers 1 --http 1 --no-ws --http1-pipeline-flush",
            is_peer=True,
        ),
        Server("floor", "-m benchmarks.floor {port}", is_fixed=True),
    )
}


@dataclass(slots=True)
class Process:
    """A server that runs, the leader of a process group of its own."""

    leader: subprocess.Popen[bytes]
    port: int
    start_ms: float = 0.0

    def members(self) -> list[tuple[Path, list[str]]]:
        """Return /proc/PID of each living process of the group, and its stat from "state" on."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                stat = (directory / "stat").read_text(errors="replace")
                fields = stat.rpartition(")")[2].split()
                if int(fields[2]) == self.leader.pid and fields[0] != "Z":
                    found.append((directory, fields))
        return found

    def cpu_seconds(self) -> float:
        """Return the user and system time, in seconds, of the group and its reaped children."""
        ticks = sum(int(field) for _, fields in self.members() for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_kib(self) -> int:
        """Return the proportional set size, in KiB: pages that n processes share count 1/n."""
        rollups = [(directory / "smaps_rollup").read_text() for directory, _ in self.members()]
        lines = [line for rollup in rollups for line in rollup.splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def wait_until_ready(self, began: float) -> None:
        """Ask until there is an answer; ``began`` is the ``perf_counter`` of the spawn."""
        while True:
            try:
                fetch(self.port)
            except ConnectionRefusedError:
                ended = os.waitid(os.P_PID, self.leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended or time.perf_counter() - began > START_LIMIT:
                    raise Failure("did not start") from None
                time.sleep(0.001)
            else:
                self.start_ms = (time.perf_counter() - began) * 1000
                return

    def stop(self) -> None:
        """Ask the group to end, then end it.

        The leader is reaped last (and never by ``poll``): until then, its number is no one else's.
        """
        try:
            os.killpg(self.leader.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_LIMIT
            while self.members() and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            os.killpg(self.leader.pid, signal.SIGKILL)
            self.leader.wait()


def fetch(port: int, body: bytes = b"") -> tuple[int, bytes]:
    """Make one request on a connection of its own; return the status and the body."""
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("POST" if body else "GET", "/", body or None)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def running(server: Server, python: Path, app: str, log: bool) -> Iterator[Process]:
    """Run ``server`` on its core and a free port; it is stopped however the block is left.

    An access log goes to /dev/null, so that formatting it is measured and the disk is not. The
    environment is nearly empty, so that no setting of the user's own shell reaches a server.
    """
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    option = "--access-log" if log else "--no-access-log"
    command = server.command.format(app=app, host=HOST, port=port, log=option)
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        os.sched_setaffinity(0, {SERVER_CPU})  # what is started now inherits it
        try:
            leader = subprocess.Popen(
                [python, *command.split()],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if log else output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, {CLIENT_CPU})
        process = Process(leader, port)
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


def own_python() -> Path:
    """Return the interpreter of ``benchmarks/.venv``, made anew when what it holds has changed.

    It holds the pinned peers and this checkout, installed in place: always the code of today.
    """
    home, requirements = HERE / ".venv", HERE / "requirements.txt"
    python, stamp = home / "bin" / "python", home / "made-from.txt"
    wanted = requirements.read_text() + (ROOT / "pyproject.toml").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print("Making benchmarks/.venv ...", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run([*install, "-e", f"{ROOT}[standard]"], check=True, timeout=600)
        stamp.write_text(wanted)
    return python
