"""The request body of one stream: its length, and the window of the client."""

from typing import Final

from ...http.parsers import BadRequest
from ...http.request import CHUNKED, Framing
from ..connection import BODY
from ..context import Context
from .frames import INITIAL_WINDOW, ErrorCode, StreamFault

#: Window for a body that the app reads, in bytes.
READ_WINDOW: Final = 256 * 1024
#: Difference between such a window and the initial one, in bytes.
GROWTH: Final = READ_WINDOW - INITIAL_WINDOW


class Upload:
    """A request body that is arriving. limit: its maximum size in bytes, 0 for no limit."""

    __slots__ = ("_behind", "_context", "_credit", "_left", "_length", "_limit", "_since",
                 "expects_continue", "growth", "is_awaited")  # fmt: skip

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

    def receive(self, data: bytes, size: int, end_stream: bool) -> None:
        """Count DATA. size: of the payload with its padding. Raises StreamFault or BadRequest."""
        self._credit -= size
        if self._credit < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        self._left -= len(data)
        if self._length != CHUNKED:
            if self._left < 0 or (end_stream and self._left):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "body differs from content-length")
        elif self._left < 0 and self._limit:
            raise BadRequest(413, f"request body exceeds --limit-body-size ({self._limit})")
        if data:
            self.is_awaited = self.expects_continue = False
            self._behind -= len(data)

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
