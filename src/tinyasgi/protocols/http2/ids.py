"""Ids of the streams of one connection: which are new, open, idle or closed (RFC 9113 §5.1.1)."""

from typing import Final

from .frames import ConnectionFault, ErrorCode, StreamFault, protocol_error

#: Number of streams that were reset recently, whose late frames are recognized.
MAX_RESETS: Final = 200
#: Number of ranges of skipped ids that are remembered.
MAX_GAPS: Final = 10


class StreamIds:
    """Ids that the client has used."""

    __slots__ = ("_gaps", "_highest", "_resets", "last")

    def __init__(self) -> None:
        self.last = 0
        """The highest id that was accepted."""
        self._highest = -1  # also of those that were refused after the last GOAWAY
        #: Skipped ids, which are invalid.
        self._gaps: list[range] = []
        #: Streams that were reset recently; True: by the server.
        self._resets: dict[int, bool] = {}

    def begin(self, stream_id: int, is_refused: bool) -> bool:
        """Use the id of a stream that HEADERS begin; return False if the stream has ended.

        is_refused: it begins after the last GOAWAY. Raises ConnectionFault.
        """
        if stream_id != self._highest + 2:
            if not stream_id & 1:
                raise protocol_error(f"HEADERS on stream {stream_id}")
            if stream_id <= self._highest:
                if any(stream_id in gap for gap in self._gaps):
                    raise protocol_error(f"stream {stream_id} after stream {self._highest}")
                return False
            skipped = range(self._highest + 1, stream_id)
            self._gaps = [*self._gaps[1 - MAX_GAPS :], skipped]
        self._highest = stream_id
        if not is_refused:
            self.last = stream_id
        return True

    def check_used(self, stream_id: int, fault: StreamFault | None = None) -> None:
        """Raise ConnectionFault if the stream is idle. fault: error of the frame itself."""
        if stream_id > self._highest or not stream_id & 1:
            if fault is not None:
                raise ConnectionFault(fault.code, fault.reason)
            raise protocol_error(f"frame on the idle stream {stream_id}")

    def was_reset(self, stream_id: int) -> bool:
        """Return whether the server has reset a stream recently."""
        return self._resets.get(stream_id, False)

    def check_late(self, stream_id: int) -> None:
        """Check a frame on a stream that is not open. Raises ConnectionFault or StreamFault.

        The client may have sent it before it has received RST_STREAM (§5.1) or GOAWAY (§6.8).
        """
        self.check_used(stream_id)
        if stream_id > self.last:
            return
        by_server = self._resets.get(stream_id)
        if not by_server:
            fault = ConnectionFault if by_server is None else StreamFault
            raise fault(ErrorCode.STREAM_CLOSED, f"frame on the closed stream {stream_id}")

    def on_reset(self, stream_id: int, by_server: bool) -> None:
        """Remember that a stream was reset."""
        if len(self._resets) >= MAX_RESETS:
            del self._resets[next(iter(self._resets))]
        self._resets[stream_id] = by_server
