"""Request bodies: bytes as they arrive → content (RFC 9112 §6 and §7.1)."""

import re
from typing import Protocol

from .parsers import START_LINE, BadRequest, Parser
from .partial import Partial
from .request import CHUNKED

__all__ = ["Chunked", "Decoder", "Length", "choose"]

# chunk-size [ chunk-ext ] CRLF: sixteen digits are 64 bits. Trailing space is refused, and so is
# what is no extension by the grammar.
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
#: Most bytes in a chunk's line, its extensions with it.
MAX_CHUNK_LINE = 1024
#: Most bytes in a trailer section.
MAX_TRAILERS = 16 * 1024


class Decoder(Protocol):
    """The rest of one request body."""

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Content, and what follows the body: None while the body goes on. Raises BadRequest."""


class Length:
    """A body whose length in bytes the head told."""

    __slots__ = ("_remaining",)

    def __init__(self, length: int) -> None:
        self._remaining = length

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        remaining = self._remaining
        if len(data) < remaining:
            self._remaining = remaining - len(data)
            return data, None
        return data[:remaining], data[remaining:]


class Chunked:
    """A body in the chunked coding; its trailer fields are parsed, bounded and dropped.

    limit: most bytes of content, 0 for no limit. parser: judges the trailer section.
    """

    __slots__ = ("_in_trailers", "_left", "_limit", "_missing", "_parser", "_partial")

    def __init__(self, limit: int, parser: Parser) -> None:
        self._limit = self._left = limit
        self._parser = parser
        self._missing = 0  # bytes of the current chunk, the CRLF that ends it with it
        self._in_trailers = False
        self._partial: Partial | None = None  # a chunk line or a trailer section

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        if self._partial is not None:
            self._partial.add(data)
            if not self._ends(self._partial):
                return b"", None
            data = bytes(self._partial.data)
            self._partial = None
        pieces: list[bytes] = []
        position = 0
        while not self._in_trailers:
            if self._missing:
                position = self._chunk(data, position, pieces)
                if self._missing:
                    return b"".join(pieces), None
            end = data.find(b"\r\n", position, position + MAX_CHUNK_LINE)
            if end < 0:
                self._keep(data[position:])
                return b"".join(pieces), None
            size = self._size(data[position:end])
            position = end + 2
            if size:
                self._missing = size + 2
            else:
                self._in_trailers = True
        return b"".join(pieces), self._trailers(data[position:])

    def _size(self, line: bytes) -> int:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(400, f"an invalid chunk line: {line[:80]!r}")
        size = int(match[1], 16)
        if self._limit:
            self._left -= size
            if self._left < 0:
                raise BadRequest(413, f"a body of more than {self._limit} bytes")
        return size

    def _chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Takes what is there of a chunk; the position behind it."""
        missing = self._missing
        if missing > 2:
            piece = data[position : position + missing - 2]
            pieces.append(piece)
            position += len(piece)
            missing -= len(piece)
        if missing <= 2:
            ending = data[position : position + missing]
            if ending != b"\r\n"[2 - missing :][: len(ending)]:
                raise BadRequest(400, f"a chunk that does not end where it should: {ending!r}")
            position += len(ending)
            missing -= len(ending)
        self._missing = missing
        return position

    def _trailers(self, data: bytes) -> bytes | None:
        if data.startswith(b"\r\n"):
            return data[2:]
        end = data.find(b"\r\n\r\n", 0, MAX_TRAILERS)
        if end < 0:
            self._keep(data)
            return None
        self._parser.parse_headers(START_LINE + data[: end + 4], len(START_LINE))
        return data[end + 4 :]

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of a line or of the trailers until the rest of it arrives."""
        self._partial = Partial()
        self._partial.add(data)
        self._check(self._partial)

    def _ends(self, partial: Partial) -> bool:
        """Return whether the last read has brought the end. Raises BadRequest."""
        if self._in_trailers:
            found = partial.find(b"\r\n\r\n") >= 0 or partial.data.startswith(b"\r\n")
        else:
            found = partial.find(b"\r\n") >= 0
        if not found:
            self._check(partial)
        return found

    def _check(self, partial: Partial) -> None:
        if self._in_trailers:
            what, limit, status = "a trailer section", MAX_TRAILERS, 431
        else:
            what, limit, status = "a chunk line", MAX_CHUNK_LINE, 400
        if partial.has_bare():
            raise BadRequest(400, f"a bare CR or LF in {what}")
        if len(partial.data) >= limit:
            raise BadRequest(status, f"{what} of over {limit} bytes")


def choose(length: int, limit: int, parser: Parser) -> Decoder:
    """The decoder of a body of `length` bytes or CHUNKED; limit in bytes, 0 for none.

    Raises BadRequest 413 when the length alone is over the limit.
    """
    if length == CHUNKED:
        return Chunked(limit, parser)
    if limit and length > limit:
        raise BadRequest(413, f"a body of {length} bytes where {limit} are allowed")
    return Length(length)
