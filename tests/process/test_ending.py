"""The end of a process: it keeps its limit, whatever the app has left running, and says so."""

import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.helpers import GET, Client, Command, workers_option
from tests.support.processes import Start, members, nothing_left, start, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

__all__ = ["nothing_left", "start"]

SLEEPING = "while True: time.sleep(0.01)"

APP = """
import asyncio, atexit, concurrent.futures, multiprocessing, os, sys, threading, time

def say(what):
    sys.stderr.write(what + "\\n")

atexit.register(say, "atexit")
kept = []

def sleep():
    say("running")
    while True: time.sleep(0.01)  # one long sleep may miss a signal

def child():
    say(f"child {os.getpid()}")
    sleep()

async def swallow():
    say("running")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("lifespan shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/websocket":
        await receive()
        await send({"type": "websocket.accept"})
        say("running")
        await asyncio.sleep(600)
    await send({"type": "http.response.start", "status": 200})
    if path == "/request":
        say("running")
        await asyncio.sleep(600)
    elif path == "/stream":
        say("running")
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)
    elif path == "/executor":
        await asyncio.to_thread(sleep)
    elif path == "/pool":
        kept.append(concurrent.futures.ThreadPoolExecutor())
        kept[-1].submit(sleep)
    elif path == "/thread":
        threading.Thread(target=sleep, name="of the app").start()
    elif path == "/task":
        kept.append(asyncio.create_task(swallow(), name="stubborn"))
    elif path == "/process":
        multiprocessing.get_context("fork").Process(target=child, name="child").start()
    elif path == "/blocked":
        sleep()
    await send({"type": "http.response.body", "body": b"hello"})
"""

#: What the app does when its request is cancelled.
BLOCK_IN_THE_END = """
async def block_in_the_end():
    say("running")
    try:
        await asyncio.sleep(600)
    finally:
        sleep()
"""

#: What the app may be doing, and what is logged of it when the time is over.
KINDS = {
    "request": "WARNING still running after 0.5 s [^:]*: .*GET /request",
    "stream": "WARNING still running after 0.5 s [^:]*: .*GET /stream",
    "websocket": "WARNING still running after 0.5 s [^:]*: .*GET /websocket",
    "executor": r"  thread \w+_\d .*app\.py:\d+ in sleep",
    "pool": r"  thread ThreadPoolExecutor\S+ .*app\.py:\d+ in sleep",
    "thread": r"  thread of the app .*app\.py:\d+ in sleep",
    "task": r"  task stubborn .*app\.py:\d+ in swallow",
    "process": r"  process child \(pid \d+\)",
}

#: `make trials` has all combinations.
SIZES = (1, len(KINDS)) if os.environ.get("TRIALS", "2") == "2" else range(len(KINDS) + 1)

