"""An event loop that is blocked: that it is, and the line that blocks it."""

import asyncio
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..server_log import logger

#: How often the loop is asked in the time that is given.
PARTS = 10
#: Seconds more until this thread, too, is known not to run.
HELD = 0.5
#: Where a stack is cut: the way from the process to the event loop says nothing.
_LOOP = ("asyncio/runners.py", "asyncio/base_events.py", "asyncio/events.py")


class LoopWatchdog:
    """Looks, in a thread, whether the loop of this thread takes its turns.

    When it has not done so for `seconds`, the stack of its thread is logged, and later how long it
    was blocked. It asks ten times in that time: no such block is missed, and none is reported that
    is shorter by more than a tenth, or a second. beat: called in the loop whenever it is seen to
    run. dump: code that holds the GIL is seen as well, and the stacks of all threads go to stderr,
    as they are.
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
        """In the loop."""
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
            # A block may have begun when the loop was last seen, a pause ago.
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
                logger.warning("the event loop goes on after %.1f s", taken)


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
    """Return the stack of a thread, without the way from the process to the event loop."""
    frames = traceback.extract_stack(sys._current_frames().get(thread))
    inner = 0
    for number, summary in enumerate(frames):
        if summary.filename.replace("\\", "/").endswith(_LOOP):
            inner = number + 1
    return "".join(traceback.format_list(frames[inner:])).rstrip()
