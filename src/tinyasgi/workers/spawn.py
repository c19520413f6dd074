"""Processes: how one is started with sockets, and how its end is seen. Platforms differ here."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from .. import signals
from ..process import forks

__all__ = ["OF_GROUP", "SIGNALS", "Process", "fork", "given", "memory", "spawn"]

#: How Python is started to become a worker.
COMMAND = "from tinyasgi.workers.worker import main; main()"


class Process:
    """A child process, spawned or forked: what is needed of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        """The exit code, or the number of the signal that ended it, negative."""
        self.sentinel: int | None = None
        """A descriptor that can be read when it has ended, where there is such a thing."""
        if sys.platform == "linux":
            with suppress(OSError):  # an old kernel, or a sandbox
                self.sentinel = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> None:
        self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else has asked for it
                pid, status = self.pid, 0
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def terminate(self) -> None:
        """Asks it to end, gently where the platform can."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Gives the sentinel back."""
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None


def fork(run: Callable[[], int]) -> Process:
    """A copy of this process, which runs `run` and exits with what it returns."""
    # Blocked in the child until it has handlers, as in one that is spawned.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, OF_GROUP)
    try:
        with forks.keeping():
            pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Process(pid)
    _begin_anew()
    code = 1
    try:
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as of any Python that ends so
    finally:
        with suppress(BaseException):  # as at the end of any Python
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        flush()
        os._exit(code)


def _begin_anew() -> None:
    """Leaves to the parent what it is to do in its end."""
    atexit._clear()
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        sys.modules["multiprocessing.process"]._children.clear()
        atexit.register(util._exit_function)


def flush() -> None:
    """Writes what is buffered for stdout and stderr, as far as there are such files."""
    for file in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file.flush()


def memory(pid: int) -> int:
    """The bytes that a process has in memory, 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _interpreter() -> list[str]:
    """How this Python was started."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags]


#: What a supervisor takes, as far as the platform has it.
SIGNALS = (*signals.STOPS, *signals.OTHERS)
#: What often goes to a whole process group, as Ctrl-C does; workers hear of it from the supervisor.
OF_GROUP = tuple(number for number in SIGNALS if number != signal.SIGTERM)

if sys.platform != "win32":

    def spawn(
        sockets: Sequence[socket.socket], environment: dict[str, str], files: Sequence[int] = ()
    ) -> Process:
        """A new Python with these sockets and descriptors, which runs `worker.main`."""
        numbers = [sock.fileno() for sock in sockets]
        command = [*_interpreter(), "-c", COMMAND, *map(str, numbers)]
        numbers += files
        for number in numbers:
            os.set_inheritable(number, True)
        try:
            pid = os.posix_spawn(sys.executable, command, environment, setsigmask=OF_GROUP)
        finally:
            for number in numbers:
                os.set_inheritable(number, False)
        return Process(pid)

    def given() -> list[socket.socket]:
        """The sockets that this process was started with."""
        numbers = [int(number) for number in sys.argv[1:]]
        for number in numbers:  # they are not for programs that the app runs
            os.set_inheritable(number, False)
        return [socket.socket(fileno=number) for number in numbers]

    def block_signals() -> None:
        """Lets what a supervisor takes wait for `unblock_signals`."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def unblock_signals() -> None:
        """Takes what has waited for a handler."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def execute(code: str, arguments: Sequence[str], environment: dict[str, str]) -> NoReturn:
        """Becomes a new Python that runs `code`, with the same process id and children."""
        flush()
        command = [*_interpreter(), "-c", code, *arguments]
        os.execve(sys.executable, command, environment)

else:

    class _WindowsProcess(Process):
        def __init__(self, process: subprocess.Popen[bytes]) -> None:
            super().__init__(process.pid)
            self._process = process

        def _wait(self, options: int) -> int | None:
            self.code = self._process.poll() if options else self._process.wait()
            return self.code

        def terminate(self) -> None:
            self._process.terminate()

        kill = terminate

    os.WNOHANG = 1  # what `Process.poll` says

    def spawn(
        sockets: Sequence[socket.socket], environment: dict[str, str], files: Sequence[int] = ()
    ) -> Process:
        import pickle

        assert not files  # no way to give them is known

        command = [*_interpreter(), "-c", COMMAND]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        assert process.stdin is not None
        pickle.dump([sock.share(process.pid) for sock in sockets], process.stdin)
        process.stdin.close()
        return _WindowsProcess(process)

    def given() -> list[socket.socket]:
        import pickle

        return [socket.fromshare(data) for data in pickle.load(sys.stdin.buffer)]

    def unblock_signals() -> None:
        pass  # none is ever blocked
