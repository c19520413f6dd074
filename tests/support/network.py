"""Virtual TCP for `virtual.VirtualLoop`: sockets in memory that behave as the kernel's do.

Each system call of a socket can be made to fail (`VirtualLoop.failing`).
"""

import errno
import os
import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

from .virtual import VirtualLoop

__all__ = ["RCVBUF", "SNDBUF", "Listener", "Peer", "Poll", "Socket"]

#: Bytes that one `recv` returns at most, so that a large send arrives in several reads.
RCVBUF = 16 * 1024
#: Bytes that the kernel takes for a peer that does not read.
SNDBUF = 24 * 1024

#: Linux's `struct tcp_info` as far as the server reads it.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class _Descriptor:
    """What all virtual sockets have in common."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.number = loop.free_descriptor()
        loop.sockets[self.number] = self

    def check(self, call: str) -> None:
        """Count a call. Raises OSError if it is to fail."""
        if self.number < 0:
            raise _error(errno.EBADF)
        self.loop.call(call)

    def ready(self) -> int:
        return 0

    def fileno(self) -> int:
        return self.number

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def gettimeout(self) -> float:
        return 0.0

    def getsockname(self) -> Any:
        self.check("getsockname")
        return ("127.0.0.1", 8000)

    def setsockopt(self, *_: int) -> None:
        self.check("setsockopt")

    def close(self) -> None:
        if self.number >= 0:
            del self.loop.sockets[self.number]
            self.number = -1


class Listener(_Descriptor):
    """A listening socket; `connect` is the client's side of it."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(loop)
        self.queue: deque[Peer] = deque()
        self._ports = iter(range(50_000, 60_000))

    def connect(self) -> "Peer":
        """Open a connection; it waits in the queue until the server accepts it."""
        peer = Peer(("127.0.0.1", next(self._ports)))
        if self.number < 0:
            peer.is_reset = True
        else:
            self.queue.append(peer)
        return peer

    def ready(self) -> int:
        return selectors.EVENT_READ if self.queue else 0

    def listen(self, backlog: int) -> None:
        self.check("listen")

    def accept(self) -> tuple["Socket", Any]:
        self.check("accept")
        if not self.queue:
            raise BlockingIOError
        peer = self.queue.popleft()
        peer.socket = Socket(self.loop, peer)
        return peer.socket, peer.name

    def close(self) -> None:
        super().close()
        for peer in self.queue:
            peer.is_reset = True
        self.queue.clear()


class Socket(_Descriptor):
    """The server's end of a connection."""

    def __init__(self, loop: VirtualLoop, peer: "Peer") -> None:
        super().__init__(loop)
        self.peer = peer
        self.has_shut = False
        self._taken = 0

    def ready(self) -> int:
        peer, mask = self.peer, 0
        if peer.sent or peer.has_shut or peer.has_reset:
            mask = selectors.EVENT_READ
        if len(peer.unread) < SNDBUF or peer.has_reset:
            mask |= selectors.EVENT_WRITE
        return mask

    def getpeername(self) -> Any:
        self.check("getpeername")
        if self.peer.has_reset:
            raise _error(errno.ENOTCONN)
        return self.peer.name

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        self.check("getsockopt")
        if option != socket.TCP_INFO:
            return 0
        unread = len(self.peer.unread)
        return _TCP_INFO.pack(unread > 0, self.peer.taken, unread)

    def recv(self, size: int) -> bytes:
        self.check("recv")
        peer = self.peer
        if peer.sent:
            data = bytes(peer.sent[: min(size, RCVBUF)])
            del peer.sent[: len(data)]
            return data
        if peer.has_reset:
            raise _error(errno.ECONNRESET)
        if peer.has_shut:
            return b""
        raise BlockingIOError

    def send(self, data: Any) -> int:
        self.check("send")
        assert not self.has_shut
        if self.peer.has_reset:
            raise _error(errno.EPIPE)
        room = SNDBUF - len(self.peer.unread)
        if room <= 0:
            raise BlockingIOError
        data = bytes(data[:room])
        self.peer.take(data)
        return len(data)

    def sendmsg(self, buffers: Iterable[Any]) -> int:
        self.check("sendmsg")
        return self.send(b"".join(buffers))

    def shutdown(self, how: int) -> None:
        self.check("shutdown")
        assert how == socket.SHUT_WR
        if self.peer.has_reset:
            raise _error(errno.ENOTCONN)
        self.has_shut = True

    def close(self) -> None:
        super().close()
        self.has_shut = True
        if self.peer.sent:  # data that the server has not read makes the kernel reset
            self.peer.lost += len(self.peer.unread)
            self.peer.lose()


class Peer:
    """The client's end of a connection, as a test handles it.

    It reads all that is sent to it, at once, unless `reads` is false.
    """

    def __init__(self, name: tuple[str, int]) -> None:
        self.name = name
        self.socket: Socket | None = None
        """The other end, once the server has accepted the connection."""
        self.reads = True
        self.sent = bytearray()
        """Bytes on their way to the server."""
        self.has_shut = False
        """It sends nothing more: its FIN follows `sent`."""
        self.has_reset = False
        """It has reset the connection, or has closed it and then got more data."""
        self.has_closed = False
        self.unread = bytearray()
        """Bytes that wait for it to read."""
        self.received = bytearray()
        """All that it has read."""
        self.taken = 0
        """How many bytes have been delivered: the `bytes_acked` of the kernel."""
        self.is_reset = False
        """The server has reset the connection."""
        self.lost = 0
        """Bytes that were unread when the server closed its socket before it had read all."""

    @property
    def has_fin(self) -> bool:
        """The server has sent its FIN."""
        return self.socket is not None and self.socket.has_shut

    @property
    def at_end(self) -> bool:
        """It has read the server's FIN, or the connection is reset."""
        return (self.has_fin and not self.unread) or self.is_reset or self.has_reset

    def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed its socket answers with a reset."""
        assert not self.has_shut
        if self.socket is not None and self.socket.number < 0:
            self.lose()
        if not self.is_reset:
            self.sent += data

    def take(self, data: bytes) -> None:
        """Get bytes from the server."""
        if self.has_closed:
            self.has_reset = True
            return
        self.unread += data
        if self.reads:
            self.read()

    def read(self, size: int | None = None) -> None:
        """Read what waits, or at most `size` bytes of it."""
        data = self.unread[:size]
        del self.unread[: len(data)]
        self.taken += len(data)
        self.received += data

    def set_reading(self, reads: bool) -> None:
        """Read from now on, or leave all in the kernel."""
        self.reads = reads
        if reads:
            self.read()

    def half_close(self) -> None:
        """Send a FIN; reading goes on."""
        self.has_shut = True

    def close(self) -> None:
        """Close the socket. Unread data makes that a reset."""
        self.has_shut = self.has_closed = True
        if self.unread:
            self.reset()

    def reset(self) -> None:
        """Send a RST. The server can still read what was sent before."""
        self.has_shut = self.has_reset = True
        self.unread.clear()

    def lose(self) -> None:
        """Get a RST: unread data is lost."""
        self.is_reset = True
        self.sent.clear()
        self.unread.clear()


class Poll:
    """`select.poll` for the sockets of a loop, as far as the server uses it: for POLLRDHUP."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._numbers: list[int] = []

    def register(self, number: int, events: int) -> None:
        self._numbers.append(number)

    def poll(self, timeout: float) -> list[int]:
        assert timeout == 0
        found = [self._loop.sockets[number] for number in self._numbers]
        return [each.number for each in found if isinstance(each, Socket) and each.peer.has_shut]
