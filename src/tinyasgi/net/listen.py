"""`Config` → bound sockets."""

import contextlib
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..config.config import Config

__all__ = ["Inherited", "ListenError", "address", "another", "bind", "close", "files"]
__all__ += ["abandon", "has_queue", "listen", "release"]

_TCP = (socket.AF_INET, socket.AF_INET6)
_UNIX = getattr(socket, "AF_UNIX", None)  # Windows has none

#: Bytes that the shortest `sun_path` of all systems has room for, with the zero at the end.
ROOM = 104
#: Seconds for another server to let go of the folder of a unix socket.
LOCK = 1.0


class ListenError(OSError):
    """An address that can't be listened on; the message says which and why."""


class Inherited(socket.socket):
    """A listener that this process was given: others may hold it, and its file is not ours."""


def bind(config: Config) -> list[socket.socket]:
    """The sockets that a configuration asks for, bound; only unix sockets listen already.

    A name may stand for several addresses: each gets a socket, and with port 0 all get the same
    port. A port that another process has is refused, whether or not that one would share it.
    Raises ListenError.
    """
    places = _places(config)
    sockets: list[socket.socket] = []
    try:
        for place in places:
            try:
                sockets += _bind(place, places, config)
            except ListenError:
                raise
            except (OSError, OverflowError, ValueError) as error:
                # Numbers that are no C integer, and host names that have no form in the DNS.
                reason = getattr(error, "strerror", None) or error
                raise ListenError(f"can't listen on {place}: {reason}") from None
    except BaseException:
        close(sockets)
        raise
    return sockets


def listen(sock: socket.socket, config: Config) -> None:
    """Lets a bound socket listen. Raises ListenError.

    Linux lets several sockets bind a port that nobody listens on; only one of them can listen.
    """
    try:
        sock.listen(config.backlog)
    except OSError as error:
        where, reason = address(sock, False).removeprefix("http://"), error.strerror or error
        raise ListenError(f"can't listen on {where}: {reason}") from None


def another(sock: socket.socket) -> socket.socket:
    """A listener on the address of `sock` for one more worker. Raises OSError.

    On Linux a TCP port has a queue for each (SO_REUSEPORT): the kernel spreads connections evenly,
    and those of a queue wait for whoever accepts from it next. Elsewhere, and for other sockets,
    it is the same queue.
    """
    if not has_queue(sock):
        return sock.dup()
    # Not set before the first bind: that one shows that nobody else has the port.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    further = socket.socket(sock.family, sock.type, sock.proto)
    try:
        further.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        further.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            further.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        further.bind(sock.getsockname())
    except BaseException:
        further.close()
        raise
    return further


def has_queue(sock: socket.socket) -> bool:
    """Whether `another` has given, or would give, each worker a queue of its own."""
    return sys.platform == "linux" and sock.family in _TCP and not isinstance(sock, Inherited)


def _places(config: Config) -> tuple[str, ...]:
    """Where to listen, in the notation of `bind`."""
    if config.bind:
        return config.bind
    if config.fd is not None:
        return (f"fd://{config.fd}",)
    if config.uds is not None:
        return (f"unix:{config.uds}",)
    host = f"[{config.host}]" if ":" in config.host else config.host
    return (f"{host}:{config.port}",)


def _bind(place: str, places: tuple[str, ...], config: Config) -> list[socket.socket]:
    if place.startswith("fd://"):
        return [_inherit(int(place[5:]))]
    if place.startswith("unix:"):
        return [_bind_unix(place[5:], config)]
    host, _, port = place.rpartition(":")
    alone = not any(other != place and other.endswith(f":{port}") for other in places)
    return _bind_tcp(host.strip("[]"), int(port), alone)


def _inherit(number: int) -> Inherited:
    sock = Inherited(fileno=os.dup(number))
    fault = ""
    if sock.type != socket.SOCK_STREAM or sock.family not in (*_TCP, _UNIX):
        fault = "it is not a TCP socket or a unix stream socket"
    elif not (name := sock.getsockname()) or (sock.family in _TCP and not name[1]):
        fault = "the socket is not bound"
    else:
        with contextlib.suppress(OSError):
            sock.getpeername()
            fault = "the socket is a connection"
    if fault:
        sock.close()
        raise OSError(fault)
    return sock


