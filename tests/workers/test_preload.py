"""Workers that are forked off a process that has imported the app."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    APP,
    SLEEP,
    Start,
    ask,
    children,
    nothing_left,
    start,
    wait_until,
    who,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at memory in /proc")

__all__ = ["nothing_left", "start"]

SHOUTING = "import sys\nprint('imported', file=sys.stderr, flush=True)\n" + APP


def test_app_is_imported_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOUTING)
    with start("--preload", "--workers", "3") as command:
        assert who(command.port, 3).keys() == {0, 1, 2}
        assert command.stop() == 0
    assert command.log.count("imported") == 1
    assert command.log.count("shutdown of") == 3
    assert "Traceback" not in command.log
    assert "Warning" not in command.log


def test_workers_have_only_their_own_sockets(start: Start) -> None:
    """A zygote may receive the sockets of several workers at once."""
    with start("--preload", "--workers", "4") as command:
        pids = who(command.port, 4).values()
        assert [len(_listeners(pid)) for pid in pids] == [1, 1, 1, 1]
        assert command.stop() == 0


def _listeners(pid: int) -> list[str]:
    """Return the listening TCP sockets of a process."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    return [
        name for path in Path(f"/proc/{pid}/fd").iterdir() if (name := _target(path)) in listening
    ]


def _target(path: Path) -> str:
    with suppress(OSError):  # closed meanwhile
        return str(path.readlink())
    return ""


