"""The end of a process: log what it waits for, and exit at the time limit.

Two threads do this, so it works while the event loop is blocked and while the interpreter waits for
threads. One thread exits at the limit. The other one writes the log, because writing may block, for
example if stderr is a full pipe.
"""

import asyncio
import atexit
import gc
import io
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

from ..server_log import logger
from ..signals import Signals

#: Seconds between two checks of the time.
TICK = 0.05
#: Seconds from the start of a step to the first report, and between two reports.
FIRST_REPORT = 0.1
REPORT = 5.0
#: Steps with a lower time limit, in seconds, are not reported.
MIN_REPORTED = 0.5
#: Seconds for cancelled tasks to end.
LAST = 1.0
#: Seconds after the limit of a step until the event loop is assumed to be blocked.
BLOCKED = 3.0
#: Minimum seconds for threads to end.
THREADS = 0.5
#: Seconds for the rest of the shutdown after a second signal.
AT_ONCE = 1.0
#: Seconds for the functions that are registered with `atexit`.
ATEXIT = 2.0
#: Maximum number of items in one log line.
MAX_ITEMS = 5

#: A function that returns a description of each item that the process waits for.
Describe: TypeAlias = Callable[[], list[str]]


class _Step(NamedTuple):
    describe: Describe
    start: float
    limit: float
    spare: float
    """Seconds after the limit in which the event loop may still end the step itself."""


class Ending:
    """Time limits and log messages for the end of this process.

    Signal handlers may call `begin` and `hurry`. The first call starts the threads, later ones only
    set attributes.
    """

    def __init__(self, signals: Signals, exits: bool) -> None:
        """exits: the process exits when the server stops. If false, only after a signal."""
        self.signals = signals
        self.code = 0
        """The exit code at the limit."""
        self.on_exit: Callable[[], object] | None = None
        """Called when the process exits at the limit."""
        self._exits = exits
        self._hint = ""
        self._start = self._grace_end = 0.0
        self._cap = math.inf
        self._step: _Step | None = None
        self._exiting = False  # the limit has passed
        self._ends = threading.Event()  # not set between `leave` and the interpreter's shutdown
        self._ends.set()
        self._atexit_end = 0.0  # limit of the functions of atexit, 0 before they are called

    def begin(self, grace: float, by_signal: bool = False) -> None:
        """Start the time limit and the log messages. Later calls have no effect.

        grace: seconds for running requests. by_signal: a signal has stopped the process. The call
        has no effect if the process will not exit: `exits` is false, and no signal has arrived.
        """
        if self._step is not None or not (self._exits or self.signals.count):
            return
        self._start = now = time.monotonic()
        self._grace_end = now + grace
        self._hint = "; a second signal exits at once" if by_signal else ""
        self._step = _Step(_describe_main_thread, now, self._grace_end, BLOCKED)
        for run in (self._keep_time, self._report):
            with suppress(RuntimeError):  # out of threads
                threading.Thread(target=run, name="tinyasgi-exit", daemon=True).start()

    def step(self, describe: Describe, seconds: float, spare: float = 0.0) -> None:
        """Begin a step. The process exits if the step takes longer than `seconds` plus `spare`."""
        if self._step is not None:
            now = time.monotonic()
            self._step = _Step(describe, now, now + seconds, spare)

    def last_step(self, describe: Describe, least: float) -> None:
        """Begin a step for the rest of the grace period, but at least `least` seconds."""
        self.step(describe, max(self._grace_end - time.monotonic(), least))

    def hurry(self, least: float = 0.0) -> None:
        """Shorten the time limit of the exit, but leave at least `least` seconds."""
        self.begin(0.0)
        waits_for_loop = self._step is not None and self._step.spare
        seconds = max(least, AT_ONCE if waits_for_loop else THREADS)
        self._cap = min(self._cap, time.monotonic() + seconds)
        self._atexit_end = min(self._atexit_end, self._cap)
        self._grace_end = 0.0

    def leave(self, code: int) -> None:
        """Suspend the time limit until the interpreter shuts down.

        code: exit code at the limit.
        """
        self.code = code
        self.on_exit, self.signals.on_stop = None, self._on_stop  # release the app
        self.begin(LAST)
        if self._step is not None:
            self._ends.clear()
            # Python calls such functions in reverse order of their registration.
            threading._register_atexit(self._on_end)  # type: ignore[attr-defined]
            atexit.register(self._on_atexit)

    def _on_stop(self, count: int) -> None:
        self.hurry()
        self.signals.let_next_one_kill()

    def _on_end(self) -> None:
        """Resume the time limit: the interpreter shuts down, and begins to wait for threads."""
        self._cap = math.inf
        self.last_step(describe_rest, THREADS)
        self._ends.set()

    def _on_atexit(self) -> None:
        self._atexit_end = max(self._grace_end, time.monotonic() + ATEXIT)

    def _is_over(self) -> bool:
        """Wait a tick; return whether the limit has passed.

        Between `leave` and the shutdown of the interpreter there is no limit.
        """
        time.sleep(TICK)
        self._ends.wait()
        return time.monotonic() >= self._end()

    def _end(self) -> float:
        step = self._step
        if self._atexit_end or step is None:
            return self._atexit_end
        return min(step.limit + step.spare, self._cap)

    # The first thread calls nothing that can block.

    def _keep_time(self) -> None:
        while not self._is_over():
            pass
        self._exiting = True
        time.sleep(LAST + ATEXIT)
        os._exit(self.code)

    # The second thread.

    def _report(self) -> None:
        reported, due = 0, 0.0  # the hash of a function, and the time of the next report
        while not self._exiting and not self._is_over():
            now, step = time.monotonic(), self._step
            if step is None:
                continue
            if hash(step.describe) != reported:
                reported, due = hash(step.describe), now + FIRST_REPORT
            elif now >= due and step.limit - step.start >= MIN_REPORTED:
                due = now + REPORT
                with suppress(Exception):
                    self._log_step(step, now)
            del step  # it refers to the app, which this thread must not keep alive
        self._exit()

    def _log_step(self, step: _Step, now: float) -> None:
        if what := step.describe():
            more = [f"{len(what) - MAX_ITEMS} more"] if len(what) > MAX_ITEMS else []
            logger.info(
                "waiting for %s (%.1f s so far, at most %.1f s more)%s",
                ", ".join([*what[:MAX_ITEMS], *more]),
                now - self._start,
                max(self._end() - step.spare - now, 0),
                self._hint,
            )

    def _exit(self) -> None:
        step, processes = self._step, _processes()
        assert step is not None
        with suppress(Exception):
            left = [*step.describe(), *describe_rest()]
            if step.spare:
                left += _describe_main_thread()
            if left:
                over = time.monotonic() - self._start
                lines = "\n".join(dict.fromkeys(left))
                logger.warning("exiting after %.1f s, with this left behind:\n%s", over, lines)
        with suppress(Exception):
            if self.on_exit is not None:
                self.on_exit()
        for process in processes:
            with suppress(Exception):
                process.terminate()
        if self._atexit_end:
            time.sleep(LAST if processes else 0)  # now the interpreter may exit by itself
        else:
            with suppress(Exception):
                atexit._run_exitfuncs()
        flush_files()
        os._exit(self.code)


