"""The WebSocket extension permessage-deflate (RFC 7692), without context takeover.

Each message is compressed separately. A context that is kept between messages would make small
messages smaller, but would need 40 KiB of memory for each connection.
"""

import re
import zlib
from contextlib import suppress
from typing import NamedTuple

from ...http.parsers import TOKEN
from .frames import ProtocolError

#: Maximum window size in both directions, in bits: 12 bits are 4 KiB, 15 bits are 32 KiB. A client
#: that can't limit its window may use 15 bits.
WINDOW_BITS = 12
#: `memLevel` of zlib. This level needs about as much memory as the window.
MEMORY_LEVEL = 5
#: Minimum size of a message to be compressed, in bytes.
MIN_COMPRESSED_SIZE = 128
#: Last bytes of each compressed message, which are not sent (RFC 7692 §7.2.1).
TAIL = b"\x00\x00\xff\xff"

# `extension = token *( ";" param )`, `param = token [ "=" (token / quoted-string) ]`
# (RFC 6455 §9.1). Only numbers need to be supported in quoted strings.
_TOKEN = TOKEN.pattern.decode()
_PARAMETER = re.compile(rf'\s*({_TOKEN})(?:\s*=\s*(?:({_TOKEN})|"(\d+)"))?\s*')
_BITS = re.compile(r"[89]|1[0-5]")


class Deflate(NamedTuple):
    """Negotiated parameters; window sizes are in bits."""

    server_window: int
    client_window: int
    header: bytes
    """Value of the response header Sec-WebSocket-Extensions."""

    def compress(self, message: bytes) -> bytes:
        """Return a message as the payload of a compressed frame."""
        compressor = zlib.compressobj(wbits=-self.server_window, memLevel=MEMORY_LEVEL)
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[: -len(TAIL)]

    def inflater(self) -> "Inflater":
        """Return an inflater for one message."""
        return Inflater(self.client_window)


class Inflater:
    """Inflates one message in parts."""

    __slots__ = ("_stream",)

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(wbits=-window)

    def __call__(self, part: bytes, last: bool, limit: int) -> bytes:
        """Inflate a part of the message to at most `limit` bytes. Raises ProtocolError."""
        stream = self._stream
        try:
            inflated = stream.decompress(part + TAIL if last else part, limit + 1)
        except zlib.error as error:
            raise ProtocolError(1007, f"invalid compressed message: {error}") from None
        if len(inflated) > limit or stream.unconsumed_tail:
            raise ProtocolError(1009, "inflated message exceeds --ws-max-size")
        if len(stream.unused_data) > 1 + len(TAIL):  # allowed after a final block
            raise ProtocolError(1007, "data after the end of a compressed message")
        return inflated


def negotiate(offers: str) -> Deflate | None:
    """Accept the first acceptable offer of a client; return None if there is none (RFC 7692 §5).

    offers: value of the request header Sec-WebSocket-Extensions.
    """
    for offer in offers.split(","):
        name, *parameters = offer.split(";")
        if name.strip().lower() == "permessage-deflate":
            with suppress(ValueError):
                return _accept_offer(parameters)
    return None


def _accept_offer(parameters: list[str]) -> Deflate:
    """Accept an offer (RFC 7692 §7.1). Raises ValueError if it is invalid or unacceptable."""
    offered = _parse_parameters(parameters)
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if offered.pop(name, None) is not None:
            raise ValueError(f"{name} has a value")
    server, client = WINDOW_BITS, 15
    header = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if "server_max_window_bits" in offered:
        server = min(server, _parse_bits(offered.pop("server_max_window_bits")))
        if server == 8:
            raise ValueError("zlib can't compress with a window of 8 bits")
    header += f"; server_max_window_bits={server}"
    if "client_max_window_bits" in offered:
        client = WINDOW_BITS
        accepted = min(client, _parse_bits(offered.pop("client_max_window_bits") or "15"))
        header += f"; client_max_window_bits={accepted}"
    if offered:
        raise ValueError(f"unknown parameters: {', '.join(offered)}")
    return Deflate(server, client, header.encode())


def _parse_parameters(parameters: list[str]) -> dict[str, str | None]:
    parsed: dict[str, str | None] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in parsed:
            raise ValueError(f"malformed or repeated parameter: {parameter}")
        parsed[match[1]] = match[2] or match[3]
    return parsed


def _parse_bits(text: str | None) -> int:
    if text is None or not _BITS.fullmatch(text):
        raise ValueError(f"invalid window size: {text}")
    return int(text)
