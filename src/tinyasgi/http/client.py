"""Where requests come from and go to: as the transport says it, or as a proxy does."""

from dataclasses import dataclass
from typing import Any

__all__ = ["FORWARDING", "ClientInfo", "peer_address", "peer_name"]

#: The headers in which proxies describe their clients, by `--forwarded-headers`.
FORWARDING: dict[str, dict[bytes, str]] = {
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
    """The peer as `--forwarded-allow-ips` lists it: an IP address or `unix`; None if unknown.

    peer: its socket address, if that is known. unix: it is connected to a unix socket. Only the
    listening socket can say that: a TCP peer that has reset the connection has no address either.
    """
    if unix:
        return "unix"
    return peer[0] if isinstance(peer, tuple) else None


def peer_name(peer: Any, unix: bool = False) -> str:
    """The peer's name in the log: host and port, or `local` on a unix socket."""
    if unix:
        return "local"
    if not isinstance(peer, tuple):
        return "unknown"
    host, port = peer[:2]
    if not port:  # a proxy has not said it
        return str(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What is known of a client and of the way that its requests came."""

    scope: dict[str, Any]
    """What it adds to a scope."""
    name: str
    """The client, as it is called in the log."""
    address: str | None = None
    """The client, as `--forwarded-allow-ips` lists it (`peer_address`)."""
    host: bytes | None = None
    """What takes the place of the Host field."""
    root_path: str | None = None
    """What takes the place of the option of this name."""
