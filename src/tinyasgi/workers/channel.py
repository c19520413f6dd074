"""What a supervisor and a worker say to each other: lines over a pair of sockets.

Each end sees the other one's end, however that came about.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress

__all__ = ["Channel"]

SENDS_SOCKETS = hasattr(socket, "recv_fds")

# What a supervisor says.
BEGIN = "begin"  # with all that the worker has to know
TAKE = "take"  # connections from the sockets that come with it, too
LEAVE = "leave"  # another worker has its place
STOP = "stop"
QUIT = "quit"  # cut short what a stop waits for
REOPEN = "reopen"  # the log files

# What a worker says.
READY = "ready"  # with the names of parser and event loop
FAILED = "failed"  # before it was ready, with what there is to say
REPLACE = "replace"  # it wants to leave, and serves until it is told to
BEAT = "beat"  # its event loop runs
FILES = "files"  # that it has imported, one a line


class Channel:
    """One end. A message is a word and perhaps a text."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self.sockets: list[socket.socket] = []
        """That have come with messages."""

    @classmethod
    def pair(cls) -> tuple["Channel", socket.socket]:
        """An end, and the socket of the other one."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, word: str, text: str = "", sockets: Sequence[socket.socket] = ()) -> None:
        """Says something, even if nobody is there any more.

        sockets: to go with it, which only works where `SENDS_SOCKETS` says so.
        """
        data = f"{word} {text}".encode("unicode_escape") + b"\n"
        with suppress(OSError):
            if sockets:
                socket.send_fds(self._sock, [data], [sock.fileno() for sock in sockets])
            else:
                self._sock.sendall(data)

    def receive(self) -> list[tuple[str, str]]:
        """What has been said since; waits for some of it. Raises EOFError at the end."""
        try:
            if SENDS_SOCKETS:
                data, numbers, _, _ = socket.recv_fds(self._sock, 1 << 16, 16)
                self.sockets += [socket.socket(fileno=number) for number in numbers]
            else:
                data = self._sock.recv(1 << 16)
        except OSError:  # reset: it ended with something unread
            data = b""
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        texts = [line.decode("unicode_escape").partition(" ") for line in lines]
        return [(word, text) for word, _, text in texts]

    def rest(self) -> list[tuple[str, str]]:
        """What the other end, which is gone, has still said."""
        self._sock.setblocking(False)  # a process that it has forked may still hold its end
        said = []
        with suppress(EOFError):
            while True:
                said += self.receive()
        return said

    def close(self) -> None:
        self._sock.close()
