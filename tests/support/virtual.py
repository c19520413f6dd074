"""An asyncio event loop in virtual time: no waiting, no real sockets, always the same order.

When nothing is ready, its clock jumps to the next timer. asyncio's own transports run on it, over
the sockets of `network`.
"""

import asyncio
import functools
import gc
import os
import selectors
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

__all__ = ["FIRST_DESCRIPTOR", "Deadlock", "Readiness", "VirtualLoop", "in_virtual_time", "running"]

#: Descriptors of virtual sockets begin here, above those of the process.
FIRST_DESCRIPTOR = 500
#: Iterations of the loop at one moment. More of them mean that callbacks never stop.
MAX_ITERATIONS = 20_000


class Deadlock(Exception):
    """The loop would wait forever: no timer is set, and no socket is ready."""


class Readiness(Protocol):
    """A virtual socket as the selector sees it."""

    def ready(self) -> int:
        """Return the events that can be handled now, as a mask of `selectors`."""


class _Selector(selectors.SelectSelector):
    """Asks virtual sockets whether they are ready; moves the clock if none is."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.iterations = 0
        self.sockets: dict[int, Readiness] = {}
        self.calls: list[str] = []
        self.failing: dict[int, int] = {}

    def call(self, name: str) -> None:
        """Count a system call. Raises OSError if it is to fail."""
        self.calls.append(name)
        number = self.failing.get(len(self.calls) - 1)
        if number is not None:
            raise OSError(number, os.strerror(number))

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.call("register")
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = []
        for key in self.get_map().values():
            mask = self.sockets[key.fd].ready() & key.events
            if mask:
                found.append((key, mask))
        self.iterations += 1
        assert self.iterations < MAX_ITERATIONS, "the loop never comes to rest"
        if not found:
            if timeout is None:
                raise Deadlock
            if timeout > 0:
                self.now += timeout
                self.iterations = 0
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, for one thread.

    `run_until_complete` jumps from timer to timer. `settle` and `advance` stop in between, for
    tests that look at the state or act from outside.
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        self._futures: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        #: Contexts of exceptions that nobody has handled.
        self.errors: list[dict[str, Any]] = []
        super().__init__(self._virtual)
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    # In place of the clock, and of the socket pair that wakes a loop from other threads.

    def time(self) -> float:
        return self._virtual.now

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        raise NotImplementedError("threads have no virtual time")

    def create_future(self) -> asyncio.Future[Any]:
        future = super().create_future()
        self._futures.add(future)
        return future

    # For tests.

    @property
    def sockets(self) -> dict[int, Readiness]:
        """The open virtual sockets, by descriptor."""
        return self._virtual.sockets

    def free_descriptor(self) -> int:
        """Return the lowest descriptor that no virtual socket has."""
        return next(n for n in range(FIRST_DESCRIPTOR, 1 << 30) if n not in self.sockets)

    @property
    def calls(self) -> list[str]:
        """The names of all system calls so far."""
        return self._virtual.calls

    @property
    def failing(self) -> dict[int, int]:
        """Calls that fail: their places in `calls`, and error numbers."""
        return self._virtual.failing

    def call(self, name: str) -> None:
        """Count a system call. Raises OSError if it is to fail."""
        self._virtual.call(name)

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers that are set."""
        return [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]

    def settle(self) -> None:
        """Run until nothing more happens at this time."""
        self._virtual.iterations = 0
        while self._ready or self._is_due():  # type: ignore[attr-defined]
            self.call_soon(self.stop)
            self.run_forever()

    def _is_due(self) -> bool:
        """Return whether a timer has passed or a socket is ready."""
        if any(handle.when() <= self.time() for handle in self.timers):
            return True
        keys = self._virtual.get_map().values()
        return any(self.sockets[key.fd].ready() & key.events for key in keys)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.settle()
        self.call_later(seconds, self.stop)
        self.run_forever()
        self.settle()

    def leftovers(self) -> list[str]:
        """Describe tasks, timers, callbacks, futures and sockets that are still there."""
        if any(not future.done() for future in self._futures):
            gc.collect()
        left: list[Any] = [task for task in asyncio.all_tasks(self) if not task.done()]
        left += [*self.timers, *self._ready, *self.sockets.values()]  # type: ignore[attr-defined]
        left += [future for future in self._futures if not future.done()]
        return [repr(each) for each in left]


@contextmanager
def running() -> Iterator[VirtualLoop]:
    """A loop that must be empty and without errors at the end of the block."""
    loop = VirtualLoop()
    try:
        yield loop
        loop.settle()
        assert not loop.errors, loop.errors
        left = loop.leftovers()
        assert not left, left
    finally:
        if tasks := asyncio.all_tasks(loop):  # of a test that has failed
            for task in tasks:
                task.cancel()
            with suppress(Exception):
                loop.run_until_complete(asyncio.wait(tasks, timeout=1000))
        loop.close()


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test a plain one that runs in virtual time."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        with running() as loop:
            loop.run_until_complete(test(**arguments))

    return run
