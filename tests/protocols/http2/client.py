"""An HTTP/2 client that sends any frames, on the virtual network. hpack and hyperframe encode."""

from collections.abc import Iterable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.simulation import Simulation
from tinyasgi.protocols.http2.frames import PREFACE, ErrorCode
from tinyasgi.protocols.http2.multiplexer import GOAWAY_PING

__all__ = ["GET", "POST", "Client", "raw"]

#: Flags that RFC 9113 §6 defines for the frames that a server sends, apart from padding.
FLAGS = {0: 0x1, 1: 0x5, 3: 0, 4: 0x1, 6: 0x1, 7: 0, 8: 0, 9: 0x4}
ACK = 0x1
SETTINGS, PING, CONTINUATION = 4, 6, 9

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "here"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Encode a frame without any check."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    return head + payload


class Client:
    """One connection to a simulated server."""

    def __init__(self, simulation: Simulation, greet: bool = True, **settings: int) -> None:
        """settings: as attributes of hyperframe's SettingsFrame, such as INITIAL_WINDOW_SIZE."""
        self.simulation = simulation
        self.peer = simulation.connect()
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Any] = []
        """All frames that have arrived."""
        self._read = 0
        self._block = b""
        self._begun: Any = None  # the HEADERS frame whose header block continues
        if greet:
            values = {getattr(SettingsFrame, name): value for name, value in settings.items()}
            self.send(PREFACE, SettingsFrame(0, settings=values))

    def send(self, *parts: bytes | Frame) -> "Client":
        """Send frames or bytes, and let the server answer."""
        data = [part if isinstance(part, bytes) else part.serialize() for part in parts]
        self.peer.send(b"".join(data))
        return self.settle()

    def settle(self) -> "Client":
        """Let the server act, and read its frames."""
        self.simulation.loop.settle()
        received = self.peer.received
        while len(received) - self._read >= 9:
            head = memoryview(bytes(received[self._read : self._read + 9]))
            frame, length = Frame.parse_frame_header(head)
            body = bytes(received[self._read + 9 : self._read + 9 + length])
            if len(body) < length:
                break
            frame.parse_body(memoryview(body))
            self._read += 9 + length
            self._check(head[3], head[4], frame)
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                self._continue(frame)
            self.frames.append(frame)
        return self

    def _check(self, kind: int, flags: int, frame: Any) -> None:
        """Check rules that each frame of a server obeys."""
        assert not flags & ~FLAGS[kind], f"undefined flags of {frame}"
        assert (kind == CONTINUATION) == (self._begun is not None)
        if not self.frames:
            assert kind == SETTINGS and not flags
        elif kind == SETTINGS:
            assert flags == ACK and not frame.settings
        elif kind == PING:  # its own PING follows a GOAWAY
            assert (flags == ACK) == (frame.opaque_data != GOAWAY_PING)

    def _continue(self, frame: Any) -> None:
        """Decode the header block that ends with a frame, and give the first frame its fields."""
        if self._begun is None:
            self._begun, self._block = frame, b""
        assert frame.stream_id == self._begun.stream_id
        self._block += frame.data
        if "END_HEADERS" in frame.flags:
            begun, self._begun = self._begun, None
            begun.fields = self.decoder.decode(self._block)

    def headers(
        self, stream_id: int, fields: Iterable[tuple[str, str]], *flags: str
    ) -> HeadersFrame:
        """Return a HEADERS frame with the flag END_HEADERS and others."""
        frame = HeadersFrame(stream_id, self.encoder.encode(list(fields), huffman=True))
        for flag in ("END_HEADERS", *flags):
            frame.flags.add(flag)
        return frame

    def get(self, stream_id: int, *more: tuple[str, str], path: str = "/") -> "Client":
        """Send a GET request."""
        fields = [*GET[:3], (":path", path), *more]
        return self.send(self.headers(stream_id, fields, "END_STREAM"))

    def post(self, stream_id: int, *more: tuple[str, str], path: str = "/") -> "Client":
        """Send the headers of a POST request."""
        return self.send(self.headers(stream_id, [*POST[:3], (":path", path), *more]))

    def data(self, stream_id: int, data: bytes, *flags: str) -> "Client":
        """Send a DATA frame."""
        frame = DataFrame(stream_id, data)
        for flag in flags:
            frame.flags.add(flag)
        return self.send(frame)

    def of(self, kind: type[Frame], stream_id: int | None = None) -> list[Any]:
        """Return the frames of a kind, and of a stream."""
        return [
            frame
            for frame in self.frames
            if isinstance(frame, kind) and stream_id in (None, frame.stream_id)
        ]

    def fields(self, stream_id: int) -> list[dict[str, str]]:
        """Return the header sections of a stream."""
        return [dict(frame.fields) for frame in self.of(HeadersFrame, stream_id)]

    def status(self, stream_id: int) -> int | None:
        """Return the status of a response, or None."""
        found = self.fields(stream_id)
        return int(found[-1][":status"]) if found else None

    def body(self, stream_id: int) -> bytes:
        """Return the body of a response as far as it has arrived."""
        return b"".join(frame.data for frame in self.of(DataFrame, stream_id))

    def ended(self, stream_id: int) -> bool:
        """Return whether a response is complete."""
        frames = [*self.of(HeadersFrame, stream_id), *self.of(DataFrame, stream_id)]
        return any("END_STREAM" in frame.flags for frame in frames)

    def reset(self, stream_id: int) -> ErrorCode | None:
        """Return the code with which the server has reset a stream, or None."""
        found = self.of(RstStreamFrame, stream_id)
        return ErrorCode(found[0].error_code) if found else None

    @property
    def goaway(self) -> ErrorCode | None:
        """The code of the last GOAWAY, or None."""
        found = self.of(GoAwayFrame)
        return ErrorCode(found[-1].error_code) if found else None

    @property
    def closed(self) -> bool:
        """The server has closed its side of the connection."""
        return self.settle().peer.at_end

    def ping(self) -> bool:
        """Return whether the server answers a PING."""
        before = len(self.of(PingFrame))
        self.send(PingFrame(0, b"12345678"))
        return len(self.of(PingFrame)) > before

    def enlarge(self, stream_id: int, increment: int) -> "Client":
        """Send WINDOW_UPDATE."""
        return self.send(WindowUpdateFrame(stream_id, increment))
