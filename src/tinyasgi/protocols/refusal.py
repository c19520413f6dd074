"""Requests that are refused before they become exchanges, as access log and metrics see them."""

import re
import time
from collections.abc import Mapping
from contextlib import suppress

from ..http.client import ClientInfo
from ..http.parsers import TOKEN, BadRequest, Parser
from ..http.request import RequestLine
from ..typing import Headers
from .exchange import REFUSED, Exchange

__all__ = ["Refusal", "read"]

#: Bytes that are shown of a malformed request line.
SHOWN = 200

_LINE_END = re.compile(rb"[\r\n]")


class Refusal(Exchange):
    """A request that the server has answered by itself. The app never sees it."""

    __slots__ = ()

    def __init__(
        self, client: ClientInfo, line: RequestLine, headers: Headers, status: int, answer: bytes
    ) -> None:
        """line, headers: as far as they are known. answer: the whole response."""
        self.client = client
        self.line = line
        self.scope = line.scope | {"headers": headers}
        self.status = status
        self.sent = len(answer) - answer.index(b"\r\n\r\n") - 4
        self.phase = REFUSED
        self.persistent = False
        self.started = time.perf_counter()


def read(
    head: bytes, lines: Mapping[bytes, RequestLine], parser: Parser
) -> tuple[RequestLine, Headers]:
    """Read what there is of a head that is malformed, incomplete or too large.

    lines: parses request lines. Of a malformed one, only the text and the method are known, and
    the text is raw.
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
