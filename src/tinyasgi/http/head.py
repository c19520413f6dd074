"""The beginning of a request head, checked as far as it has arrived."""

from collections.abc import Mapping

from . import request
from .parsers import BadRequest
from .partial import Partial
from .request import RequestLine

__all__ = ["Head"]


class Head(Partial):
    """A head of which the rest is to come.

    lines: parses request lines. limit: of the head, in bytes.
    """

    __slots__ = ("_limit", "_line_checked", "_lines")

    def __init__(self, lines: Mapping[bytes, RequestLine], limit: int) -> None:
        super().__init__()
        self._lines = lines
        self._limit = limit
        self._line_checked = False

    def add_read(self, data: bytes) -> bytes | None:
        """Append a read; return all there is, without empty lines, once the head is complete.

        Returns None while it is not. Raises BadRequest for what can't become a head.
        """
        self.add(data)
        head = self.data
        if head.startswith(b"\r\n"):
            return bytes(request.EMPTY_LINES.sub(b"", head, 1))
        request.check_start(head)
        if self.find(b"\r\n\r\n") >= 0:
            return bytes(head)
        request.check_size(head, self._limit)
        if not self._line_checked and (end := self.find(b"\r\n")) >= 0:
            self._lines[bytes(head[:end])]  # raises BadRequest
            self._line_checked = True
        if self.has_bare():
            raise BadRequest(400, f"a bare CR or LF in a head: {bytes(head[:80])!r}")
        return None
