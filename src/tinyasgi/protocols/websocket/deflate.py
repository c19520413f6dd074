"""The WebSocket extension permessage-deflate (RFC 7692), without a context between messages.

A context would make small messages smaller, at 40 KiB for each connection. Without it nothing is
kept: both sides begin anew with each message.
"""

import re
import zlib
from contextlib import suppress
from typing import NamedTuple

from .frames import ProtocolError

__all__ = ["Deflate", "negotiate"]

#: Bits of the window that messages are compressed with, either way, unless the client knows
#: nothing of it or wants less: 4 KiB, where 15 bits are 32 KiB.
WINDOW = 12
#: zlib's `memLevel`: about as much memory again.
MEMORY = 5
#: Bytes of a message that is not worth compressing.
SMALL = 128
#: What ends each compressed message and is left out (RFC 7692 §7.2.1).
TAIL = b"\x00\x00\xff\xff"

# `extension = token *( ";" param )`, `param = token [ "=" (token / quoted-string) ]`
# (RFC 6455 §9.1); of quoted strings only those that are numbers mean something here.
_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})(?:\s*=\s*(?:({_TOKEN})|"(\d+)"))?\s*')
_BITS = re.compile(r"[89]|1[0-5]")


class Deflate(NamedTuple):
    """What was agreed on; windows are in bits."""

    server_window: int
    client_window: int
    answer: bytes
    """The value of the Sec-WebSocket-Extensions field that tells the client."""

    def compress(self, message: bytes) -> bytes:
        """A message as the payload of a compressed frame."""
        compressor = zlib.compressobj(wbits=-self.server_window, memLevel=MEMORY)
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[: -len(TAIL)]

    def inflater(self) -> "Inflater":
        """What inflates one message."""
        return Inflater(self.client_window)


class Inflater:
    """Inflates one message, piece by piece."""

    __slots__ = ("_stream",)

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(wbits=-window)

    def __call__(self, piece: bytes, last: bool, limit: int) -> bytes:
        """What comes of a piece, in at most `limit` bytes. Raises ProtocolError."""
        stream = self._stream
        try:
            inflated = stream.decompress(piece + TAIL if last else piece, limit + 1)
        except zlib.error as error:
            raise ProtocolError(1007, f"a message that can't be inflated: {error}") from None
        if len(inflated) > limit or stream.unconsumed_tail:
            raise ProtocolError(1009, f"a message that inflates to over {limit} more bytes")
        if len(stream.unused_data) > 1 + len(TAIL):  # so much may follow a last block
            raise ProtocolError(1007, "a compressed message with something behind its end")
        return inflated


def negotiate(offers: str) -> Deflate | None:
    """The first of a client's offers that can be met, None if there is none (RFC 7692 §5).

    offers: the value of its Sec-WebSocket-Extensions headers.
    """
    for offer in offers.split(","):
        name, *parameters = offer.split(";")
        if name.strip().lower() == "permessage-deflate":
            with suppress(ValueError):
                return _agree(parameters)
    return None


def _agree(parameters: list[str]) -> Deflate:
    """What one offer leads to (RFC 7692 §7.1). Raises ValueError for one that can't be met."""
    offered = _parse(parameters)
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if offered.pop(name, None) is not None:
            raise ValueError(f"{name} with a value")
    server, client = WINDOW, 15
    answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if "server_max_window_bits" in offered:
        server = min(server, _bits(offered.pop("server_max_window_bits")))
        if server == 8:
            raise ValueError("zlib can't compress with so small a window")
    answer += f"; server_max_window_bits={server}"
    if "client_max_window_bits" in offered:
        client = WINDOW
        wanted = min(client, _bits(offered.pop("client_max_window_bits") or "15"))
        answer += f"; client_max_window_bits={wanted}"
    if offered:
        raise ValueError(f"unknown parameters: {', '.join(offered)}")
    return Deflate(server, client, answer.encode())


def _parse(parameters: list[str]) -> dict[str, str | None]:
    parsed: dict[str, str | None] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in parsed:
            raise ValueError(f"malformed, or there twice: {parameter}")
        parsed[match[1]] = match[2] or match[3]
    return parsed


def _bits(text: str | None) -> int:
    if text is None or not _BITS.fullmatch(text):
        raise ValueError(f"no size of a window: {text}")
    return int(text)
