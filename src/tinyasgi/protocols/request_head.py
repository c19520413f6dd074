"""Request heads of one connection."""

from typing import TypeAlias

from ..http import request
from ..http.client import ClientInfo
from ..http.parsers import BadRequest
from ..http.request import Framing, RequestLine
from ..typing import Headers
from .context import Context
from .stream import EARLY_HINT, TRAILERS_MESSAGE

#: Maximum size of a header section that is remembered, in bytes.
MAX_REMEMBERED = 2048
NOTHING: tuple[bytes | None, Headers, Framing] = (None, [], Framing(0))
#: Initial memory of a parser, before the first head.
UNUSED: tuple[bytes | None, Headers, Framing] = (None, [], Framing(0))

#: A parsed request head, and the data after it. A NamedTuple would make a GET 2 % slower.
Head: TypeAlias = tuple[RequestLine, Headers, Framing, bytes]


class HeadParser:
    """Parser of the request heads of one connection, which remembers the last header section.

    A client repeats its headers. If a header section has the same bytes as the last one, then its
    headers, their meaning, the client, and the root path are the same, too.
    """

    __slots__ = ("_context", "_framing", "_headers", "_limit", "_lines", "_peer", "_section",
                 "client")  # fmt: skip

    def __init__(self, context: Context, peer: ClientInfo) -> None:
        self._context = context
        self._peer = peer
        self._limit = context.config.limit_head_size
        #: Source of the last request: the peer, or the client that it names.
        self.client = peer
        self._lines = context.request_lines
        self._section, self._headers, self._framing = UNUSED

    @property
    def is_unused(self) -> bool:
        """No head was parsed yet."""
        return self._headers is UNUSED[1]

    def parse(self, data: bytes) -> Head | None:
        """Parse the head at the beginning of `data`. Raises BadRequest.

        Return None if the head is incomplete, or if there is an empty line before it. The list of
        headers is a copy, because the app may change it.
        """
        start, _, section = data.partition(b"\r\n")
        head, rest = data, b""
        if section != self._section:
            before, end, rest = data.partition(b"\r\n\r\n")
            if not end or not start:
                return None
            head = before + end
            section = head[len(start) + 2 :]
        if len(head) > self._limit:
            request.check_size(head, self._limit)
        line = self._lines[start]
        if section == self._section and line.is_ordinary:
            return line, self._headers.copy(), self._framing, rest
        context = self._context
        headers = context.parser.parse_headers(head, len(start) + 2)
        if len(headers) > context.config.limit_head_fields:
            raise BadRequest(431, f"more than {context.config.limit_head_fields} headers")
        framing = request.parse_framing(line.version, headers)
        if line.host is not None:
            headers = request.replace_host(headers, line.host)
        self.client = context.client_info(headers, self._peer)
        if line.version == "1.0":
            self.client = self.client.without_extensions((EARLY_HINT, TRAILERS_MESSAGE))
        if self.client.host is not None:
            headers = request.replace_host(headers, self.client.host)
        root = self.client.root_path
        lines = context.request_lines if root is None else context.lines_below[root]
        if lines is not self._lines:
            self._lines, line = lines, lines[start]
        keep = len(section) <= MAX_REMEMBERED and line.is_ordinary
        remembered = (section, headers, framing) if keep else NOTHING
        self._section, self._headers, self._framing = remembered
        return line, headers.copy(), framing, rest
