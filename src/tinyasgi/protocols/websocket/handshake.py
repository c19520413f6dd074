"""The opening handshake of a WebSocket (RFC 6455 §4.2)."""

import binascii
import hashlib
from dataclasses import dataclass

from ...http.parsers import BadRequest
from ...typing import HeaderPairs, Headers
from . import deflate
from .deflate import Deflate

__all__ = ["Handshake", "read_handshake"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Headers of the answer that an app can't set.
_OURS = frozenset({b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"})


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client asks for."""

    key: bytes
    subprotocols: list[str]
    """In the order of its preference."""
    deflate: Deflate | None
    """How messages are compressed, if they can be."""

    def answer(self, subprotocol: str | None, headers: HeaderPairs) -> Headers:
        """The headers of the response that switches protocols.

        subprotocol, headers: what the app adds. Raises ValueError.
        """
        added = [(bytes(name), bytes(value)) for name, value in headers]
        for name, _ in added:
            if name.lower() in _OURS:
                raise ValueError(f"{name!r} is not for an app to set")
        digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
        answer = [(b"sec-websocket-accept", binascii.b2a_base64(digest, newline=False))]
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                raise ValueError(f"the client has not offered the subprotocol {subprotocol!r}")
            answer.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.deflate is not None:
            answer.append((b"sec-websocket-extensions", self.deflate.answer))
        return answer + added


def read_handshake(headers: Headers, compress: bool) -> Handshake:
    """Judges the headers of a GET request whose Upgrade says WebSocket (RFC 6455 §4.2.1).

    compress: messages may be compressed. Raises BadRequest.
    """
    version = _joined(headers, b"sec-websocket-version")
    if version != b"13":
        raise BadRequest(426, f"version 13 of WebSocket is spoken here, not {version[:20]!r}")
    key = _joined(headers, b"sec-websocket-key")
    try:
        if len(binascii.a2b_base64(key, strict_mode=True)) != 16:
            raise ValueError
    except ValueError:
        raise BadRequest(400, "a Sec-WebSocket-Key that is not 16 bytes in base64") from None
    offers = _joined(headers, b"sec-websocket-extensions") if compress else b""
    names = _joined(headers, b"sec-websocket-protocol").decode("latin-1").split(",")
    subprotocols = [name.strip() for name in names if name.strip()]
    return Handshake(key, subprotocols, deflate.negotiate(offers.decode("latin-1")))


def _joined(headers: Headers, wanted: bytes) -> bytes:
    """The value of a field; repeated ones are joined (RFC 9110 §5.3)."""
    return b", ".join([value for name, value in headers if name == wanted])
