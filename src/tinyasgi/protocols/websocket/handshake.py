"""Opening handshake of a WebSocket (RFC 6455 §4.2)."""

import binascii
import hashlib
from dataclasses import dataclass

from ...http.parsers import BadRequest
from ...typing import HeaderPairs, Headers
from . import deflate
from .deflate import Deflate

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Response headers that an app can't set.
_RESERVED_HEADERS = frozenset(
    {b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A valid request for a WebSocket."""

    key: bytes | None
    """Sec-WebSocket-Key; None in HTTP/2."""
    subprotocols: list[str]
    """Subprotocols that the client offers, in the order of its preference."""
    deflate: Deflate | None
    """Negotiated compression, or None."""

    def response_headers(self, subprotocol: str | None, headers: HeaderPairs) -> Headers:
        """Return the headers of the 101 response.

        subprotocol, headers: values from the app. Raises ValueError if one is not allowed.
        """
        added = [(bytes(name), bytes(value)) for name, value in headers]
        for name, _ in added:
            if name.lower() in _RESERVED_HEADERS:
                raise ValueError(f"an app can't set the header {name.decode('latin-1')!r}")
        response = []
        if self.key is not None:
            digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
            accept = binascii.b2a_base64(digest, newline=False)
            response.append((b"sec-websocket-accept", accept))
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:
                raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
            response.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.deflate is not None:
            response.append((b"sec-websocket-extensions", self.deflate.header))
        return response + added


def read_handshake(headers: Headers, compress: bool, has_key: bool = True) -> Handshake:
    """Validate the headers of a request that asks for WebSocket (RFC 6455 §4.2.1, RFC 8441 §5).

    compress: whether to accept compression. has_key: False for HTTP/2, which needs no
    Sec-WebSocket-Key. Raises BadRequest.
    """
    version = _joined_value(headers, b"sec-websocket-version")
    if version != b"13":
        raise BadRequest(426, f"unsupported WebSocket version {version[:20]!r}, expected 13")
    key = _read_key(headers) if has_key else None
    offers = _joined_value(headers, b"sec-websocket-extensions") if compress else b""
    names = _joined_value(headers, b"sec-websocket-protocol").decode("latin-1").split(",")
    subprotocols = [name.strip() for name in names if name.strip()]
    return Handshake(key, subprotocols, deflate.negotiate(offers.decode("latin-1")))


def _read_key(headers: Headers) -> bytes:
    """Return Sec-WebSocket-Key. Raises BadRequest."""
    key = _joined_value(headers, b"sec-websocket-key")
    try:
        if len(binascii.a2b_base64(key, strict_mode=True)) != 16:
            raise ValueError
    except ValueError:
        raise BadRequest(400, "Sec-WebSocket-Key must be 16 bytes in base64") from None
    return key


def _joined_value(headers: Headers, wanted: bytes) -> bytes:
    """Return the value of a header; repeated ones are joined (RFC 9110 §5.3)."""
    return b", ".join([value for name, value in headers if name == wanted])
