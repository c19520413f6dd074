"""Listening sockets: created from `Config`, inherited, and removed."""

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

_TCP = (socket.AF_INET, socket.AF_INET6)
_UNIX = getattr(socket, "AF_UNIX", None)  # Windows has none

#: Size of the shortest `sun_path` of all systems, in bytes, with the zero at its end.
SUN_PATH_SIZE = 104
#: Maximum seconds to wait for a lock on the directory of a unix socket.
LOCK_TIMEOUT = 1.0


class ListenError(OSError):
    """An address that the server can't listen on. The message contains address and reason."""


class AddressInUse(ListenError):
    """An address on which another server listens."""


class InheritedSocket(socket.socket):
    """A listener from another process, which may still use it and which owns its file."""


def bind(config: Config) -> list[socket.socket]:
    """Return bound sockets for all addresses of a configuration; unix sockets already listen.

    A host name may have several addresses. Each gets a socket. With port 0, all get the same port.
    A port that is in use is refused, even if the other process would share it. Raises ListenError.
    """
    addresses = _addresses(config)
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                sockets += _bind(address, addresses, config)
            except ListenError:
                raise
            except (OSError, OverflowError, ValueError) as error:
                # A number may exceed a C integer, and a host name may be invalid in the DNS.
                reason = getattr(error, "strerror", None) or error
                in_use = getattr(error, "errno", None) == errno.EADDRINUSE
                kind = AddressInUse if in_use else ListenError
                raise kind(f"can't listen on {address}: {reason}") from None
    except BaseException:
        close(sockets)
        raise
    return sockets


def listen(sock: socket.socket, config: Config) -> None:
    """Start listening on a bound socket. Raises ListenError.

    On Linux, several sockets with SO_REUSEADDR can be bound to a port, but only one can listen.
    """
    try:
        sock.listen(config.backlog)
    except OSError as error:
        where, reason = address(sock, False).removeprefix("http://"), error.strerror or error
        raise ListenError(f"can't listen on {where}: {reason}") from None


def clone(sock: socket.socket) -> socket.socket:
    """Return a listener with its own accept queue on the address of `sock`, for one more worker.

    `has_own_queue` must hold for `sock`. The kernel spreads connections evenly over the queues
    (SO_REUSEPORT). The next process that accepts from a queue gets the connections in it. Raise
    OSError.
    """
    # Not set before the first bind, which shows that no other process uses the port.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    new = socket.socket(sock.family, sock.type, sock.proto)
    with _close_on_error(new):
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            only = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        new.bind(sock.getsockname())
    return new


def has_own_queue(sock: socket.socket) -> bool:
    """Return whether each worker can have its own accept queue on the address of a listener.

    If not, all workers get the same socket. `sock.dup()` would set the open file description, which
    all of them share, to blocking.
    """
    inherited = isinstance(sock, InheritedSocket)
    return sys.platform == "linux" and sock.family in _TCP and not inherited


@contextlib.contextmanager
def _close_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _addresses(config: Config) -> tuple[str, ...]:
    """Return the addresses to listen on, in the notation of `--bind`."""
    if config.bind:
        return config.bind
    if config.fd is not None:
        return (f"fd://{config.fd}",)
    if config.uds is not None:
        return (f"unix:{config.uds}",)
    host = f"[{config.host}]" if ":" in config.host else config.host
    return (f"{host}:{config.port}",)


def _bind(address: str, addresses: tuple[str, ...], config: Config) -> list[socket.socket]:
    if address.startswith("fd://"):
        return [_inherit(int(address[5:]))]
    if address.startswith("unix:"):
        return [_bind_unix(address[5:], config)]
    host, _, port = address.rpartition(":")
    shared = any(other != address and other.endswith(f":{port}") for other in addresses)
    return _bind_tcp(host.strip("[]"), int(port), shared)


def _inherit(descriptor: int) -> InheritedSocket:
    sock = InheritedSocket(fileno=os.dup(descriptor))
    with _close_on_error(sock):
        if sock.type != socket.SOCK_STREAM or sock.family not in (*_TCP, _UNIX):
            raise OSError("it is not a TCP socket or a unix stream socket")
        name = sock.getsockname()
        if not name or (sock.family in _TCP and not name[1]):
            raise OSError("the socket is not bound")
        try:
            sock.getpeername()
        except OSError:  # not connected
            return sock
        raise OSError("the socket is a connection")


