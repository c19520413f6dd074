"""Decoders of request bodies (RFC 9112 §6 and §7.1)."""

import re
from typing import Protocol

from .buffer import ReceiveBuffer
from .parsers import START_LINE, TOKEN, BadRequest, Parser
from .request import CHUNKED

# chunk-size [ chunk-ext ] CRLF. Sixteen digits are 64 bits. The grammar allows no space at the end.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_CHUNK_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*" % (TOKEN.pattern, TOKEN.pattern, _QUOTED)
)
#: Maximum size of a chunk size line with its extensions, in bytes.
MAX_CHUNK_SIZE_LINE = 1024
#: Maximum size of a trailer section, in bytes.
MAX_TRAILER_SECTION = 16 * 1024


class BodyDecoder(Protocol):
    """Decoder of the body of one request."""

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the content in `data`, and the bytes after the end of the body.

        The second value is None until the body is complete. Raises BadRequest for invalid data.
        """


class LengthDecoder:
    """Body with a Content-Length.

    length: size of the body in bytes.
    """

    __slots__ = ("_remaining",)

    def __init__(self, length: int) -> None:
        self._remaining = length

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        remaining = self._remaining
        if len(data) < remaining:
            self._remaining = remaining - len(data)
            return data, None
        return data[:remaining], data[remaining:]


class ChunkedDecoder:
    """Body in the chunked transfer coding. The trailer section is validated and discarded.

    limit: maximum size of the content in bytes, 0 for no limit. parser: parses the trailer section.
    """

    __slots__ = ("_buffer", "_chunk_remaining", "_in_trailers", "_limit", "_parser", "_room")

    def __init__(self, limit: int, parser: Parser) -> None:
        self._limit = self._room = limit
        self._parser = parser
        self._chunk_remaining = 0  # unread bytes of the current chunk, including its last CRLF
        self._in_trailers = False
        #: An incomplete chunk size line or trailer section.
        self._buffer: ReceiveBuffer | None = None

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        if self._buffer is not None:
            self._buffer.append(data)
            if not self._is_complete(self._buffer):
                return b"", None
            data, self._buffer = bytes(self._buffer.data), None
        content: list[bytes] = []
        position = 0
        while not self._in_trailers:
            if self._chunk_remaining:
                position = self._read_chunk(data, position, content)
                if self._chunk_remaining:
                    return b"".join(content), None
            end = data.find(b"\r\n", position, position + MAX_CHUNK_SIZE_LINE)
            if end < 0:
                self._keep(data[position:])
                return b"".join(content), None
            size = self._parse_size(data[position:end])
            position = end + 2
            if size:
                self._chunk_remaining = size + 2
            else:
                self._in_trailers = True
        return b"".join(content), self._read_trailers(data[position:])

    def _parse_size(self, line: bytes) -> int:
        match = _CHUNK_SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(400, f"invalid chunk size: {line[:80]!r}")
        size = int(match[1], 16)
        if self._limit:
            self._room -= size
            if self._room < 0:
                raise BadRequest(413, f"request body exceeds --limit-body-size ({self._limit})")
        return size

    def _read_chunk(self, data: bytes, position: int, content: list[bytes]) -> int:
        """Append chunk data to `content`; return the offset of the next byte."""
        remaining = self._chunk_remaining
        if remaining > 2:
            chunk = data[position : position + remaining - 2]
            content.append(chunk)
            position += len(chunk)
            remaining -= len(chunk)
        if remaining <= 2:
            ending = data[position : position + remaining]
            if ending != b"\r\n"[2 - remaining :][: len(ending)]:
                raise BadRequest(400, f"chunk data not followed by CRLF but by {ending!r}")
            position += len(ending)
            remaining -= len(ending)
        self._chunk_remaining = remaining
        return position

    def _read_trailers(self, data: bytes) -> bytes | None:
        """Return the bytes after the trailer section, or None while it is incomplete."""
        if data.startswith(b"\r\n"):
            return data[2:]
        end = data.find(b"\r\n\r\n", 0, MAX_TRAILER_SECTION) + 4
        if end < 4:
            self._keep(data)
            return None
        self._parser.parse_headers(START_LINE + data[:end], len(START_LINE))
        return data[end:]

    def _keep(self, data: bytes) -> None:
        """Keep an incomplete line or section until more data arrives.

        Raises BadRequest if it is already invalid or too long.
        """
        self._buffer = ReceiveBuffer(data)
        self._is_complete(self._buffer)

    def _is_complete(self, buffer: ReceiveBuffer) -> bool:
        """Return whether the line or section is complete. Raises BadRequest if it is invalid."""
        if self._in_trailers:
            name, ending, limit, status = "trailer section", b"\r\n\r\n", MAX_TRAILER_SECTION, 431
        else:
            name, ending, limit, status = "chunk size line", b"\r\n", MAX_CHUNK_SIZE_LINE, 400
        if self._in_trailers and buffer.data.startswith(b"\r\n"):
            return True
        if buffer.find(ending, limit) >= 0:
            return True
        if buffer.has_bare_cr_or_lf():
            raise BadRequest(400, f"bare CR or LF in a {name}")
        if len(buffer.data) >= limit:
            raise BadRequest(status, f"{name} longer than {limit} bytes")
        return False


def create_decoder(length: int, limit: int, parser: Parser) -> BodyDecoder:
    """Return the decoder for a body.

    length: size of the body in bytes, or CHUNKED. limit: maximum size of the content in bytes, 0
    for no limit. Raises BadRequest 413 if `length` exceeds the limit.
    """
    if length == CHUNKED:
        return ChunkedDecoder(limit, parser)
    if limit and length > limit:
        reason = f"request body of {length} bytes exceeds --limit-body-size ({limit})"
        raise BadRequest(413, reason)
    return LengthDecoder(length)
