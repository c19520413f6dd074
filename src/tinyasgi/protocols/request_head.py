"""Request heads of one connection."""

from ..http import request
from ..http.client import ClientInfo
from ..http.parsers import BadRequest
from ..http.request import Framing, RequestLine
from ..typing import Headers
from .context import Context

#: Maximum size of a head that is remembered, in bytes.
MAX_REMEMBERED = 2048
NOTHING: tuple[bytes, Headers, Framing] = (b"", [], Framing(0))


class HeadParser:
    """Parser of the request heads of one connection, which remembers the last head.

    A client repeats its headers. If a head has the same bytes as the last one, from the version on,
    then its headers, their meaning, the client, and the root path are the same, too.
    """

    __slots__ = ("_context", "_framing", "_headers", "_lines", "_peer", "_tail", "client")

    _headers: Headers
    _framing: Framing

    def __init__(self, context: Context, peer: ClientInfo) -> None:
        self._context = context
        self._peer = peer
        #: Source of the last request: the peer, or the client that it names.
        self.client = peer
        self._lines = context.request_lines
        self._tail = b""

    def parse(self, data: bytes, end: int) -> tuple[RequestLine, Headers, Framing]:
        """Parse the head `data[:end]`. Raise BadRequest.

        The list of headers is a copy, because the app may change it.
        """
        context = self._context
        if end > context.config.limit_head_size:
            request.check_size(data[:end], context.config.limit_head_size)
        start = data.find(b"\r\n") + 2
        line = self._lines[data[: start - 2]]
        tail = data[start - 5 : end]
        if tail == self._tail and line.host is None:
            return line, self._headers.copy(), self._framing
        headers = context.parser.parse_headers(data[:end], start)
        if len(headers) > context.config.limit_head_fields:
            raise BadRequest(431, f"more than {context.config.limit_head_fields} headers")
        framing = request.parse_framing(line.version, headers)
        if line.host is not None:
            headers = request.replace_host(headers, line.host)
        self.client = context.client_info(headers, self._peer)
        if self.client.host is not None:
            headers = request.replace_host(headers, self.client.host)
        root = self.client.root_path
        lines = context.request_lines if root is None else context.lines_below[root]
        if lines is not self._lines:
            self._lines, line = lines, lines[data[: start - 2]]
        keep = len(tail) <= MAX_REMEMBERED and line.host is None
        self._tail, self._headers, self._framing = (tail, headers, framing) if keep else NOTHING
        return line, headers.copy(), framing
