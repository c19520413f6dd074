"""System calls that fail in a real process: each one once, at each place, on both event loops.

strace lets them fail. So these are also the calls of uvloop and of the supervisor, which
`test_faults` can't see. A server that has started goes on, without a traceback. One that can't
start says why.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.helpers import GET, Client, Command, upload
from tests.support.processes import Start, ask, members, nothing_left, start, wait_until, who

__all__ = ["nothing_left", "start"]

pytestmark = pytest.mark.slow


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], check=False).returncode == 0


if not can_trace():
    pytest.skip("needs strace", allow_module_level=True)

#: Calls, and errors that they may have.
ERRORS = {
    "accept4": "EMFILE",
    "dup": "EMFILE",
    "epoll_create1": "EMFILE",
    "epoll_ctl": "ENOMEM",
    "getpeername": "ENOTCONN",
    "getsockname": "ENOBUFS",
    "listen": "EADDRINUSE",
    "pipe2": "EMFILE",
    "shutdown": "ENOTCONN",
    "socketpair": "EMFILE",
    "clone3": "EAGAIN",
    "vfork": "EAGAIN",
}
#: Places that are tried: of more calls, the first ones.
PLACES = 10


def trace(calls: str, *injected: str, log: str = "/dev/null") -> list[str]:
    """Arguments of strace. It is not the parent of the command, which gets the signals itself."""
    words = ["strace", "-D", "-f", "-qq", "-o", log, "-e", f"trace={calls}", "-e", "signal=none"]
    return [*words, *injected]


def serve(command: Command) -> None:
    """A request, an upload, and a client that leaves early."""
    with Client(command.port) as client:
        assert client.response(GET).status == 200
        assert client.response(upload(100_000) + bytes(100_000)).status == 200
        client.send(GET[:20])


def replace(command: Command) -> None:
    """Workers that are replaced, and one that is killed."""
    who(command.port, 2)
    command.send(signal.SIGHUP)
    command.wait_for("all workers are replaced|keep running the old code|old one keeps running")
    os.kill(who(command.port, 2)[0], signal.SIGKILL)
    command.wait_for("was killed by SIGKILL")


STORIES = {
    "asyncio": (serve, ("--loop", "asyncio")),
    "uvloop": (serve, ("--loop", "uvloop")),
    "workers": (replace, ("--workers", "2")),
    "preload": (replace, ("--workers", "2", "--preload")),
}


#: Calls whose failure the event loop does not survive, or does not handle. We can't change that:
#: no code of ours runs there.
OTHERS = {
    ("uvloop", "epoll_ctl"): "libuv aborts the process (SIGABRT) if a descriptor can't be watched",
    ("uvloop", "pipe2"): "libuv aborts the process (SIGABRT) if its pipe for signals can't be made",
    ("uvloop", "socketpair"): "uvloop makes another pair to close the loop: exit code 1 at the end",
    ("asyncio", "epoll_ctl"): "asyncio logs a traceback, and never reads from a new connection",
}
ROWS = [(story, name) for story in STORIES for name in ERRORS if (story, name) not in OTHERS]


@pytest.mark.parametrize(("story", "name"), ROWS)
def test_server_goes_on(story: str, name: str, start: Start, tmp_path: Path) -> None:
    tell, words = STORIES[story]
    if story == "uvloop":
        pytest.importorskip("uvloop")
    log = tmp_path / "calls"
    with start(*words, under=trace(name, log=str(log))) as command:
        tell(command)
        assert command.stop() == 0
    wait_until(lambda: not members(tmp_path))
    calls = re.findall(r"^(\d+) +\w+\(", log.read_text(), re.MULTILINE)
    for place in range(1, min(max(Counter(calls).values(), default=0), PLACES) + 1):
        inject = f"inject={name}:error={ERRORS[name]}:when={place}"
        with start(*words, under=trace(name, "-e", inject)) as command:
            check(command, tell, f"{name}, call {place}")


def check(command: Command, tell: Callable[[Command], None], what: str) -> None:
    """The server goes on, or it could not start and says why."""
    try:
        started = bool(command.port)
    except AssertionError:
        started = False
    if not started:
        assert command.wait() != 0, (what, command.log)
        assert re.search("ERROR|[eE]rror:", command.log), (what, command.log)
    else:
        starting = len(command.log)
        with suppress(OSError, ValueError, IndexError):  # a client may notice the failure
            tell(command)
        assert ask(command.port), (what, command.log)
        assert command.stop() == 0, (what, command.log)
        if tell is serve:  # a worker that can't start shows why
            assert "Traceback" not in command.log[starting:], (what, command.log)
