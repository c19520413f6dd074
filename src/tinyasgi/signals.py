"""Signals of this process. No signal is lost, even during startup."""

import atexit
import contextlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence


def _numbers(*names: str) -> tuple[int, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


#: Signals that stop a server.
STOPS = _numbers("SIGINT", "SIGTERM", "SIGBREAK")
#: Other signals that a server handles.
OTHERS = _numbers("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1")

#: Maximum seconds for the end of the interpreter after the functions of `atexit`.
FINAL = 10


class Stop(SystemExit):
    """Raised when a signal to stop arrives while the app is imported."""


class Signals:
    """Handlers that store signals until `received` returns them.

    `fileno` is readable while signals are stored. In a thread other than the main one no signal
    arrives.
    """

    def __init__(self, stops: Sequence[int], others: Sequence[int]) -> None:
        self.stops = tuple(stops)
        self.count = 0
        """Number of stop signals so far."""
        self.on_stop: Callable[[int], object] | None = None
        """Called with `count` by the signal handler, even while the event loop is blocked."""
        self.wake: Callable[[], object] | None = None
        """Called by the signal handler, for an event loop that can't wait for `fileno`."""
        self.is_stop: Callable[[int], bool] = self.stops.__contains__
        """Return whether a signal stops the process. Also called by the signal handler."""
        self._numbers = (*self.stops, *others)
        self._previous: dict[int, signal.Handlers | Callable[..., object] | int | None] = {}
        self._received: deque[int] = deque()
        self._raises = False
        self._has_terminal = os.isatty(0)
        self._pid = os.getpid()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self.install()
        atexit.register(self._at_exit)  # called last, because it is registered first

    def install(self) -> None:
        """Set the handlers, or set them again after the app has set its own."""
        if not _is_main():
            return
        for number in self._numbers:
            previous = signal.signal(number, self._handle)
            self._previous.setdefault(number, previous)
        # Wakes up a wait for `fileno` even if the handler could not run before the wait began.
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)

    def add(self, number: int) -> None:
        """Handle one more signal."""
        self._numbers += (number,)
        self.install()

    def restore(self) -> None:
        """Set the previous handlers again."""
        global _signals
        if _signals is self:
            _signals = None
        for number, handler in self._previous.items():
            if handler is not None:  # None: set by a program that embeds Python
                signal.signal(number, handler)
        self._previous.clear()
        atexit.unregister(self._at_exit)
        self._close()

    def _at_exit(self) -> None:
        """Ignore stop signals: Python resets its handlers at the end, so a signal would kill it."""
        with contextlib.suppress(ValueError):  # not the main thread
            for number in self.stops:
                signal.signal(number, signal.SIG_IGN)
            if hasattr(signal, "alarm"):  # limits the rest of the end
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(FINAL)
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

    def let_next_one_kill(self) -> None:
        """Let the kernel handle the next stop signal, which ends the process at once."""
        for number in self.stops:
            signal.signal(number, signal.SIG_DFL)

    def is_hang_up(self, number: int) -> bool:
        """Return whether a signal reports that the terminal of this process was closed."""
        return signal.Signals(number).name == "SIGHUP" and self._has_terminal and not os.isatty(0)

    def fileno(self) -> int:
        return self._ours.fileno()

    def received(self) -> list[int]:
        """Return the signals that have arrived since the last call."""
        with contextlib.suppress(OSError):
            while self._ours.recv(1 << 10):
                pass
        count = len(self._received)
        return [self._received.popleft() for _ in range(count)]

    @contextlib.contextmanager
    def exiting(self) -> Iterator[None]:
        """Raise Stop for a stop signal in the block, and again at the end of the block.

        So the import of an app is interrupted, and an app that swallows Stop is not served.
        """
        self._raises = True
        try:
            if not self.count:
                yield
        finally:
            self._raises = False
            if self.count:
                raise Stop(0) from None

    def _handle(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # in a forked process that has not restored the handlers yet
            signal.signal(number, self._previous.get(number) or signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._received.append(number)
        with contextlib.suppress(OSError):  # full or closed
            self._theirs.send(b"\0")
        if self.wake is not None:
            self.wake()
        if not self.is_stop(number):
            return
        self.count += 1
        if self.on_stop is not None:
            self.on_stop(self.count)
        if self._raises and self.count == 1:
            raise Stop(0)


_signals: Signals | None = None


def take(stops: Sequence[int] = STOPS, others: Sequence[int] = OTHERS) -> Signals:
    """Return the signals of this process; the first call sets the handlers.

    In a thread other than the main one, return a new object, which receives no signals.
    """
    global _signals
    if not _is_main():
        return Signals(stops, others)
    if _signals is None:
        _signals = Signals(stops, others)
    return _signals


def are_taken() -> bool:
    """Return whether this is the main thread and `take` was called."""
    return _is_main() and _signals is not None


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _after_fork() -> None:
    if _signals is not None:
        _signals.restore()


if hasattr(os, "register_at_fork"):
    # A forked process gets the previous handlers.
    os.register_at_fork(after_in_child=_after_fork)
