"""A supervisor that goes on in a new program: same process, same workers, fresh memory.

A process that has served alone becomes a supervisor so, and one that has preloaded an app loads
it anew. Sockets and child processes stay across `execve`; what is known of them goes by a file.
"""

import os
import pickle
import socket
import sys
import tempfile
from typing import Any, NoReturn

from ..process.ending import end_processes
from . import spawn
from .spawn import Process
from .supervisor import Supervisor

__all__ = ["inherit", "succeed"]

#: What the new program runs.
COMMAND = "from tinyasgi.workers.main import resume; resume()"


def succeed(supervisor: Supervisor) -> NoReturn:
    """Replaces this program by one in which the supervisor goes on."""
    if supervisor.crew.metrics_store is not None:
        os.set_inheritable(supervisor.crew.metrics_store.file, True)
    end_processes()
    spawn.block_signals()  # until the new program takes them
    file = tempfile.TemporaryFile()  # noqa: SIM115  # for the new program
    _Pickler(file).dump(supervisor)
    file.seek(0)
    os.set_inheritable(file.fileno(), True)
    spawn.execute(COMMAND, [str(file.fileno())], supervisor.spec.environment)


def inherit() -> Supervisor:
    """The supervisor, in the new program."""
    with open(int(sys.argv[1]), "rb") as file:
        supervisor = pickle.load(file)
    assert isinstance(supervisor, Supervisor)
    sys.path[:], sys.argv[:] = supervisor.spec.path, supervisor.spec.arguments
    supervisor.renew()
    return supervisor


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if isinstance(value, socket.socket):
            value.set_inheritable(True)
            return _socket, (type(value), value.fileno())
        if isinstance(value, Process):
            return Process, (value.pid,)
        return NotImplemented


def _socket(kind: type[socket.socket], number: int) -> socket.socket:
    sock = kind(fileno=number)
    sock.set_inheritable(False)
    return sock