UPGRADE = (
    b"GET /websocket HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(autouse=True)
def app(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)


def ask_for(command: Command, *kinds: str) -> list[Client]:
    """Has the app do these things."""
    clients = []
    for count, kind in enumerate(kinds, 1):
        clients.append(client := Client(command.port))
        path = f" /{kind} ".encode()
        client.send(UPGRADE if kind == "websocket" else GET.replace(b" / ", path))
        command.wait_for("^running$", count)
    return clients


def close(clients: Sequence[Client]) -> None:
    for client in clients:
        client.close()


ALONE = ("asyncio", "", signal.SIGTERM)


def situations() -> list[tuple[tuple[str, ...], str, str, int]]:
    """Kinds of work, event loop, workers and signal. One kind alone is tried in one way only."""
    kinds = [kinds for size in SIZES for kinds in itertools.combinations(KINDS, size)]
    ways = itertools.product(("asyncio", "uvloop"), ("", "2"), (signal.SIGTERM, signal.SIGINT))
    pairs = itertools.product(kinds, list(ways))
    return [(kinds, *way) for kinds, way in pairs if len(kinds) != 1 or way == ALONE]


@pytest.mark.parametrize(("kinds", "loop", "workers", "number"), situations())
def test_limit(
    kinds: tuple[str, ...], loop: str, workers: str, number: int, start: Start, tmp_path: Path
) -> None:
    pytest.importorskip(loop)
    words = [*workers_option(workers), "--loop", loop, "--timeout-graceful-shutdown", "0.5"]
    with start(*words) as command:
        clients = ask_for(command, *kinds)
        begun = time.monotonic()
        if number == signal.SIGINT:  # as a terminal does it
            for pid in members(tmp_path) - {int(pid) for pid in _children_of_app(command)}:
                os.kill(pid, number)
        else:
            command.send(number)
        assert command.wait() == 0
        taken = time.monotonic() - begun
        close(clients)
    for kind in kinds:
        assert re.search(KINDS[kind], command.log), command.log
    assert command.log.count("lifespan shutdown") == int(workers or 1)
    assert command.log.count("atexit") == int(workers or 1)
    assert " ERROR " not in command.log
    assert "Traceback" not in command.log
    assert taken < 30  # no figure, but it is not the 600 s of the app


def _children_of_app(command: Command) -> list[str]:
    """Processes that the app has forked: they have Python's own handler for Ctrl-C."""
    return re.findall(r"child (\d+)", command.log)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", [*KINDS, "blocked"])
def test_second_signal(kind: str, loop: str, start: Start) -> None:
    pytest.importorskip(loop)
    with start("--loop", loop, "--timeout-graceful-shutdown", "600") as command:
        clients = ask_for(command, kind)
        command.send(signal.SIGTERM)
        line = command.wait_for("waiting for (.*) .*so far.*a second signal exits at once")
        assert line
        assert command.stop() == 0
        close(clients)
    assert ("atexit" in command.log) or kind == "blocked"
    assert "Traceback" not in command.log


def test_blocked_event_loop(start: Start) -> None:
    with start("--timeout-graceful-shutdown", "0.1") as command:
        clients = ask_for(command, "blocked")
        assert command.stop() == 0
        close(clients)
    assert re.search(r"left behind:\n  the main thread \(.*app\.py:\d+ in sleep\)", command.log)
    assert "atexit" in command.log


@pytest.mark.parametrize("kind", ["thread", "blocked"])
def test_buffers_of_files_are_written_at_the_limit(kind: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"{APP}file = open('file', 'w')\nfile.write('text')\n")
    with start("--timeout-graceful-shutdown", "0.1") as command:
        clients = ask_for(command, kind)
        assert command.stop() == 0
        close(clients)
    assert (tmp_path / "file").read_text() == "text"


def test_reports_are_repeated(start: Start, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import tinyasgi, tinyasgi.process.ending\n"
        "tinyasgi.process.ending.REPORT = 0.1\n"
        "tinyasgi.run('app:app', port=0, timeout_graceful_shutdown=600)\n"
    )
    with start(script="script.py") as command:
        clients = ask_for(command, "request", "stream")
        command.send(signal.SIGTERM)
        command.wait_for("waiting for GET /(request|stream) .*, GET /(request|stream) ", 3)
        assert command.stop() == 0
        close(clients)


def test_nothing_is_reported_of_an_idle_server(start: Start) -> None:
    with start() as command:
        command.port  # noqa: B018
        assert command.stop() == 0
    assert "waiting" not in command.log
    assert "left behind" not in command.log


def test_thread_that_ends_in_time_is_waited_for(start: Start, tmp_path: Path) -> None:
    app = APP.replace(SLEEPING, "time.sleep(0.5); say('done')")
    (tmp_path / "app.py").write_text(app)
    with start("--timeout-graceful-shutdown", "60") as command:
        close(ask_for(command, "thread", "executor", "process"))
        assert command.stop() == 0
    assert command.log.count("done\n") == 3
    assert "left behind" not in command.log


@pytest.mark.parametrize("when", ["import", "startup", "startup of executor"])
def test_start_that_fails_with_a_thread(when: str, start: Start, tmp_path: Path) -> None:
    raises = "threading.Thread(target=sleep).start()\nraise ValueError('broken')\n"
    if when == "startup of executor":
        raises = "asyncio.get_running_loop().run_in_executor(None, sleep)\n" + raises
    if when != "import":
        lines = "".join(f"        {line}\n" for line in raises.splitlines())
        app = APP.replace("        await receive()\n", lines, 1)
    else:
        app = APP + raises
    (tmp_path / "app.py").write_text(app)
    with start("--lifespan", "on") as command:
        assert command.wait() == 3
    assert "ValueError: broken" in command.log
    assert "left behind:\n  thread" in command.log


def test_function_of_atexit_that_hangs(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + "atexit.register(sleep)\n")
    with start("--timeout-graceful-shutdown", "0.1") as command:
        command.port  # noqa: B018
        assert command.stop() == 0
    assert command.log.count("running") == 1


@pytest.mark.parametrize("workers", ["", "2"])
def test_reader_of_the_log_that_stands_still(workers: str, start: Start) -> None:
    """Nobody reads stderr, and the pipe is full: the process exits all the same."""
    words = [*workers_option(workers), "--log-level", "debug"]
    with start(*words, "--timeout-graceful-shutdown", "0.1") as command:
        clients = ask_for(command, "thread")
        pipe = os.open(f"/proc/{command.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(pipe, b"x")
        except BlockingIOError:
            pass
        os.close(pipe)
        command.send(signal.SIGTERM)
        if workers:  # in order, but without a word
            wait_until(lambda: "S" in _state(command.process.pid))
            command.send(signal.SIGTERM)
        assert command.process.wait(30) == 0
        close(clients)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_program_that_goes_on(start: Start, tmp_path: Path) -> None:
    """`run` returns, and what the program does then takes as long as it takes."""
    (tmp_path / "script.py").write_text(
        "import time, signal, tinyasgi\n"
        "before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)\n"
        "options = {'port': 0, 'access_log': False, 'timeout_graceful_shutdown': 0.1}\n"
        "tinyasgi.run('app:app', **options)\n"
        "time.sleep(1.5)\n"
        "assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))\n"
        "print('goes on')\n"
    )
    with start(script="script.py") as command:
        close(ask_for(command, "thread"))
        assert command.stop() == 0
    assert command.output == "goes on\n"
    assert "  thread of the app" in command.log


@pytest.mark.parametrize("is_main", [True, False])
def test_program_that_no_signal_stops(is_main: bool, start: Start, tmp_path: Path) -> None:
    """It waits for its threads as long as they run."""
    (tmp_path / "app.py").write_text(APP.replace(SLEEPING, "time.sleep(1.5)"))
    serve = "tinyasgi.run(app.app, port=0, limit_max_requests=1, access_log=False)"
    begin = "serve()" if is_main else "thread = threading.Thread(target=serve); thread.start()"
    (tmp_path / "script.py").write_text(
        f"import threading, app, tinyasgi\ndef serve():\n    {serve}\n{begin}\n"
        + "thread.join()\n" * (not is_main)
        + "print('goes on')\n"
    )
    with start(script="script.py") as command:
        close(ask_for(command, "executor"))
        assert command.wait() == 0
    assert command.output == "goes on\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stop_of_a_worker_that_is_replaced(loop: str, start: Start) -> None:
    pytest.importorskip(loop)
    words = ["--workers", "1", "--loop", loop, "--timeout-graceful-shutdown", "0.5"]
    with start(*words) as command:
        clients = ask_for(command, "executor", "pool")
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        assert command.stop() == 0
        close(clients)
    assert "left behind:\n  thread" in command.log
    assert "Traceback" not in command.log


def test_signal_in_the_end_of_the_interpreter(start: Start, tmp_path: Path) -> None:
    """When it has given up its handlers."""
    (tmp_path / "app.py").write_text(
        "import os, sys, time\nclass Last:\n"
        "    def __del__(self, write=os.write, sleep=time.sleep):\n"
        "        write(2, b'last\\n')\n        sleep(0.5)\n"
        f"sys.last = Last()\n{APP}"
    )
    with start() as command:
        command.port  # noqa: B018
        command.send(signal.SIGTERM)
        command.wait_for("^last$")
        assert command.stop() == 0


@pytest.mark.parametrize("words", [(), ("--workers", "2")])
def test_files_of_the_app_are_flushed(words: tuple[str, ...], start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + "file = open('data', 'a')\nfile.write('data')\n")
    with start(*words) as command:
        command.port  # noqa: B018
        assert command.stop() == 0
    assert (tmp_path / "data").read_text() == "data" * (2 if words else 1)


@pytest.mark.parametrize("when", ["before", "during"])
def test_sockets_are_removed(when: str, start: Start, tmp_path: Path) -> None:
    """Also when the event loop is blocked in the end, be it before or during the stop."""
    if when == "during":
        app = APP.replace('"/blocked":\n', '"/blocked":\n        await block_in_the_end()\n')
        (tmp_path / "app.py").write_text(app + BLOCK_IN_THE_END)
    with start("--uds", "sock", "--timeout-graceful-shutdown", "0.1") as command:
        command.wait_for("Ctrl-C")
        with Client(str(tmp_path / "sock")) as client:
            client.send(GET.replace(b" / ", b" /blocked "))
            command.wait_for("running")
            assert command.stop() == 0
    wait_until(lambda: not members(tmp_path))
    assert not (tmp_path / "sock").exists()
