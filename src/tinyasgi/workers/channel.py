"""Framed messages over a pair of sockets, which may carry descriptors. Nothing ever blocks.

A message is written completely or not at all. Each process notices when the other one exits, even
if it was killed.
"""

import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

# From the supervisor to a worker.
BEGIN = "begin"  # with a WorkerSpec
SHARE = "share"  # accept from these sockets, too; with the number of the queue
UNSHARE = "unshare"  # ends a `share`; with the number of the queue
RETIRE = "retire"  # another worker has its slot
STOP = "stop"
QUIT = "quit"  # shorten each step of the stop
REOPEN = "reopen"  # the log files
FORK = "fork"  # to a zygote: a worker, with an id and a WorkerSpec

# From a worker to the supervisor.
READY = "ready"  # with the names of parser and event loop
FAILED = "failed"  # with the reason, before it was ready
REPLACE = "replace"  # it asks for a replacement, and serves until it is told to retire
BEAT = "beat"  # its event loop runs
FILES = "files"  # the files that it has imported, one per line
FORKED = "forked"  # by a zygote: id and process id; or an id and the reason of a failure
EXITED = "exited"  # a child of a zygote: process id and exit code

_HEADER = struct.Struct("!IH")  # bytes of the text, number of descriptors
#: Descriptors of one system call. Linux takes 253.
_MAX_DESCRIPTORS = 200
#: Bytes of one read.
_READ = 1 << 16
#: Maximum number of unsent bytes. With more, further messages are dropped.
_MAX_UNSENT = 1 << 22


class Message(NamedTuple):
    word: str
    text: str
    descriptors: list[int]
    is_complete: bool = True
    """False if this process had too few free descriptors. Then `descriptors` is empty."""

    def close(self) -> None:
        """Close the descriptors."""
        _close(self.descriptors)


class Channel:
    """One end of a pair of sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._data = b""
        self._descriptors: list[int] = []
        self._earlier: list[int] = []  # descriptors of the next message
        self._is_truncated = False  # the kernel has dropped descriptors of the last header
        self._has_ended = False
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple["Channel", socket.socket]:
        """Return an end, and the socket of the other one."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def is_blocked(self) -> bool:
        """Whether `flush` has something to write when the socket is writable."""
        return bool(self._unsent)

    def send(self, word: str, text: str = "", descriptors: Sequence[int] = ()) -> None:
        """Send a message, or drop it if the other end is gone or does not read.

        A message that must wait keeps copies of its descriptors. Raises OSError if they can't be
        copied.
        """
        if sum(len(data) for data, _ in self._unsent) > _MAX_UNSENT:
            return
        body = f"{word} {text}".encode("utf-8", "surrogateescape")
        while len(descriptors) > _MAX_DESCRIPTORS:  # the message follows
            self._send(_HEADER.pack(0, _MAX_DESCRIPTORS), descriptors[:_MAX_DESCRIPTORS])
            descriptors = descriptors[_MAX_DESCRIPTORS:]
        self._send(_HEADER.pack(len(body), len(descriptors)) + body, descriptors)

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        sent = 0 if self._unsent else self._write(data, descriptors)
        if sent < len(data):
            # The caller may close the descriptors.
            kept = [] if sent else [os.dup(number) for number in descriptors]
            self._unsent.append((data[sent:], kept))

    def flush(self) -> None:
        """Write what could not be written before."""
        while self._unsent:
            data, numbers = self._unsent[0]
            sent = self._write(data, numbers)
            if not sent:
                return
            _close(numbers)
            self._unsent.popleft()
            if sent < len(data):
                self._unsent.appendleft((data[sent:], []))

    def _write(self, data: bytes, descriptors: Sequence[int]) -> int:
        """Return how many bytes were written, or dropped because the other end is gone."""
        try:
            if descriptors:
                return socket.send_fds(self._sock, [data], descriptors)
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def receive(self) -> list[Message]:
        """Return the messages that have arrived; raise EOFError if there are no more to come."""
        messages: list[Message] = []
        while not self._has_ended:
            try:
                data, numbers, flags, _ = socket.recv_fds(self._sock, _READ, _MAX_DESCRIPTORS)
            except BlockingIOError:
                break
            except OSError:  # reset: the other end had unread data
                data, numbers, flags = b"", [], 0
            self._data += data
            for number in numbers:
                os.set_inheritable(number, False)
            self._descriptors += numbers
            # Without free descriptors, the kernel drops the descriptors of a message.
            self._is_truncated |= bool(flags & socket.MSG_CTRUNC)
            self._has_ended = not data
            messages += self._parse()
        if self._has_ended and not messages:
            raise EOFError
        return messages

    def _parse(self) -> Iterator[Message]:
        while len(self._data) >= _HEADER.size:
            size, count = _HEADER.unpack_from(self._data)
            end = _HEADER.size + size
            if self._is_truncated and len(self._descriptors) < count:
                # Only this header lacks descriptors: one read returns those of one header.
                self._descriptors += [-1] * (count - len(self._descriptors))
                self._is_truncated = False
            if len(self._data) < end or len(self._descriptors) < count:
                return
            body, self._data = self._data[_HEADER.size : end], self._data[end:]
            self._earlier += self._descriptors[:count]
            del self._descriptors[:count]
            word, _, text = body.decode("utf-8", "surrogateescape").partition(" ")
            if word:
                numbers, self._earlier = self._earlier, []
                yield _message(word, text, numbers)

    def rest(self) -> list[Message]:
        """Return the remaining messages of a process that has exited."""
        messages: list[Message] = []
        with suppress(EOFError):
            while new := self.receive():  # a process that it has forked may hold its end open
                messages += new
        return messages

    def close(self) -> None:
        """Close this end. A message that is not written or not received completely is lost."""
        for _, numbers in self._unsent:
            _close(numbers)
        self._unsent.clear()
        _close(self._earlier + self._descriptors)
        self._sock.close()

    def drain(self, seconds: float) -> None:
        """Write the unsent messages before this process exits. seconds: time limit."""
        deadline = time.monotonic() + seconds
        while self._unsent and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._sock], [], left)
            self.flush()


def _message(word: str, text: str, numbers: list[int]) -> Message:
    if -1 not in numbers:
        return Message(word, text, numbers)
    _close(numbers)
    return Message(word, text, [], is_complete=False)


def _close(descriptors: Sequence[int]) -> None:
    for number in descriptors:
        if number >= 0:  # the kernel has not dropped it
            os.close(number)
