"""Requests that are refused before they become exchanges, for access log and metrics."""

import re
import time
from contextlib import suppress

from ..http.client import ClientInfo
from ..http.memo import Memo
from ..http.parsers import TOKEN, BadRequest, Parser
from ..http.request import RequestLine
from ..typing import Headers
from .exchange import Exchange
from .states import REFUSED

#: Maximum bytes of a malformed request line in the access log.
SHOWN = 200

_LINE_END = re.compile(rb"[\r\n]")


class Refusal(Exchange):
    """A request that the server has answered without the app."""

    __slots__ = ()

    def __init__(
        self, client: ClientInfo, line: RequestLine, headers: Headers, status: int, sent: int
    ) -> None:
        """line, headers: as far as they are known. sent: bytes of the response body."""
        self.client = client
        self.line = line
        self.scope = line.scope | {"headers": headers}
        self.status = status
        self.sent = sent
        self.phase = REFUSED
        self.persistent = False
        self.started = time.perf_counter()

    def is_health_check(self, path: str | None) -> bool:
        return False


def unknown_line(method: str, version: str, text: bytes) -> RequestLine:
    """Return the line of a request whose path is unknown. text: bytes for the access log."""
    scope = {"path": "", "raw_path": b"", "query_string": b"", "root_path": ""}
    return RequestLine(method, version, None, scope, text[:SHOWN].decode("latin-1"))


def read(
    head: bytes, lines: Memo[bytes, RequestLine], parser: Parser
) -> tuple[RequestLine, Headers]:
    """Return request line and headers of a head that is malformed, incomplete or too large.

    A malformed request line has only a method and its text, which is not escaped.
    """
    text = _LINE_END.split(head, 1)[0]
    headers: Headers = []
    try:
        line = lines[text]
    except BadRequest:
        token = text.partition(b" ")[0]
        method = token.decode() if TOKEN.fullmatch(token) else ""
        line = unknown_line(method, "", text)
    end = head.find(b"\r\n\r\n") + 4
    if end >= 4:
        with suppress(BadRequest):
            headers = parser.parse_headers(head[:end], len(text) + 2)
    return line, headers