def flush_files() -> None:
    """Flush the buffers of all open files, as the interpreter does when it exits."""
    gc.unfreeze()  # otherwise files that were opened during startup are not found
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    files = [each for each in gc.get_objects() if issubclass(type(each), kinds)]
    for kind in kinds:  # text first: it is written to the buffer of another object
        for file in files:
            if isinstance(file, kind):
                with suppress(Exception):  # closed, or the disk is full
                    file.flush()


# Descriptions.


def describe_tasks(tasks: Iterable["asyncio.Task[Any]"]) -> list[str]:
    """Describe the tasks that have not ended, each with its current line."""
    return [f"task {t.get_name()} ({_where(_stack(t))})" for t in tasks if not t.done()]


def describe_threads() -> list[str]:
    """Describe the threads that the interpreter waits for, each with its current line."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        stack = _outwards(frames.get(thread.ident or 0))
        if not (thread.daemon or thread is threading.main_thread() or _ends_by_itself(stack)):
            found.append(f"thread {thread.name} ({_where(stack)})")
    return found


def _describe_main_thread() -> list[str]:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return [f"the main thread ({_where(_outwards(frame))})"]


def describe_rest() -> list[str]:
    """Describe the threads and processes that the interpreter waits for."""
    processes = [f"process {process.name} (pid {process.pid})" for process in _processes()]
    return describe_threads() + processes


def _processes() -> list[Any]:
    """Return the processes of `multiprocessing` that the interpreter waits for."""
    module = sys.modules.get("multiprocessing")
    with suppress(Exception):
        children = module.active_children()  # type: ignore[union-attr]
        return [each for each in children if not each.daemon]
    return []


def _stack(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return the frames of a suspended task, the innermost one first."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        frames.insert(0, frame)
        awaited = awaited.cr_await
    return frames


def _outwards(frame: FrameType | None) -> list[FrameType]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _ends_by_itself(stack: list[FrameType]) -> bool:
    """Return whether a thread is an idle thread of an executor, or waits for an executor."""
    names = [(f.f_code.co_name, os.path.basename(f.f_code.co_filename)) for f in stack]
    return names[:1] == [("_worker", "thread.py")] or ("shutdown", "thread.py") in names


_LIBRARY = os.path.dirname(os.__file__) + os.sep


def _where(frames: list[FrameType]) -> str:
    """Return the innermost line outside of the standard library, or else the innermost line."""
    for frame in frames:
        name = frame.f_code.co_filename
        if name.startswith("<") or (name.startswith(_LIBRARY) and "site-packages" not in name):
            continue
        break
    else:
        if not frames:
            return "not in Python code"
        frame = frames[0]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