def _bind_tcp(host: str, port: int, alone: bool) -> list[socket.socket]:
    """Bind to the addresses of a host; those that this machine lacks are left out, but not all."""
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((info[0], info[4][0], *info[4][2:]) for info in infos)
    # `::` alone means both families; beside an IPv4 socket of its own it must not.
    both = alone and len(addresses) == 1
    sockets: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for family, ip, *scope in addresses:
            try:
                sock = _bind_address(family, (ip, port, *scope), both)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                lacking = error
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]
        if lacking is not None and not sockets:
            raise lacking
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_address(family: int, where: tuple[Any, ...], both: bool) -> socket.socket:
    """both: an IPv6 socket takes IPv4 connections, too."""
    # asyncio sets TCP_NODELAY only where the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, config: Config) -> socket.socket:
    """A file that a dead server left is replaced; a live server's is not, nor any other file.

    The socket listens at once: one that does not looks like that of a dead server.
    """
    number = None if config.uds_group is None else _group_number(config.uds_group)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _folder_locked(path):
            if os.path.lexists(path):
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    raise ListenError(
                        f"can't listen on {path}: the file exists and is not a socket"
                    )
                if not _is_stale(path):
                    raise ListenError(f"can't listen on {path}: another server is listening there")
                os.unlink(path)
            sock.bind(_name(path))
            try:
                if number is not None:
                    os.chown(path, -1, number)
                os.chmod(path, config.uds_mode)
                sock.listen(config.backlog)
            except OSError:
                os.unlink(path)
                raise
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """A lock on the folder of a socket: no two servers replace one file at the same time.

    After a second without the lock it goes on: it may be held by another kind of program.
    """
    import fcntl  # there is none on Windows

    folder = None
    with contextlib.suppress(OSError):  # not every file system has locks
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        deadline = time.monotonic() + LOCK
        while time.monotonic() < deadline:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
    try:
        yield
    finally:
        if folder is not None:
            os.close(folder)


def _group_number(name: str) -> int:
    import grp  # there is none on Windows

    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"there is no group {name!r}") from None


def files(sockets: Iterable[socket.socket]) -> list[str]:
    """The files of unix sockets that are bound here, and are to be removed in the end."""
    unix = [sock for sock in sockets if sock.family == _UNIX and not isinstance(sock, Inherited)]
    return [os.path.abspath(sock.getsockname()) for sock in unix]


def _name(path: str) -> str:
    """The name of a unix socket for the system: relative when there is no room for the path."""
    return path if len(os.fsencode(path)) < ROOM else os.path.relpath(path)


def close(sockets: Iterable[socket.socket]) -> None:
    """Closes listeners that nobody is to have."""
    paths = files(sockets)
    for sock in sockets:
        sock.close()
    release(paths)


def abandon(sockets: Iterable[socket.socket], paths: Iterable[str]) -> None:
    """Closes listeners of an event loop that does not run any more, and removes their files."""
    for sock in sockets:
        with contextlib.suppress(OSError):  # it is closed already
            os.close(sock.fileno())  # a loop may keep the object open
    release(paths)


def release(paths: Iterable[str]) -> None:
    """Removes the files of unix sockets that nobody listens on any more."""
    for path in paths:
        with contextlib.suppress(OSError), _folder_locked(path):
            if _is_stale(path):
                os.unlink(path)


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a busy server need not have room for this
        return probe.connect_ex(_name(path)) == errno.ECONNREFUSED


def address(sock: socket.socket, tls: bool) -> str:
    """Where clients find a socket: a URL, or the path of a unix socket."""
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name if isinstance(sock, Inherited) else os.path.abspath(name)}"
    if isinstance(name, bytes):  # without a file, in the abstract namespace of Linux
        return f"unix:@{os.fsdecode(name[1:])}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
