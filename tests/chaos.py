"""A server with several processes under load, and everything that can happen to them at random.

Run as `python -m tests.chaos SECONDS [option of tinyasgi ...]`, or `make chaos SECONDS=600`. RATE
sets the requests per second, SEED repeats a run. It prints a line per event and per minute. It
fails if a request is lost that was not with a killed worker, if descriptors or processes stay
behind, if memory grows, or if the server does not stop.
"""

import contextlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.helpers import Command
from tests.support.load import Failure, Load
from tests.support.processes import APP, SLEEP, children, is_alive, members, wait_until

#: Growth of the supervisor's resident memory that passes, in MiB.
MAX_GROWTH = 8.0
#: Seconds before and after the kill of a worker in which its requests are lost.
MARGIN = 0.5
HANGS = f"import time\n{SLEEP}"
#: Listeners of slots that are removed stay open. So all of them are there from the beginning.
MAX_WORKERS = 6
#: Events after which requests may be lost.
KILLS = ("kill a worker",)


class Chaos:
    """Causes events, and remembers when they were."""

    def __init__(self, folder: Path, command: Command, load: Load, chance: random.Random) -> None:
        self._folder = folder
        self._command = command
        self._load = load
        self._chance = chance
        self.pid = command.process.pid
        self.times: list[tuple[str, float, float]] = []
        self.events: dict[str, Callable[[], object]] = {
            "HUP": lambda: self._send(signal.SIGHUP),
            "HUP, twice": lambda: (self._send(signal.SIGHUP), self._send(signal.SIGHUP)),
            "TTIN": lambda: len(self.workers()) < MAX_WORKERS and self._send(signal.SIGTTIN),
            "TTOU": lambda: self._send(signal.SIGTTOU),
            "TTIN and TTOU": lambda: (self._send(signal.SIGTTIN), self._send(signal.SIGTTOU)),
            "USR1": lambda: self._send(signal.SIGUSR1),
            "TERM to a worker": lambda: self._signal_worker(signal.SIGTERM),
            "kill a worker": lambda: self._signal_worker(signal.SIGKILL),
            "kill the zygote": self._kill_zygote,
            "stop a worker": lambda: self._suspend(self._worker()),
            "stop the zygote": lambda: self._suspend(self._zygote()),
            "stop the supervisor": lambda: self._suspend(self.pid),
            "an import that fails": lambda: self._replace_app("raise ValueError('broken')\n"),
            "an import that hangs": lambda: self._replace_app(HANGS),
            "a file changes": lambda: self._write(f"{APP}# {time.time()}\n"),
            "no descriptor is free": lambda: self._limit(resource.RLIMIT_NOFILE),
            "the disk is full": lambda: self._limit(resource.RLIMIT_FSIZE),
        }

    def cause(self) -> None:
        name = self._chance.choice(list(self.events))
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.events[name]()
        self.times.append((name, begun, time.monotonic()))
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)

    def cause_of(self, failure: Failure) -> str:
        """Return the event that explains a lost request."""
        for name, begun, ended in self.times:
            if name in KILLS and failure.begun <= ended + MARGIN and begun <= failure.ended:
                return name
        return f"unknown: {failure.error}"

    def _send(self, number: int) -> None:
        os.kill(self.pid, number)

    def workers(self) -> list[int]:
        """Return the workers that have answered and are alive."""
        return [
            pid for pid in {int(body.split()[1]) for body in self._load.answers} if is_alive(pid)
        ]

    def _worker(self) -> int:
        return self._chance.choice(self.workers() or [0])

    def _zygote(self) -> int:
        """Return the zygote, or 0 if there is none."""
        found = [pid for pid in children(self.pid) if b"zygote" in _command_line(pid)]
        return next((pid for pid in found if pid not in self.workers()), 0)

    def _signal_worker(self, number: int) -> None:
        if pid := self._worker():
            os.kill(pid, number)

    def _kill_zygote(self) -> None:
        if pid := self._zygote():
            os.kill(pid, signal.SIGKILL)

    def _suspend(self, pid: int) -> None:
        if pid:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._chance.random() * 2)
            os.kill(pid, signal.SIGCONT)

    def _write(self, text: str) -> None:
        new = self._folder / "app.new"
        new.write_text(text)
        os.replace(new, self._folder / "app.py")

    def _replace_app(self, text: str) -> None:
        """Reload with an app that does not start."""
        self._write(text)
        self._send(signal.SIGHUP)
        time.sleep(self._chance.random() * 3)
        self._write(APP)
        if self._chance.random() < 0.5:
            self._send(signal.SIGHUP)

    def _limit(self, kind: int) -> None:
        """Let the supervisor or a worker open no more files, or write to none."""
        pid = self._chance.choice([self.pid, self._worker() or self.pid])
        before = resource.prlimit(pid, kind)
        count = len(os.listdir(f"/proc/{pid}/fd")) if kind == resource.RLIMIT_NOFILE else 0
        resource.prlimit(pid, kind, (count, before[1]))
        try:
            self._send(self._chance.choice([signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1]))
            time.sleep(self._chance.random() * 2)
        finally:
            resource.prlimit(pid, kind, before)

    def settle(self) -> None:
        """Return to two workers of the current app, and wait until that is all there is."""
        self._write(APP)
        for _ in range(MAX_WORKERS * 3):  # removes all workers but one
            self._send(signal.SIGTTOU)
            time.sleep(0.02)
        self._send(signal.SIGTTIN)
        self._send(signal.SIGHUP)
        end = time.monotonic() + 60
        while len(members(self._folder)) != self.size and time.monotonic() < end:
            time.sleep(0.1)

    size = 3
    """Processes of the server when nothing happens."""


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def state(pid: int) -> tuple[int, float]:
    """Return the number of descriptors and the resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return len(os.listdir(f"/proc/{pid}/fd")), int(found[1]) / 1024 if found else 0.0


@contextlib.contextmanager
def reading(command: Command) -> Iterator[None]:
    """Read the log all the time, for a full pipe would stop the server."""

    def read() -> None:
        assert command.process.stderr is not None
        for line in command.process.stderr:
            command.log += line

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


def main(seconds: float, *options: str) -> int:
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    rate = int(os.environ.get("RATE", "1000"))
    print(f"SEED={seed}, {rate} requests per second for {seconds:g} s, {' '.join(options)}")
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "app.py").write_text(APP)
        words = ["--workers", "2", "--port", "0", "--access-log-file", "access.log"]
        words += ["--timeout-graceful-shutdown", "5", "--timeout-start", "60", *options, "app:app"]
        command = Command(*words, cwd=folder, PYTHONWARNINGS="")
        command._watchdog.cancel()
        load = Load(command.port, rate)
        chaos = Chaos(folder, command, load, random.Random(seed))
        chaos.size += "--preload" in options
        with reading(command):
            with load:
                wait_until(lambda: len(load.answers) == 2)
                for _ in range(MAX_WORKERS * 2):
                    command.send(signal.SIGTTIN)
                    time.sleep(0.1)
                chaos.settle()
                first = state(chaos.pid)
                begun = reported = time.monotonic()
                while time.monotonic() < begun + seconds and command.process.poll() is None:
                    chaos.cause()
                    time.sleep(chaos._chance.random() * 2)
                    if time.monotonic() > reported + 60:
                        reported = time.monotonic()
                        print(f"{load.count} answers, {len(load.failures)} lost", state(chaos.pid))
                if command.process.poll() is None:
                    chaos.settle()
                    last = state(chaos.pid)
            if command.process.poll() is not None:
                faults.append(f"the server exited with code {command.process.poll()}")
            else:
                command.send(signal.SIGTERM)
                code = command.process.wait(60)
                print(
                    f"descriptors: {first[0]}, then {last[0]}; MiB: {first[1]:.1f}, {last[1]:.1f}"
                )
                faults += [f"exit code {code}"] * bool(code)
                faults += ["descriptors were not closed"] * (last[0] > first[0])
                faults += ["memory has grown"] * (last[1] > first[1] + MAX_GROWTH)
        lost = Counter(map(chaos.cause_of, load.failures))
        print(f"lost by cause: {dict(lost)}")
        faults += [f"{count} lost: {cause}" for cause, count in lost.items() if cause not in KILLS]
        if left := members(folder):
            faults.append(f"processes are left: {left}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if re.search(r"Traceback[^\n]*(\n  .*)*workers/supervisor.py", command.log):
            faults.append("a traceback of the supervisor")
        if faults or "LOG" in os.environ:
            print(command.log)
    print("\n".join(faults) or "passed")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:]))
