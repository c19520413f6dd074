"""Sends the response bodies of one connection, in turns and within the windows of the client."""

from collections import deque
from typing import TYPE_CHECKING, Final

from . import frames
from .frames import DATA, END_STREAM, INITIAL_WINDOW, MAX_PAYLOAD, MAX_WINDOW, header
from .outgoing import OutgoingData, Progress

if TYPE_CHECKING:
    from .multiplexer import Multiplexer

#: Bytes to pass to the transport in one write.
BATCH: Final = 64 * 1024
#: Bytes to send in one iteration of the event loop.
QUOTA: Final = 256 * 1024
TOO_LARGE: Final = "window too large"


class Sender:
    """Sends DATA frames of the streams that have unsent data: one of each stream in turn."""

    __slots__ = ("_connection", "_progress", "_scheduled", "_turns", "initial_window",
                 "window")  # fmt: skip

    def __init__(self, connection: "Multiplexer") -> None:
        self._connection = connection
        self._turns: deque[OutgoingData] = deque()
        self._scheduled = False
        self.initial_window = INITIAL_WINDOW
        """Window of new streams, in bytes."""
        self.window = INITIAL_WINDOW
        """Bytes that the client allows on the connection (RFC 9113 §6.9)."""
        self._progress = Progress(connection.context)

    def resize(self, size: int) -> None:
        """Change the initial window, and the windows of all streams (RFC 9113 §6.9.2).

        Raises ConnectionFault.
        """
        change = size - self.initial_window
        self.initial_window = size
        for stream in [*self._connection.streams.values()]:
            stream.window += change
            if stream.window > MAX_WINDOW:
                raise frames.ConnectionFault(frames.ErrorCode.FLOW_CONTROL_ERROR, TOO_LARGE)
            self.resume(stream)

    def enlarge(self, stream_id: int, increment: int) -> None:
        """Enlarge the window of a stream or, with 0, of the connection.

        Raises ConnectionFault or StreamFault.
        """
        fault = frames.StreamFault if stream_id else frames.ConnectionFault
        stream = self._connection.find(stream_id) if stream_id else None
        if stream_id and stream is None:
            return
        if not increment:
            raise fault(frames.ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 bytes")
        target = stream or self
        target.window += increment
        if target.window > MAX_WINDOW:
            raise fault(frames.ErrorCode.FLOW_CONTROL_ERROR, TOO_LARGE)
        if stream is None:
            self.pump()
        else:
            self.resume(stream)

    def is_stalled(self, ticks: int) -> bool:
        """Return whether the client has kept the window closed for too long.

        Called once a second.
        """
        self._turns = deque([stream for stream in self._turns if stream.unsent])  # not reset ones
        if self.window > 0 or not self._turns:
            self._progress.begin()
            return False
        return self._progress.is_too_slow(ticks)

    def _take(self, stream: OutgoingData, size: int) -> bool:
        """Subtract data from the windows; return False if it has to wait."""
        if size and (size > stream.window or size > self.window or self._connection.paused):
            return False
        stream.window -= size
        self.window -= size
        return True

    def write_head(self, stream: OutgoingData, block: bytes, body: bytes, end_stream: bool) -> None:
        """Write a header block, and the first piece of the body."""
        connection = self._connection
        size = len(body)
        data = b""
        if 0 < size <= MAX_PAYLOAD and self._take(stream, size):
            data = header(size, DATA, END_STREAM if end_stream else 0, stream.id) + body
        more = not end_stream or len(connection.streams) > 1
        connection.send_headers(stream.id, block, end_stream and not size, data, more)
        if size and not data:
            self.write(stream, body, end_stream)

    def write(self, stream: OutgoingData, data: bytes, end_stream: bool) -> None:
        """Send data of a stream now, as far as the windows allow, and the rest later."""
        size = len(data)
        longest = MAX_PAYLOAD if self._turns else BATCH
        if stream.unsent or size > longest or not self._take(stream, size):
            stream.queue(data, end_stream)
            self.resume(stream)
        elif size > MAX_PAYLOAD:
            self._connection.send_frames(frames.data(stream.id, memoryview(data), end_stream))
        else:
            flags = END_STREAM if end_stream else 0
            self._connection.send(header(size, DATA, flags, stream.id) + data)

    def resume(self, stream: OutgoingData) -> None:
        """Send data of a stream whose window may have grown."""
        if stream.unsent and not stream.takes_turns and stream.window > 0:
            if not self._turns:  # the wait for the window of the connection may begin
                self._progress.begin()
            stream.takes_turns = True
            self._turns.append(stream)
        self.pump()

    def pump(self) -> None:
        """Send as much as the windows and the write buffer allow, and schedule the rest."""
        connection = self._connection
        left = QUOTA
        while self._turns and self.window > 0 and not connection.paused and not self._scheduled:
            if left <= 0:
                self._scheduled = True
                connection.call_soon(self._continue)
                return
            left -= self._send_batch()

    def _continue(self) -> None:
        self._scheduled = False
        self.pump()

    def _send_batch(self) -> int:
        """Send up to BATCH bytes in one write; return how many."""
        size = 0
        parts: list[bytes | memoryview] = []
        drained = []
        while self._turns and self.window > 0 and size < BATCH:
            stream = self._turns.popleft()
            if not stream.unsent or stream.window <= 0:  # reset meanwhile, or blocked
                stream.takes_turns = False
                continue
            longest = MAX_PAYLOAD if self._turns else BATCH - size
            piece = stream.take(min(self.window, stream.window, longest))
            self.window -= len(piece)
            size += len(piece)
            last = stream.end_stream and not stream.unsent
            parts += frames.data(stream.id, piece, last)
            if stream.unsent:
                self._turns.append(stream)
            else:
                stream.takes_turns = False
                drained.append(stream)
        self._progress.sent(size)
        if parts:
            self._connection.send_frames(parts)
        for stream in drained:
            stream.on_drained()
        return size
