"""Detection of a blocked event loop, with the stack that blocks it."""

import asyncio
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..server_log import logger

#: Number of checks of the loop within the time limit.
PARTS = 10
#: Seconds after the limit until the thread of the watchdog is assumed to be blocked as well.
HELD = 0.5
#: A logged stack begins after the frames of these files.
_LOOP = ("asyncio/runners.py", "asyncio/base_events.py", "asyncio/events.py")


class LoopWatchdog:
    """A thread that checks whether the event loop of the current thread runs.

    If the loop is blocked for `seconds`, the watchdog logs the stack of its thread. When
    the loop continues, the watchdog logs how long it was blocked. The interval between two checks
    is a tenth of `seconds`, but at most one second. A block that is shorter than `seconds` by less
    than this interval may be reported, too.

    beat: called in the loop after each check. dump: also detect code that holds the GIL, and then
    write the stacks of all threads to stderr, without a log format.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        beat: Callable[[], None] | None = None,
        dump: bool = False,
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._beat = beat
        self._dump = dump
        self._blocked = threading.get_ident()
        self._turn = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._turn.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _take_turn(self) -> None:
        """Show that the loop runs. Called in the loop."""
        self._turn.set()
        if self._beat is not None:
            self._beat()

    def _watch(self) -> None:
        pause = min(self._seconds / PARTS, 1.0)
        while not self._end.is_set():
            seen = time.monotonic()
            if self._dump:
                faulthandler.dump_traceback_later(self._seconds + HELD)
            self._end.wait(pause)
            self._turn.clear()
            try:
                self._loop.call_soon_threadsafe(self._take_turn)
            except RuntimeError:  # the loop is closed
                return
            # A block may have begun right after the last check, a pause ago.
            if self._end.is_set() or self._turn.wait(self._seconds - pause):
                continue
            faulthandler.cancel_dump_traceback_later()
            logger.warning(
                "the event loop has been blocked for %g s, here:\n%s",
                self._seconds,
                _stack(self._blocked),
            )
            self._turn.wait()
            if not self._end.is_set():
                taken = time.monotonic() - seen
                logger.warning("the event loop continues after %.1f s", taken)


@contextmanager
def report_slow_start(limit: float) -> Iterator[None]:
    """Log the stack of this thread if the block takes longer than half of `limit` seconds."""
    starting = threading.get_ident()

    def report() -> None:
        text = "the app has not started after %g s (--timeout-start: %g s), it is here:\n%s"
        logger.warning(text, limit / 2, limit, _stack(starting))

    timer = threading.Timer(min(limit / 2, threading.TIMEOUT_MAX), report)
    timer.name, timer.daemon = "tinyasgi-start", True
    if limit:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if limit:
            timer.join()  # a process that forks must have no other thread


def _stack(thread: int) -> str:
    """Return the stack of a thread, without the frames outside of the event loop."""
    frames = traceback.extract_stack(sys._current_frames().get(thread))
    inner = 0
    for number, summary in enumerate(frames):
        if summary.filename.replace("\\", "/").endswith(_LOOP):
            inner = number + 1
    return "".join(traceback.format_list(frames[inner:])).rstrip()
