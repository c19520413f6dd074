"""Signals of this process, remembered from the first line on."""

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
#: Signals that mean something else to a server.
OTHERS = _numbers("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1")

#: Seconds for what Python does after the functions of `atexit`.
FINAL = 10


class Stop(SystemExit):
    """A signal to stop has come while the app is imported."""


class Signals:
    """Signals that arrive are kept until `received` returns them.

    `fileno` can be read when there are some. Only the main thread can take signals; in another
    thread nothing arrives.
    """

    def __init__(self, stops: Sequence[int], others: Sequence[int]) -> None:
        self.stops = tuple(stops)
        self.count = 0
        """Stop signals so far."""
        self.on_stop: Callable[[int], object] | None = None
        """Called with `count` within the signal handler, also while the event loop is blocked."""
        self.wake: Callable[[], object] | None = None
        """Called within the signal handler, for a loop that can't wait for `fileno`."""
        self.is_stop: Callable[[int], bool] = self.stops.__contains__
        """Whether a signal stops the process; called within the signal handler, too."""
        self._numbers = (*self.stops, *others)
        self._previous: dict[int, signal.Handlers | Callable[..., object] | int | None] = {}
        self._received: deque[int] = deque()
        self._raises = False
        self._pid = os.getpid()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self.install()
        atexit.register(self._at_exit)  # called last, as it is registered first

    def install(self) -> None:
        """Sets the handlers, perhaps again after the app has set its own."""
        if not _is_main():
            return
        for number in self._numbers:
            previous = signal.signal(number, self._handle)
            self._previous.setdefault(number, previous)
        # What waits for `fileno` wakes up even if the handler can't run before it begins to wait.
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)

    def add(self, number: int) -> None:
        """Take one more signal."""
        self._numbers += (number,)
        self.install()

    def restore(self) -> None:
        """Sets the handlers that were there before."""
        global _signals
        if _signals is self:
            _signals = None
        for number, handler in self._previous.items():
            if handler is not None:  # of a program that Python is embedded in
                signal.signal(number, handler)
        self._previous.clear()
        atexit.unregister(self._at_exit)
        self._close()

    def _at_exit(self) -> None:
        """Python sets back handlers before its end is over: a stop signal would kill it then."""
        with contextlib.suppress(ValueError):  # not the main thread
            for number in self.stops:
                signal.signal(number, signal.SIG_IGN)
            if hasattr(signal, "alarm"):  # which bounds what is left of the end
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(FINAL)
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

    def let_next_one_kill(self) -> None:
        """Leaves the next stop signal to the kernel."""
        for number in self.stops:
            signal.signal(number, signal.SIG_DFL)

    def fileno(self) -> int:
        return self._ours.fileno()

    def received(self) -> list[int]:
        """Returns the signals that have arrived since the last call."""
        with contextlib.suppress(OSError):
            while self._ours.recv(1 << 10):
                pass
        count = len(self._received)
        return [self._received.popleft() for _ in range(count)]

    @contextlib.contextmanager
    def exiting(self) -> Iterator[None]:
        """While in the block, a stop signal raises Stop, and so does the end of the block then.

        So an app is interrupted in its import, and is not served even if it swallows Stop.
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
    """The signals of this process, which has taken them from the first call on.

    Another thread than the main one gets an object of its own, at which nothing arrives.
    """
    global _signals
    if not _is_main():
        return Signals(stops, others)
    if _signals is None:
        _signals = Signals(stops, others)
    return _signals


def are_taken() -> bool:
    """Whether this is the main thread, and it has taken the signals."""
    return _is_main() and _signals is not None


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _after_fork() -> None:
    if _signals is not None:
        _signals.restore()


if hasattr(os, "register_at_fork"):
    # A forked process has the handlers that this one had before.
    os.register_at_fork(after_in_child=_after_fork)