def test_an_exception_ends_a_forked_process_like_any_other() -> None:
    code = (
        "import os; from tinyasgi.workers import spawn\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(spawn.fork(lambda: 1 / 0), 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("how", ["closed by the parent", "closed by the app"])
def test_no_stdout(how: str, start: Start, tmp_path: Path) -> None:
    words = ("--preload", "--workers", "2")
    if how == "closed by the app":
        (tmp_path / "app.py").write_text(f"import sys\nsys.stdout.close()\n{APP}")
    else:
        (tmp_path / "script.py").write_text(
            "import os, sys\nos.close(1)\nos.execv(sys.executable, [sys.executable, '-m',"
            f" 'tinyasgi', '--port', '0', *{words}, 'app:app'])\n"
        )
        words = ()
    with start(*words, **({} if words else {"script": "script.py"})) as command:
        before = who(command.port, 2)
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        assert who(command.port, 2) != before
        assert command.stop() == 0
    assert "Traceback" not in command.log


ENDING = """
import atexit, multiprocessing, threading
closed = threading.Event()

def rest():
    closed.wait()
    say("end of a thread")

def begin():
    atexit.register(say, "end of a worker")
    threading.Thread(target=rest).start()

atexit.register(say, "end of the supervisor")
multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
"""


def test_end_of_a_worker(start: Start, tmp_path: Path) -> None:
    """It waits for its own threads, and calls its own functions of `atexit`."""
    app = APP.replace("        await receive()\n", "        begin()\n        await receive()\n", 1)
    app = app.replace('        say(f"shutdown', '        closed.set()\n        say(f"shutdown')
    (tmp_path / "app.py").write_text(app + ENDING)
    with start("--preload", "--workers", "2", "--timeout-graceful-shutdown", "1") as command:
        before = who(command.port, 2)
        os.kill(before[0], signal.SIGTERM)  # it is replaced
        command.wait_for("end of a worker")
        assert command.stop() == 0
    assert command.log.count("end of a thread") == command.log.count("end of a worker") == 3
    assert command.log.count("end of the supervisor") == 1
    assert command.log.count("  process ForkProcess-1") == 1
    assert "Traceback" not in command.log


FILES = """
shared = open("shared", "w")
shared.write("import\\n")
own = None

def begin():
    global own
    own = open(f"own{os.getpid()}", "w")
    own.write("text")
    shared.write("worker\\n")
"""


def test_buffers_of_files_are_written(start: Start, tmp_path: Path) -> None:
    """Each process writes the data that it has put there, once."""
    app = APP.replace("        await receive()\n", "        begin()\n        await receive()\n", 1)
    (tmp_path / "app.py").write_text(app + FILES)
    with start("--preload", "--workers", "2") as command:
        who(command.port, 2)
        assert command.stop() == 0
    assert [file.read_text() for file in tmp_path.glob("own*")] == ["text"] * 2
    assert (tmp_path / "shared").read_text() == "import\nworker\nworker\n"


def test_memory_is_shared(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + "data = [str(n) for n in range(1_000_000)]\n")

    def used(pids: list[int]) -> int:
        """Bytes, where what n processes share counts as one n-th in each."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        return sum(int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1]) for text in texts)  # type: ignore[index]

    with start() as command:
        alone = used(list(who(command.port, 1).values()))
        assert command.stop() == 0
    with start("--preload", "--workers", "4") as command:
        workers = list(who(command.port, 4).values())
        assert used([*workers, command.process.pid]) < 2 * alone
        assert command.stop() == 0


@pytest.mark.slow
def test_killed_worker_is_replaced(start: Start) -> None:
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        os.kill(before[1], signal.SIGKILL)
        command.wait_for("worker 1 .* is ready")
        after = who(command.port, 2)
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert command.stop() == 0


def test_worker_that_dies_while_its_zygote_is_suspended(start: Start) -> None:
    """Its exit is noticed, so another worker accepts in its place."""
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (zygote,) = children(command.process.pid)
        os.kill(zygote, signal.SIGSTOP)
        os.kill(before[1], signal.SIGKILL)
        command.wait_for(rf"worker 1 \(pid {before[1]}\) exited")
        assert {int(ask(command.port).split()[1]) for _ in range(20)} == {before[0]}
        os.kill(zygote, signal.SIGCONT)
        command.wait_for("worker 1 .* is ready")
        assert who(command.port, 2)[0] == before[0]
        assert command.stop() == 0


def test_workers_leave_when_their_parent_dies(start: Start) -> None:
    with start("--preload", "--workers", "2") as command:
        workers = who(command.port, 2)
        command.process.kill()
        command.wait()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers.values()))
    assert command.log.count("shutdown of") == 2


def test_hup_imports_the_app_anew(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOUTING)
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "app.py").write_text(SHOUTING.replace('f"{os', 'f"1{os'))
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        for pid in before.values():
            command.wait_for(f"shutdown of {pid}")
        assert who(command.port, 2).keys() == {10, 11}
        assert command.stop() == 0
    assert command.log.count("imported") == 2


@pytest.mark.slow
def test_hup_with_an_app_that_fails(start: Start, tmp_path: Path) -> None:
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (tmp_path / "app.py").write_text("raise ValueError('broken')")
        command.send(signal.SIGHUP)
        command.wait_for("reload failed; 2 of 2 workers keep running the old code: the new zygote")
        command.wait_for("ValueError: broken")
        assert who(command.port, 2) == before
        (tmp_path / "app.py").write_text(APP.replace('f"{os', 'f"1{os'))
        command.send(signal.SIGHUP)
        command.wait_for("is ready and has replaced", 2)
        for pid in before.values():
            command.wait_for(f"shutdown of {pid}")
        assert who(command.port, 2).keys() == {10, 11}
        assert command.stop() == 0
        assert all(line.strip() for line in command.log.splitlines())


def test_app_that_fails(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise ValueError('broken')")
    with start("--preload", "--workers", "2") as command:
        assert command.wait() == 3
    assert command.log.count("Traceback") == 1
    assert "ValueError: broken" in command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_during_the_import(number: int, start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOUTING + SLEEP)
    with start("--preload") as command:
        command.wait_for("imported")
        assert command.stop(number) == 0
    assert "Traceback" not in command.log


@pytest.mark.slow
def test_environment(start: Start, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("NAME=7\n")
    (tmp_path / "app.py").write_text(APP.replace("os.environ['TINYASGI_WORKER']", "name"))
    with (tmp_path / "app.py").open("a") as file:
        file.write("name = os.environ['NAME']\n")
    pytest.importorskip("dotenv")
    with start("--preload", "--env-file", "settings") as command:
        assert who(command.port, 1).keys() == {7}
        (tmp_path / "settings").write_text("NAME=8\n")
        command.send(signal.SIGHUP)
        command.wait_for("shutdown of")
        assert who(command.port, 1).keys() == {8}
        assert command.stop() == 0


# The zygote.


@pytest.mark.slow
def test_zygote_that_is_killed(start: Start, tmp_path: Path) -> None:
    """Workers go on, and their exits are still noticed; further ones have another zygote."""
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (zygote,) = children(command.process.pid)
        assert children(zygote) == set(before.values())
        os.kill(zygote, signal.SIGKILL)
        command.wait_for(rf"zygote \(pid {zygote}\) was killed by SIGKILL")
        command.wait_for("zygote .* is ready")
        assert who(command.port, 2) == before
        os.kill(before[1], signal.SIGKILL)
        command.wait_for(rf"worker 1 \(pid {before[1]}\) was killed by SIGKILL")
        command.wait_for("worker 1 .* is ready")
        assert who(command.port, 2)[0] == before[0]
        assert command.stop() == 0
    assert command.log.count("shutdown of") == 2


def test_zygote_that_is_killed_before_it_forks(start: Start) -> None:
    """The worker that it should have forked comes from the next zygote."""
    with start("--preload", "--workers", "1") as command:
        before = who(command.port, 1)
        (zygote,) = children(command.process.pid)
        os.kill(zygote, signal.SIGSTOP)
        command.send(signal.SIGTTIN)
        command.wait_for("now running 2 workers")
        os.kill(zygote, signal.SIGKILL)
        command.wait_for("worker 1 .* is ready")
        assert who(command.port, 2)[0] == before[0]
        assert command.stop() == 0
    assert "Traceback" not in command.log


def test_zygote_that_is_killed_in_a_reload(start: Start, tmp_path: Path) -> None:
    """The workers stay, and a newer reload ends one that hangs."""
    with start("--preload", "--workers", "2") as command:
        before = who(command.port, 2)
        (old,) = children(command.process.pid)
        (tmp_path / "app.py").write_text(f"{SHOUTING}{SLEEP}")
        command.send(signal.SIGHUP)
        command.wait_for("imported")
        (hanging,) = children(command.process.pid) - {old}
        os.kill(hanging, signal.SIGKILL)
        command.wait_for("reload failed; 2 of 2 workers keep running the old code: the new zygote")
        assert who(command.port, 2) == before
        command.send(signal.SIGHUP)
        command.wait_for("imported", 2)
        (tmp_path / "app.py").write_text(APP)
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        assert command.stop() == 0
    assert "Traceback" not in command.log


def test_signals_right_after_a_fork(start: Start) -> None:
    """None is handled by the wrong process."""
    with start("--preload", "--workers", "1") as command:
        before = who(command.port, 1)
        for count in range(1, 11):
            command.send(signal.SIGTTIN)
            command.wait_for("now running 2 workers", count)
            for pid in (command.process.pid, *members_of(command)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTTOU)
            command.wait_for("now running 1 worker$", count)
        wait_until(lambda: len(members_of(command)) == 2)
        assert who(command.port, 1) == before
        assert command.stop() == 0
    assert "Traceback" not in command.log


def members_of(command: Any) -> set[int]:
    """The zygote and the workers."""
    zygotes = children(command.process.pid)
    return zygotes.union(*(children(zygote) for zygote in zygotes))


def test_thread_that_the_import_starts(start: Start, tmp_path: Path) -> None:
    """It keeps neither the zygote nor the service from their end."""
    (tmp_path / "app.py").write_text(
        f"import threading\nthreading.Thread(target=threading.Event().wait).start()\n{APP}"
    )
    words = ["--preload", "--timeout-graceful-shutdown", "0.1"]
    with start(*words, PYTHONWARNINGS="") as command:
        before = who(command.port, 1)
        command.send(signal.SIGHUP)
        command.wait_for("all workers are replaced")
        command.wait_for(f"shutdown of {before[0]}")
        assert who(command.port, 1) != before
        assert command.stop() == 0


def test_orphans_are_reaped(start: Start, tmp_path: Path) -> None:
    orphan = """\
        if not os.fork():
            os.fork()
            os._exit(0)
        os.wait()
"""
    app = APP.replace(
        '    if path == "/block":', f'    if path == "/orphan":\n{orphan}    if path == "/block":'
    )
    (tmp_path / "app.py").write_text(app)
    with start("--preload", PYTHONWARNINGS="") as command:
        for _ in range(3):
            ask(command.port, "/orphan")
        wait_until(lambda: len(children(command.process.pid)) == 1)
        assert command.stop() == 0
