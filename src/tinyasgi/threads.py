"""Threads for what blocks: a pool that hands a job over with one lock and one queue."""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

__all__ = ["Job", "Threads"]

#: What a thread is to run; it must not raise.
Job: TypeAlias = Callable[[], object]


class Threads:
    """A pool of threads that are started when they are needed.

    The thread that has rested least works first: what it holds, as a connection to a database, is
    still warm, and a light load uses few threads. They do not keep the process from its end: a
    job that never ends would keep it for ever.
    """

    def __init__(self, most: int) -> None:
        """most: threads that there may be at once."""
        self._most = most
        self._count = 0
        self._ended = False
        self._lock = threading.Lock()  # for all that follows
        self._idle: list[SimpleQueue[Job | None]] = []
        self._waiting: deque[Job] = deque()

    def run(self, job: Job) -> bool:
        """Runs a job, now or when a thread is free; whether it is now.

        Raises RuntimeError when the system gives no thread.
        """
        with self._lock:
            if self._idle:
                self._idle.pop().put(job)
                return True
            if self._count == self._most:
                self._waiting.append(job)
                return False
            self._count += 1
        try:
            threading.Thread(target=self._work, args=(job,), name="wsgi", daemon=True).start()
        except RuntimeError:
            self._count -= 1
            raise
        return True

    def withdraw(self, job: Job) -> bool:
        """Takes back a job that waits; whether it was still waiting."""
        with self._lock:
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
        return True

    def end(self) -> None:
        """Each thread ends when its job does and none is waiting."""
        with self._lock:
            self._ended = True
            for inbox in self._idle:
                inbox.put(None)
            self._idle.clear()

    def _work(self, job: Job | None) -> None:
        inbox: SimpleQueue[Job | None] = SimpleQueue()
        while job is not None:
            job()
            job = None  # a thread that rests keeps nothing alive
            with self._lock:
                if self._waiting:
                    job = self._waiting.popleft()
                elif self._ended:
                    return
                else:
                    self._idle.append(inbox)
            job = job or inbox.get()
