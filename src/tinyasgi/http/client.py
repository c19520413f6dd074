"""Where requests come from and go to: as the transport says it, or as a proxy does."""

import asyncio
from dataclasses import dataclass
from typing import Any

__all__ = ["Origin", "peer_address", "peer_name"]


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
class Origin:
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

    @classmethod
    def of(cls, transport: asyncio.BaseTransport, unix: bool) -> "Origin | None":
        """Read a transport; None if its peer is not connected any more.

        unix: the connection was accepted from a unix socket.
        """
        peer = transport.get_extra_info("peername")
        host = transport.get_extra_info("sockname")
        address = peer_address(peer, unix)
        if address is None:
            return None
        tls = transport.get_extra_info("ssl_object")
        scope: dict[str, Any] = {
            "client": None if unix else tuple(peer[:2]),
            "server": (host, None) if unix else tuple(host[:2]),
            "scheme": "https" if tls is not None else "http",
        }
        if tls is not None:
            from ..tls.extension import TLSExtension  # not before it is needed

            scope["extensions"] = {"tls": TLSExtension(tls)}
        return cls(scope, peer_name(peer, unix), address)
