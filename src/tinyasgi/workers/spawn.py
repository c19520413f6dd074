"""Processes: their start, signals and exit. All code that depends on the platform is here.

Workers need POSIX. On Linux, the kernel also sends a signal to a process when its supervisor dies,
makes the supervisor the parent of orphans, and reports the memory of a process.
"""

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from .. import signals
from ..process.ending import flush_files
from .channel import Channel

#: Whether this platform can run workers.
IS_SUPPORTED = hasattr(os, "posix_spawn")
#: Signals that are often sent to a whole process group, as by Ctrl-C. They are for the supervisor.
OF_GROUP = tuple(number for number in (*signals.STOPS, *signals.OTHERS) if number != signal.SIGTERM)
_IS_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def spawn(module: str, descriptors: Sequence[int], environment: dict[str, str]) -> int:
    """Start a Python that inherits descriptors and calls `main` of a module; return its id.

    The signals in OF_GROUP are blocked in the process until `unblock_signals`.
    """
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    code = f"from {module} import main; main()"
    command = [sys.executable, *flags, "-c", code, *map(str, descriptors)]
    for number in descriptors:
        os.set_inheritable(number, True)
    try:
        return os.posix_spawn(sys.executable, command, environment, setsigmask=OF_GROUP)
    finally:
        for number in descriptors:
            os.set_inheritable(number, False)


def inherited() -> tuple[Channel, list[int]]:
    """Return the channel to the supervisor and the other descriptors of a spawned process."""
    first, *others = map(int, sys.argv[1:])
    for number in (first, *others):  # they are not for programs that the app starts
        os.set_inheritable(number, False)
    return Channel(socket.socket(fileno=first)), others


def fork(run: Callable[[], int]) -> int:
    """Fork a process that runs a function and exits with its result; return its id.

    All signals are blocked during the fork, until the child has the handlers that this process had
    at its start.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if not pid:
        _run_child(run)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _run_child(run: Callable[[], int]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, OF_GROUP)
    atexit._clear()  # what the parent has registered is for the parent
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        sys.modules["multiprocessing.process"]._children.clear()
        atexit.register(util._exit_function)
    code = 1
    try:
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:  # the end of an interpreter, without freeing memory that is shared
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        flush_files()
        os._exit(code)


def unblock_signals() -> None:
    """Unblock the signals that were blocked at the start of this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_GROUP)


def hang_up_with_parent() -> None:
    """Let Linux send SIGHUP when the parent dies, which may be the supervisor or a zygote."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, such as workers that outlive a zygote."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _IS_LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value)


def is_hung_up(channel: Channel) -> bool:
    """Return whether the process at the other end is gone. May be called by signal handlers."""
    poll = select.poll()
    with suppress(OSError, ValueError):
        poll.register(channel, 0)
        return bool(poll.poll(0))
    return True


def wait(pid: int) -> tuple[int, int] | None:
    """Return id and exit code of a child that has exited, or None. pid: -1 for any child.

    The code is negative for a signal. Raises ChildProcessError.
    """
    found, status = os.waitpid(pid, os.WNOHANG)
    return (found, os.waitstatus_to_exitcode(status)) if found else None


def memory(pid: int) -> int:
    """Return the bytes of memory that a process uses, or 0 if that is not known."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
