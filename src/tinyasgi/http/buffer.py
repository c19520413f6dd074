"""Buffers for incomplete request heads, chunk size lines and trailer sections."""

import re

from . import request
from .memo import Memo
from .parsers import BadRequest
from .request import RequestLine

_BARE_CR_OR_LF = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")


class ReceiveBuffer:
    """Received bytes that are searched for a delimiter of at most four bytes.

    Each byte is searched once, regardless of the number of reads. So the cost of a short read does
    not depend on the number of bytes in the buffer.
    """

    __slots__ = ("_searched", "data")

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self._searched = 0  # no delimiter begins before this offset

    def append(self, data: bytes) -> None:
        """Append the bytes of one read."""
        self._searched = max(len(self.data) - 3, 0)
        self.data += data

    def find(self, delimiter: bytes, end: int | None = None) -> int:
        """Return the offset of a delimiter that the last read has completed, or -1.

        end: offset before which the delimiter must end.
        """
        return self.data.find(delimiter, self._searched, end)

    def has_bare_cr_or_lf(self) -> bool:
        """Return whether the last read contains a CR without LF, or an LF without CR."""
        return _BARE_CR_OR_LF.search(self.data, self._searched) is not None


class HeadBuffer(ReceiveBuffer):
    """An incomplete request head, validated while it arrives.

    lines: parses request lines. limit: maximum size of a head in bytes.
    """

    __slots__ = ("_limit", "_line_parsed", "_lines")

    def __init__(self, lines: Memo[bytes, RequestLine], limit: int) -> None:
        super().__init__()
        self._lines = lines
        self._limit = limit
        self._line_parsed = False

    def receive(self, data: bytes) -> bytes | None:
        """Append the bytes of one read; return all bytes once the head is complete.

        The result has no empty lines at the beginning and includes the bytes after the head. Return
        None while the head is incomplete. Raises BadRequest if it can't become valid.
        """
        self.append(data)
        head = self.data
        if head.startswith(b"\r\n"):
            return bytes(request.EMPTY_LINES.sub(b"", head, 1))
        request.check_start(head)
        if self.find(b"\r\n\r\n") >= 0:
            return bytes(head)
        request.check_size(head, self._limit)
        if not self._line_parsed and (end := self.find(b"\r\n")) >= 0:
            self._lines.check(bytes(head[:end]))
            self._line_parsed = True
        if self.has_bare_cr_or_lf():
            raise BadRequest(400, f"bare CR or LF in the request head: {bytes(head[:80])!r}")
        return None
