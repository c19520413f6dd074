"""The unsent part of the response body of one stream."""

from abc import abstractmethod
from collections import deque

from ..context import Context


class OutgoingData:
    """Base class of a stream: data that waits for the windows of the client."""

    __slots__ = ("_behind", "_context", "_progress", "end_stream", "id", "pieces", "takes_turns",
                 "unsent", "window")  # fmt: skip

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
    _progress: int  # the tick at which data was sent last
    _behind: int  # bytes by which the client is behind the minimum rate of reading

    @abstractmethod
    def on_drained(self) -> None:
        """Continue after everything was sent."""

    def queue(self, data: bytes, end_stream: bool) -> None:
        """Queue data until the windows allow sending it. end_stream: nothing follows."""
        if not self.unsent:
            self.pieces = deque()
            self._progress = self._context.ticks
            self._behind = 0
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
        self._progress = self._context.ticks
        self._behind -= len(piece)
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
        context = self._context
        self._behind = max(self._behind, 0) + context.write_pace.rate
        late = ticks - self._progress > context.write_timeout
        return late or self._behind > context.write_pace.slack
