"""Where requests come from and go to: as the transport says it, or as a proxy does."""

import asyncio
from dataclasses import dataclass
from typing import Any

__all__ = ["Origin", "peer_name"]


def peer_name(address: Any) -> str:
    """How a peer is called in the log: host and port, or `local` on a unix socket."""
    if not isinstance(address, tuple):
        return "local"
    host, port = address[:2]
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
    host: bytes | None = None
    """What takes the place of the Host field."""
    root_path: str | None = None
    """What takes the place of the option of this name."""

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> "Origin":
        """What a transport knows."""
        peer = transport.get_extra_info("peername")
        host = transport.get_extra_info("sockname")
        tls = transport.get_extra_info("ssl_object")
        scope: dict[str, Any] = {
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            "server": tuple(host[:2]) if isinstance(host, tuple) else (host, None),
            "scheme": "https" if tls is not None else "http",
        }
        if tls is not None:
            from .tls_extension import TLSExtension  # not before it is needed

            scope["extensions"] = {"tls": TLSExtension(tls)}
        return cls(scope, peer_name(peer))
