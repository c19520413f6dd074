"""Requests that are refused before they become exchanges, for access log and metrics."""

import re
import time
from contextlib import suppress

from ..http.client import ClientInfo
from ..http.memo import Memo
from ..http.parsers import TOKEN, BadRequest, Parser
from ..http.request import RequestLine
from ..typing import Headers
from .exchange import REFUSED, Exchange

#: Maximum bytes of a malformed request line in the access log.
SHOWN = 200

_LINE_END = re.compile(rb"[\r\n]")


class Refusal(Exchange):
    """A request that the server has answered without the app."""

    __slots__ = ()

    def __init__(
        self, client: ClientInfo, line: RequestLine, headers: Headers, status: int, answer: bytes
    ) -> None:
        """line, headers: as far as they are known. answer: the complete response."""
        self.client = client
        self.line = line
        self.scope = line.scope | {"headers": headers}
        self.status = status
        self.sent = len(answer) - answer.index(b"\r\n\r\n") - 4
        self.phase = REFUSED
        self.persistent = False
        self.started = time.perf_counter()

    def is_health_check(self, path: str | None) -> bool:
        return False


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
        scope = {"path": "", "raw_path": b"", "query_string": b"", "root_path": ""}
        line = RequestLine(method, "", None, scope, text[:SHOWN].decode("latin-1"))
    end = head.find(b"\r\n\r\n") + 4
    if end >= 4:
        with suppress(BadRequest):
            headers = parser.parse_headers(head[:end], len(text) + 2)
    return line, headers
