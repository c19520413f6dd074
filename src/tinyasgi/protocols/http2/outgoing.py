"""The unsent part of the response body of one stream."""

from abc import abstractmethod
from collections import deque

from ..context import Context


class Progress:
    """How fast a client lets the server send data that waits for a window, since the wait began."""

    __slots__ = ("_behind", "_context", "_since")

    def __init__(self, context: Context) -> None:
        self._context = context
        self.begin()

    def begin(self) -> None:
        """Begin a wait."""
        self._since = self._context.ticks  # when the wait began, or data was sent last
        self._behind = 0  # bytes by which the client is behind the minimum rate of reading

    def sent(self, size: int) -> None:
        """Count bytes that were sent."""
        self._since = self._context.ticks
        self._behind -= size

    def is_too_slow(self, ticks: int) -> bool:
        """Return whether the client exceeds `--timeout-write` or misses `--min-rate-write`.

        Called once a second during the wait.
        """
        context = self._context
        self._behind = max(self._behind, 0) + context.write_pace.rate
        late = ticks - self._since > context.write_timeout
        return late or self._behind > context.write_pace.slack


class OutgoingData:
    """Base class of a stream: data that waits for the windows of the client."""

    __slots__ = ("_context", "_progress", "end_stream", "id", "pieces", "takes_turns", "unsent",
                 "window")  # fmt: skip

    _context: Context
    id: int
    window: int
    """Bytes that the client allows on the stream."""
    unsent: int
    """Size of the pieces in bytes."""
    end_stream: bool
    """Nothing follows the pieces."""
    takes_turns: bool
    """The sender has it in its queue."""

    # Set when data has to wait.
    pieces: deque[memoryview]
    _progress: Progress

    @abstractmethod
    def on_drained(self) -> None:
        """Continue after everything was sent."""

    def queue(self, data: bytes, end_stream: bool) -> None:
        """Queue data until the windows allow sending it. end_stream: nothing follows."""
        if not self.unsent:
            self.pieces = deque()
            self._progress = Progress(self._context)
        self.end_stream = end_stream
        if data:
            self.pieces.append(memoryview(data))
            self.unsent += len(data)

    def take(self, size: int) -> memoryview:
        """Remove and return at most `size` bytes of what is unsent."""
        piece = self.pieces[0]
        if len(piece) > size:
            self.pieces[0] = piece[size:]
            piece = piece[:size]
        else:
            self.pieces.popleft()
        self.window -= len(piece)
        self.unsent -= len(piece)
        self._progress.sent(len(piece))
        return piece

    def discard(self) -> None:
        """Drop what is unsent."""
        if self.unsent:
            self.pieces.clear()
            self.unsent = 0

    def is_stalled(self, ticks: int) -> bool:
        """Return whether the client has kept the window closed for too long.

        Called once a second.
        """
        if not self.unsent or self.window > 0:  # if it is open, the whole connection waits
            return False
        return self._progress.is_too_slow(ticks)
