"""Client address, server address and scheme of a request, from its connection or from a proxy."""

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

#: Headers in which proxies describe their clients, by the value of `--forwarded-fields`.
FORWARDED_HEADERS: dict[str, dict[bytes, str]] = {
    "x-forwarded": {
        b"x-forwarded-for": "for",
        b"x-forwarded-proto": "proto",
        b"x-forwarded-host": "host",
        b"x-forwarded-port": "port",
        b"x-forwarded-prefix": "prefix",
    },
    "forwarded": {b"forwarded": "forwarded"},
}


def peer_address(peer: Any, unix: bool) -> str | None:
    """Return a peer in the notation of `--forwarded-allow-ips`: an IP address or `unix`.

    peer: socket address; None on a unix socket, or if a TCP peer has reset the connection. unix:
    whether the listener is a unix socket. Return None if the address is unknown.
    """
    if unix:
        return "unix"
    return peer[0] if isinstance(peer, tuple) else None


def peer_name(peer: Any, unix: bool = False) -> str:
    """Return the name of a peer for log lines: host and port, or `unix` for a unix socket."""
    if unix:
        return "unix"
    if not isinstance(peer, tuple):
        return "unknown"
    host, port = peer[:2]
    if not port:  # the headers of a proxy may contain no port
        return str(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Source of a request: the peer, or the client that a trusted proxy names."""

    scope: dict[str, Any]
    """Keys for the ASGI scope."""
    name: str
    """Name of the client in log lines."""
    address: str | None = None
    """Address of the peer, as returned by `peer_address`; None for the client of a proxy."""
    host: bytes | None = None
    """Replacement for the Host header."""
    root_path: str | None = None
    """Replacement for the option `--root-path`."""

    def without_extensions(self, names: Container[str]) -> "ClientInfo":
        """Return a copy without some of the ASGI extensions."""
        extensions = self.scope["extensions"].items()
        left = {name: value for name, value in extensions if name not in names}
        return replace(self, scope=self.scope | {"extensions": left})
