"""A thread pool with few thread switches, and a way to call functions in the event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

#: A function that a thread runs. It must not raise an exception.
Job: TypeAlias = Callable[[], object]


class ThreadPool:
    """A pool of threads that run jobs in order. Threads are started when they are needed.

    Python runs one thread at a time, and a switch costs as much as a short job. So at most one
    thread is being woken at a time. When it takes a job, it wakes the next thread if more jobs
    wait. If a job blocks, another thread runs the next one; otherwise the same thread does.

    The most recently used thread is woken first, because its resources, such as a database
    connection, are probably still open. A job that never ends does not keep the process alive.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._lock = threading.Lock()  # protects all attributes below
        self._count = 0
        self._jobs: deque[Job] = deque()
        self._idle: list[SimpleQueue[None]] = []  # one queue per idle thread, which wakes it
        self._waking = False  # a thread was woken or started, and has not taken a job yet
        self._closed = False

    def submit(self, job: Job) -> bool:
        """Run a job in a thread. Return False if all threads are busy and the job has to wait.

        Raises RuntimeError if the pool has no thread and the system can't start one.
        """
        with self._lock:
            free = bool(self._idle) or self._count < self._max_threads
            self._jobs.append(job)
            start = self._wake_thread()
        if start:
            try:
                self._start_thread()
            except RuntimeError:
                if self._count:  # the running threads will take the job
                    return False
                self.cancel(job)
                raise
        return free

    def cancel(self, job: Job) -> bool:
        """Remove a job that waits. Return False if a thread has taken it already."""
        with self._lock:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
        return True

    def close(self) -> None:
        """End each thread as soon as no job waits."""
        with self._lock:
            self._closed = True
            for wake in self._idle:
                wake.put(None)
            self._idle.clear()

    def _wake_thread(self) -> bool:
        """Wake an idle thread if a job waits. Return True if a new thread is needed instead."""
        if not self._jobs or self._waking:
            return False
        if self._idle:
            self._waking = True
            self._idle.pop().put(None)
            return False
        if self._count == self._max_threads:
            return False
        self._waking = True
        self._count += 1
        return True

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="wsgi", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._waking = False
                self._count -= 1
            raise

    def _work(self) -> None:
        wake: SimpleQueue[None] = SimpleQueue()
        woken = True
        while True:
            job = None  # an idle thread must not keep objects of its last job alive
            start = False
            with self._lock:
                if woken:
                    self._waking = woken = False
                if self._jobs:
                    job = self._jobs.popleft()
                    start = self._wake_thread()
                elif self._closed:
                    return
                else:
                    self._idle.append(wake)
            if start:
                with suppress(RuntimeError):  # the running threads will take the jobs
                    self._start_thread()
            if job is None:
                wake.get()
                woken = True
            else:
                job()


class LoopWaker:
    """Calls of functions in an event loop from other threads, with one wake-up for many calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._scheduled = False

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the event loop, soon. Raises RuntimeError if the loop is closed."""
        self._calls.append(function)
        if not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._run)
            except RuntimeError:
                self._scheduled = False
                raise

    def _run(self) -> None:
        self._scheduled = False  # before the calls: a later one needs another wake-up
        while self._calls:
            self._calls.popleft()()
