"""Workers that are replaced while HTTP/2 clients send requests: no stream fails."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from tests.support.helpers import PATIENCE, Certificates, Command
from tests.support.processes import Start, children, nothing_left, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc"),
    pytest.mark.skipif(not shutil.which("h2load"), reason="no h2load: make clients"),
]

__all__ = ["nothing_left", "start"]

#: Requests of a run without a failure. A run whose connections are refused starts none.
RUN = re.compile(rb"[1-9]\d* started, \d+ done, (\d+) succeeded, 0 failed, 0 errored, 0 timeout")


class H2Load:
    """Runs of h2load, one after another, until the end of the block."""

    def __init__(self, url: str) -> None:
        # With a duration, it connects again after GOAWAY.
        self.command = ["h2load", "--duration", "2", "-c", "4", "-m", "8", url]
        self.succeeded = 0
        self.failures: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "H2Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ends.is_set():
            done = subprocess.run(self.command, capture_output=True, timeout=PATIENCE, check=False)
            # On a busy machine, the first response may come after the end of a run.
            if found := RUN.search(done.stdout):
                self.succeeded += int(found[1])
            else:
                lines = re.findall(r"requests: .*|status codes: .*", done.stdout.decode())
                self.failures.append("\n".join(lines) + done.stderr.decode())


@pytest.fixture(params=["plain", "TLS"])
def words(request: pytest.FixtureRequest, tls: Certificates) -> list[str]:
    return ["--ssl-certfile", tls.certfile] if request.param == "TLS" else []


def load(command: Command, words: list[str]) -> H2Load:
    return H2Load(f"{'https' if words else 'http'}://127.0.0.1:{command.port}/")


def test_nothing_fails_when_workers_are_replaced(start: Start, words: list[str]) -> None:
    with start("--workers", "2", *words) as command, load(command, words) as clients:
        for count in (1, 2):
            command.send(signal.SIGHUP)
            command.wait_for("all workers are replaced", count)
    assert clients.failures == []
    assert clients.succeeded


def test_nothing_fails_when_single_workers_are_stopped(start: Start, words: list[str]) -> None:
    with start("--workers", "2", *words) as command, load(command, words) as clients:
        for count in (1, 2):
            os.kill(max(children(command.process.pid)), signal.SIGTERM)
            command.wait_for(r"worker \d .* is ready", count)
    assert clients.failures == []
    assert clients.succeeded


def test_nothing_fails_when_workers_have_had_their_requests(start: Start, words: list[str]) -> None:
    options = ["--workers", "2", "--limit-max-requests", "300"]
    with start(*options, *words) as command, load(command, words) as clients:
        command.wait_for("is ready and has replaced", 4)
    assert clients.failures == []
    assert clients.succeeded