def _bind_tcp(host: str, port: int, shared: bool) -> list[socket.socket]:
    """Bind to all addresses of a host, except those that this machine does not have.

    shared: another address to bind has the same port. Raises OSError if no address is available.
    """
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((info[0], info[4][0], *info[4][2:]) for info in infos)
    dual_stack = len(addresses) == 1 and not shared  # `::` accepts IPv4 connections, too
    unavailable: OSError | None = None
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, ip, *scope in addresses:
            try:
                sock = _bind_address(family, (ip, port, *scope), dual_stack)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                unavailable = error
            else:
                sockets.append(stack.enter_context(sock))
                port = sock.getsockname()[1]
        if unavailable is not None and not sockets:
            raise unavailable
        stack.pop_all()
        return sockets


def _bind_address(family: int, address: tuple[Any, ...], dual_stack: bool) -> socket.socket:
    # asyncio sets TCP_NODELAY only if the protocol is set.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with _close_on_error(sock):
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        sock.bind(address)
    return sock


def _bind_unix(path: str, config: Config) -> socket.socket:
    """Bind a unix socket and listen. A file of a dead server is replaced; other files are not.

    The socket must listen at once. Until then, it looks like the socket of a dead server.
    """
    group = None if config.uds_group is None else group_id(config.uds_group)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _close_on_error(sock), _directory_lock(path):
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise ListenError(f"can't listen on {path}: the file exists and is not a socket")
            if not _is_stale(path):
                raise AddressInUse(f"can't listen on {path}: another server is listening there")
            os.unlink(path)
        sock.bind(_socket_name(path))
        try:
            if group is not None:
                os.chown(path, -1, group)
            os.chmod(path, config.uds_mode)
            sock.listen(config.backlog)
        except OSError:
            os.unlink(path)
            raise
    return sock


@contextlib.contextmanager
def _directory_lock(path: str) -> Iterator[None]:
    """Lock the directory of a unix socket, so that two servers do not replace a file at once.

    If the lock is not free within LOCK_TIMEOUT, continue without it: a program that is not a server
    may hold it.
    """
    import fcntl  # not on Windows

    directory = None
    with contextlib.suppress(OSError):  # some file systems have no locks
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        deadline = time.monotonic() + LOCK_TIMEOUT
        while time.monotonic() < deadline:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
    try:
        yield
    finally:
        if directory is not None:
            os.close(directory)


def group_id(name: str) -> int:
    """Return the number of a group, by name or number. Raises OSError if there is no such group."""
    import grp  # not on Windows

    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"group {name!r} does not exist") from None


def socket_files(sockets: Iterable[socket.socket]) -> list[str]:
    """Return the files of unix sockets that this process has bound and must remove at the end."""
    return [
        os.path.abspath(sock.getsockname())
        for sock in sockets
        if sock.family == _UNIX and not isinstance(sock, InheritedSocket)
    ]


def _socket_name(path: str) -> str:
    """Return the name of a unix socket for the kernel: a relative one if the path is too long."""
    return path if len(os.fsencode(path)) < SUN_PATH_SIZE else os.path.relpath(path)


def close(sockets: Iterable[socket.socket]) -> None:
    """Close listeners and remove their files."""
    paths = socket_files(sockets)
    for sock in sockets:
        sock.close()
    remove_files(paths)


def force_close(sockets: Iterable[socket.socket], paths: Iterable[str]) -> None:
    """Close listeners of an event loop that has stopped, and remove their files."""
    for sock in sockets:
        with contextlib.suppress(OSError):  # already closed
            os.close(sock.fileno())  # the event loop may still use the object
    remove_files(paths)


def remove_files(paths: Iterable[str]) -> None:
    """Remove the files of unix sockets on which no process listens."""
    for path in paths:
        with contextlib.suppress(OSError), _directory_lock(path):
            if _is_stale(path):
                os.unlink(path)


def _is_stale(path: str) -> bool:
    """Return whether no process listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # the accept queue of a busy server may be full
        return probe.connect_ex(_socket_name(path)) == errno.ECONNREFUSED


def address(sock: socket.socket, tls: bool) -> str:
    """Return the address for clients: a URL, or the path of a unix socket."""
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name if isinstance(sock, InheritedSocket) else os.path.abspath(name)}"
    if isinstance(name, bytes):  # without a file, in the abstract namespace of Linux
        return f"unix:@{os.fsdecode(name[1:])}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
