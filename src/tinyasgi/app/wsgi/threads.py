"""Threads for what blocks: a pool that wakes no more of them than it must, and a way back."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

__all__ = ["Job", "LoopWaker", "Threads"]

#: What a thread is to run; it must not raise.
Job: TypeAlias = Callable[[], object]


class Threads:
    """A pool of threads that are started when they are needed; jobs wait in order.

    Python runs one thread at a time, and to change it costs as much as a short job. So one thread
    at most is on its way to the jobs that wait; with the first one that it takes it calls the next
    thread. A thread that blocks has a successor at once; one that does not takes the next job
    itself. The thread that has rested least is called first: what it holds, as a connection to a
    database, is still warm.

    Threads do not keep the process from its end: a job that never ends would keep it for ever.
    """

    def __init__(self, most: int) -> None:
        """most: threads that there may be at once."""
        self._most = most
        self._lock = threading.Lock()  # for all that follows
        self._count = 0
        self._jobs: deque[Job] = deque()
        self._idle: list[SimpleQueue[None]] = []
        self._called = False  # a thread is on its way
        self._ended = False

    def run(self, job: Job) -> bool:
        """Has a job run by a thread; whether there is one to spare.

        Raises RuntimeError when the system gives no thread, and there is none.
        """
        with self._lock:
            spare = bool(self._idle) or self._count < self._most
            self._jobs.append(job)
            start = self._call()
        if start:
            try:
                self._start()
            except RuntimeError:
                if self._count:  # the jobs have the threads that there are
                    return False
                self.withdraw(job)
                raise
        return spare

    def withdraw(self, job: Job) -> bool:
        """Takes back a job that waits; whether it was still waiting."""
        with self._lock:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
        return True

    def end(self) -> None:
        """Each thread ends when no job waits."""
        with self._lock:
            self._ended = True
            for bell in self._idle:
                bell.put(None)
            self._idle.clear()

    def _call(self) -> bool:
        """Calls a thread, if there is a reason to; whether it is one that is to be started."""
        if not self._jobs or self._called:
            return False
        if self._idle:
            self._called = True
            self._idle.pop().put(None)
            return False
        if self._count == self._most:
            return False
        self._called = True
        self._count += 1
        return True

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="wsgi", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._called = False
                self._count -= 1
            raise

    def _work(self) -> None:
        bell: SimpleQueue[None] = SimpleQueue()
        called = True
        while True:
            job = None  # a thread that rests keeps nothing alive
            start = False
            with self._lock:
                if called:
                    self._called = called = False
                if self._jobs:
                    job = self._jobs.popleft()
                    start = self._call()
                elif self._ended:
                    return
                else:
                    self._idle.append(bell)
            if start:
                with suppress(RuntimeError):  # as in `run`
                    self._start()
            if job is None:
                bell.get()
                called = True
            else:
                job()


class LoopWaker:
    """Wakes an event loop from threads, once for all that has happened since it last woke."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._rung = False

    def ring(self, call: Callable[[], object]) -> None:
        """Has the loop call this. Raises RuntimeError when the loop is closed."""
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            try:
                self.loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                self._rung = False
                raise

    def _answer(self) -> None:
        self._rung = False  # first: who comes from here on rings again
        while self._calls:
            self._calls.popleft()()
