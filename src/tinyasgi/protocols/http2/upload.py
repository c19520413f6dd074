"""The request body of one stream: its length, and the window of the client."""

from typing import Final

from ...http.parsers import BadRequest
from ...http.request import CHUNKED, Framing
from ..context import Context
from ..states import BODY
from ..timeouts import LINGER, MAX_LINGER
from .frames import INITIAL_WINDOW, ErrorCode, StreamFault

#: Window for a body that the app reads, in bytes.
READ_WINDOW: Final = 256 * 1024
#: Difference between such a window and the initial one, in bytes.
GROWTH: Final = READ_WINDOW - INITIAL_WINDOW
#: Maximum size of the rest of a body that is read and dropped after the response, in bytes.
MAX_REST: Final = 16 << 20


class Upload:
    """A request body that is arriving. limit: its maximum size in bytes, 0 for no limit."""

    __slots__ = ("_behind", "_context", "_credit", "_drop_since", "_left", "_length", "_limit",
                 "_since", "expects_continue", "growth", "is_awaited", "rest")  # fmt: skip

    def __init__(self, context: Context, framing: Framing, limit: int) -> None:
        self._context = context
        self._length = framing.length
        self._limit = limit
        self._left = limit if framing.length == CHUNKED else framing.length
        self._credit = INITIAL_WINDOW  # bytes that the client may send
        self._since = 0  # the tick at which the app began to wait
        self._behind = 0  # bytes by which the client is behind the minimum rate
        self.growth = 0
        """By how much the window was enlarged, in bytes."""
        self.is_awaited = False
        """The app waits for body."""
        self.expects_continue = framing.expects_continue
        """The client waits for 100 (Continue)."""
        self.rest: int | None = None
        """Bytes that may be dropped after the response; None: the response is incomplete."""
        self._drop_since = 0  # the tick at which the response was complete

    def receive(self, data: bytes, size: int, end_stream: bool) -> None:
        """Count DATA. size: of the payload with its padding. Raises StreamFault or BadRequest."""
        self._credit -= size
        if self._credit < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        self._left -= len(data)
        if self._length != CHUNKED:
            if self._left < 0 or (end_stream and self._left):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "body differs from content-length")
        elif self._left < 0 and self._limit and self.rest is None:
            raise BadRequest(413, f"request body exceeds --limit-body-size ({self._limit})")
        if data:
            self.is_awaited = self.expects_continue = False
            self._behind -= len(data)
        if self.rest is not None:
            self.rest -= len(data)
            self._since = self._context.ticks

    def expect(self) -> None:
        """Begin to wait for body."""
        self.is_awaited = True
        self._since = self._context.ticks

    def replenish(self, waiting: int, spare: int) -> int:
        """Return by how much to enlarge the window, in bytes.

        waiting: bytes that the app has not taken. spare: bytes by which the window may grow.
        """
        size = INITIAL_WINDOW + self.growth
        left = self._credit + waiting
        if left > size // 2:
            return 0
        if not self.growth and spare >= GROWTH:
            self.growth = GROWTH
            size = READ_WINDOW
        self._credit += size - left
        return size - left

    def is_late(self, ticks: int) -> bool:
        """Return whether the body does not arrive in time. Called once a second."""
        timeout, pace = self._context.timeouts[BODY], self._context.body_pace
        self._behind = max(self._behind, 0) + pace.rate
        return ticks - self._since > timeout or self._behind > pace.slack

    def drop(self) -> bool:
        """Drop the rest of the body; return False if it is too large.

        RST_STREAM with NO_ERROR may stop it (RFC 9113 §8.1), but some clients then lose the
        response.
        """
        if self.rest is None:
            is_too_large = self._length != CHUNKED and self._left > MAX_REST
            self.rest = -1 if is_too_large else MAX_REST
            self._since = self._drop_since = self._context.ticks
        return self.rest >= 0

    def drops_for_too_long(self, ticks: int) -> bool:
        """Return whether to stop dropping. Called once a second."""
        if self.rest is None:
            return False
        late = ticks - self._since > LINGER or ticks - self._drop_since > MAX_LINGER
        return late or self._context.stopping
