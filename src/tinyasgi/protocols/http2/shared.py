"""State that all HTTP/2 connections of a context share."""

from functools import partial
from typing import TYPE_CHECKING

from ...http import request
from ...http.memo import Memo
from ...http.request import RequestLine
from . import frames
from .hpack import FIELD_OVERHEAD
from .response import Heads, response_heads

if TYPE_CHECKING:
    from ..context import Context

#: Maximum number of streams of a client, including those it has reset whose apps still run.
MAX_STREAMS = 100
#: Window of a connection for request bodies, in bytes.
CONNECTION_WINDOW = 1 << 20


def _parse_line(text: bytes, root_path: str) -> RequestLine:
    """Parse a method and a path, separated by a space. Raises BadRequest."""
    method, _, path = text.partition(b" ")
    name = method.decode("ascii")
    shown = text.decode("latin-1") + " HTTP/2"
    return request.make_request_line(name, path, "2", shown, root_path)


def _request_lines(root_path: str) -> Memo[bytes, RequestLine]:
    return Memo(partial(_parse_line, root_path=root_path), 256, longest=256)


class Shared:
    """Caches of a context, and the first frames of each connection."""

    def __init__(self, context: "Context") -> None:
        config = context.config
        self._context = context
        self._defaults = context.defaults
        self._heads = response_heads(context.defaults)
        #: Maximum size of the headers of a request, with the overhead of each field.
        self.max_size = config.limit_head_size + FIELD_OVERHEAD * config.limit_head_fields
        self._lines = _request_lines(config.root_path)
        self._lines_below = Memo(_request_lines, 16, longest=256)
        settings = {
            frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            frames.MAX_HEADER_LIST_SIZE: self.max_size,
        }
        if config.ws != "none":
            settings[frames.ENABLE_CONNECT_PROTOCOL] = 1
        #: The first frames of the server.
        self.greeting = frames.settings(settings) + frames.window_update(
            0, CONNECTION_WINDOW - frames.INITIAL_WINDOW
        )

    def lines(self, root_path: str | None) -> Memo[bytes, RequestLine]:
        """Return the request lines below a root path; None: that of the options.

        Keys are method and path, separated by a space.
        """
        return self._lines if root_path is None else self._lines_below[root_path]

    @property
    def heads(self) -> Heads:
        """The cache of response heads. The default headers change once a second."""
        if self._context.defaults is not self._defaults:
            self._defaults = self._context.defaults
            self._heads = response_heads(self._defaults)
        return self._heads
