"""Soak test: honest clients and attackers on one server, while its resources are measured.

Run as `python -m tests.soak SECONDS [--tls] [option of tinyasgi ...]`, or `make soak SECONDS=1800`.
It prints a line per minute. It fails if an honest request fails, if memory, descriptors or threads
grow, or if the server logs a traceback or does not stop.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc

from tests.support.helpers import Certificates

from . import attacks, http1, http2, websocket
from .peer import Address, Visit

#: Seconds after which an honest client gives up.
PATIENCE = 30.0
#: Permitted growth of the resident memory after the first two minutes, or the first quarter, of the
#: run, in MiB.
MAX_GROWTH = 12.0
HONEST: list[Visit] = http1.HONEST + websocket.HONEST + http2.HONEST
ATTACKS: list[Visit] = http1.ATTACKS + websocket.ATTACKS + attacks.ATTACKS
ERRORS = OSError, EOFError, TimeoutError, ValueError, grpc.RpcError


class Soak:
    """One run against one server process."""

    def __init__(self, server: Address, pid: int, seconds: float) -> None:
        self.server = server
        self.pid = pid
        self.end = time.monotonic() + seconds
        self.visits: Counter[str] = Counter()
        self.failures: list[str] = []

    async def repeat(self, visit: Visit, honest: bool) -> None:
        name = getattr(visit, "__name__", "visit")
        while time.monotonic() < self.end:
            try:
                async with asyncio.timeout(PATIENCE):
                    await visit(self.server)
                self.visits[name] += 1
            except ERRORS as error:
                if honest:
                    self.failures.append(f"{name}: {error!r}")
            await asyncio.sleep(0.02)

    def measure(self) -> tuple[float, int, int]:
        """Resident memory in MiB, descriptors and threads of the server."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        threads = int(re.search(r"Threads:\s+(\d+)", status)[1])  # type: ignore[index]
        return round(memory, 1), len(os.listdir(f"/proc/{self.pid}/fd")), threads

    async def run(self) -> list[str]:
        """Run all clients; return what is wrong."""
        before = self.measure()
        seconds = self.end - time.monotonic()
        settled: tuple[float, int, int] | None = None
        async with asyncio.TaskGroup() as tasks:
            for visit in HONEST + ATTACKS:
                tasks.create_task(self.repeat(visit, visit in HONEST))
            while (left := self.end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 60, seconds / 8))
                now = self.measure()
                memory, descriptors, threads = now
                left = max(self.end - time.monotonic(), 0)
                print(f"{left:6.0f} s left: {memory:.1f} MiB, {descriptors}, {threads}", flush=True)
                if settled is None and seconds - left > min(seconds / 4, 120):
                    settled = now
        for _ in range(120):  # until lingering connections are closed
            after = self.measure()
            if after[1] <= before[1]:
                break
            await asyncio.sleep(1)
        print(f"before: {before}, after: {after} (MiB, descriptors, threads)")
        print(", ".join(f"{name} {count}" for name, count in sorted(self.visits.items())))
        faults = self.failures[:20]
        if settled is not None and after[0] > settled[0] + MAX_GROWTH:
            faults.append(f"memory grew from {settled[0]:.1f} to {after[0]:.1f} MiB")
        if after[1] > before[1]:
            faults.append(f"descriptors grew from {before[1]} to {after[1]}")
        if after[2] > before[2]:
            faults.append(f"threads grew from {before[2]} to {after[2]}")
        return faults


def secure(folder: Path) -> tuple[list[str], Address]:
    """Return the options of a server with TLS, and its address without the port."""
    tls = Certificates(folder)
    contexts = {name: tls.context() for name in ("http/1.1", "h2")}
    contexts["h2"].set_alpn_protocols(["h2"])
    return ["--ssl-certfile", tls.certfile], Address(0, contexts, tls.ca_certs)


def main(seconds: float, options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        address = Address(0)
        if "--tls" in options:
            options.remove("--tls")
            more, address = secure(Path(folder))
            options += more
        options = ["--port", "0", "--cancel-on-disconnect", *options]  # for gRPC
        words = [sys.executable, "-m", "tinyasgi", "tests.soak.app:app", *options]
        server = subprocess.Popen(words, stderr=log, stdout=subprocess.DEVNULL)
        try:
            while not (match := re.search(r"https?://[^ ]+:(\d+)", Path(log.name).read_text())):
                if server.poll() is not None:
                    print(Path(log.name).read_text())
                    return 1
                time.sleep(0.1)
            address = address._replace(port=int(match[1]))
            asyncio.run(http1.honest_kept(address))
            faults = asyncio.run(Soak(address, server.pid, seconds).run())
            server.send_signal(signal.SIGTERM)
            try:
                if code := server.wait(PATIENCE):
                    faults.append(f"exit code {code}")
            except subprocess.TimeoutExpired:
                faults.append("the server did not stop")
        finally:
            server.kill()
        text = Path(log.name).read_text()
        for line in [line for line in text.splitlines() if re.search(" ERROR |Traceback", line)][
            :20
        ]:
            faults.append(line)
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
