"""Limits for clients that cause work without requests, or cancel their requests."""

from .frames import ConnectionFault, ErrorCode

#: Streams that a client may reset or make fail in one second. Each complete response allows one
#: more (CVE-2023-44487, CVE-2025-8671).
MAX_FAULTS = 200
#: Maximum control frames in one second: SETTINGS, PING, PRIORITY, WINDOW_UPDATE,
#: empty DATA and unknown ones (CVE-2019-9512, CVE-2019-9515, CVE-2019-9518 and others).
MAX_CONTROL_FRAMES = 1000
#: Frames with which a client may answer a DATA frame of the server.
FRAMES_PER_DATA = 4
#: Maximum faults of a connection to log in one second. A flood would hide the final error.
MAX_FAULT_LINES = 5
#: Maximum number of CONTINUATION frames in a header block (CVE-2024-27316).
MAX_CONTINUATIONS = 32
#: Maximum number of settings in a frame (CVE-2020-11080).
MAX_SETTINGS = 32


class Budget:
    """Allowance of a client until the next tick. The methods raise ConnectionFault."""

    __slots__ = ("_control", "_faults")

    def __init__(self) -> None:
        self._faults = MAX_FAULTS
        self._control = MAX_CONTROL_FRAMES

    def refill(self) -> None:
        """Begin a new second."""
        self._faults = max(self._faults, MAX_FAULTS)
        self._control = max(self._control, MAX_CONTROL_FRAMES)

    def on_request(self) -> None:
        """Allow control frames for another request."""
        self._control = max(self._control, MAX_CONTROL_FRAMES)

    def on_response(self) -> None:
        """Allow a fault for a complete response."""
        if self._faults < MAX_FAULTS:
            self._faults += 1

    def on_data_sent(self, frames: int) -> None:
        """Allow control frames for DATA that was sent."""
        self._control += frames * FRAMES_PER_DATA

    def on_fault(self) -> None:
        """Count a stream that was reset, refused or malformed."""
        self._faults -= 1
        if self._faults < 0:
            text = f"more than {MAX_FAULTS} streams reset or failed in a second"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)

    @property
    def logs_faults(self) -> bool:
        """Whether the last fault should be logged."""
        return self._faults >= MAX_FAULTS - MAX_FAULT_LINES

    def on_control_frame(self) -> None:
        """Count a frame that is part of no request."""
        self._control -= 1
        if self._control < 0:
            text = f"more than {MAX_CONTROL_FRAMES} control frames in a second without a request"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, text)
