"""`Config` → bound sockets and a TLS context."""

import contextlib
import errno
import os
import socket
import ssl
import stat

from .config import Config
from .options import OptionError

__all__ = ["ListenError", "address", "bind", "release", "tls_context"]


class ListenError(OSError):
    """An address that can't be listened on; the message says which and why."""


def bind(config: Config) -> list[socket.socket]:
    """The sockets that a configuration asks for, bound and not yet listening.

    A name may stand for several addresses: each gets a socket, and with port 0 all get the same
    port. Raises ListenError.
    """
    try:
        if config.fd is not None:
            return [socket.socket(fileno=os.dup(config.fd))]
        if config.uds is not None:
            return [_bind_unix(config.uds, config.uds_mode)]
        return _bind_tcp(config.host, config.port)
    except OSError as error:
        if isinstance(error, ListenError):
            raise
        place = f"fd {config.fd}" if config.fd is not None else config.uds
        place = place or f"{config.host} port {config.port}"
        raise ListenError(f"can't listen on {place}: {error.strerror or error}") from None


def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(infos):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # `::` alone means both families; beside an IPv4 socket of its own it must not.
                both = len(infos) == 1
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
            sock.bind((where[0], port, *where[2:]))
            port = sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_unix(path: str, mode: int) -> socket.socket:
    """A file that a dead server left is replaced; a live server's is not, nor any other file."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise ListenError(f"can't listen on {path}: it exists and is no socket")
            if not _is_stale(path):
                raise ListenError(f"can't listen on {path}: a server listens there already")
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def release(path: str) -> None:
    """Removes the file of a unix socket that nobody listens on any more."""
    with contextlib.suppress(OSError):
        if _is_stale(path):
            os.unlink(path)


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a busy server need not have room for this
        return probe.connect_ex(path) == errno.ECONNREFUSED


def address(sock: socket.socket, tls: bool) -> str:
    """Where clients find a socket: a URL, or the path of a unix socket."""
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS side of a configuration, None without a certificate.

    Raises OptionError for files that can't be used.
    """
    if config.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[config.ssl_min_version]
    context.set_alpn_protocols(["http/1.1"])
    name, value = "ssl_certfile", config.ssl_certfile
    try:
        # A password is always given: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(
            config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password or ""
        )
        if config.ssl_ca_certs is not None:
            name, value = "ssl_ca_certs", config.ssl_ca_certs
            context.load_verify_locations(config.ssl_ca_certs)
        if config.ssl_ciphers is not None:
            name, value = "ssl_ciphers", config.ssl_ciphers
            context.set_ciphers(config.ssl_ciphers)
    except OSError as error:
        raise OptionError(name, value, f"usable: {error.strerror or error}") from None
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[config.ssl_cert_reqs]
    return context
