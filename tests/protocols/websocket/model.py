"""Apps and clients of the WebSocket state machine (`test_machine`)."""

import asyncio
import math
import zlib
from collections import deque
from typing import Any

from tests.support.network import Peer
from tests.support.responses import read_responses

from .helpers import handshake, masked

__all__ = ["FAULTS", "MAX_SIZE", "Client", "Talk", "content"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN, COMPRESSED = 0x80, 0x40

#: The largest message that the server accepts.
MAX_SIZE = 50_000
#: Frames that break the protocol, and the code with which the server closes.
FAULTS = {
    "unknown opcode": (masked(0x83), 1002),
    "reserved bit": (masked(0xA1), 1002),
    "continuation of nothing": (masked(0x80), 1002),
    "long control frame": (masked(0x89, bytes(126)), 1002),
    "not UTF-8": (masked(0x81, b"\xff"), 1007),
    "not masked": (b"\x81\x00", 1002),
    "too large": (masked(0x82, length=b"\xff" + (MAX_SIZE + 1 << 20).to_bytes(8, "big")), 1009),
    "code": (masked(0x88, b"\x03\xed"), 1002),
}


def content(number: int, index: int, size: int) -> bytes:
    """A message that shows its connection and its place."""
    unit = f"{number}.{index};".encode()
    return (unit * (size // len(unit) + 1))[:size]


def _deflate(message: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """Read a server's frames: first bytes and payloads. The last one may be incomplete."""
    found = []
    while len(data) >= 2:
        length, start = data[1], 2
        assert length < 128, "a server masks nothing"
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            break
        found.append((data[0], data[start : start + length]))
        data = data[start + length :]
    return found


class Talk:
    """The app's part of a WebSocket. A test tells it what to do next."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        #: `receive`, `send` or `command` while the app waits for that.
        self.doing = ""
        self.commands: deque[Any] = deque()
        self.wake = asyncio.Event()
        self.received: list[bytes] = []
        self.sent: list[bytes] = []
        self.code = 0
        """Of `websocket.disconnect`."""
        self.has_accepted = self.has_closed = False
        self.error: BaseException | None = None
        self.over = False

    def tell(self, command: Any) -> None:
        self.commands.append(command)
        self.wake.set()

    async def __call__(self, receive: Any, send: Any) -> None:
        try:
            assert await receive() == {"type": "websocket.connect"}
            while True:
                self.doing = "command"
                while not self.commands:
                    self.wake.clear()
                    await self.wake.wait()
                command = self.commands.popleft()
                if command == "return":
                    return
                await self._obey(command, receive, send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.doing, self.over = "", True

    async def _obey(self, command: Any, receive: Any, send: Any) -> None:
        if command == "raise":
            raise ValueError("planned")
        if command == "receive":
            await self._receive(receive)
        elif command == "drain":
            while not self.code:
                await self._receive(receive)
        elif command == "accept" and not (self.has_accepted or self.has_closed):
            self.has_accepted = True
            await send({"type": "websocket.accept"})
        elif command == "close" and not self.has_closed:
            self.has_closed = True
            await send({"type": "websocket.close", "code": 4000, "reason": "planned"})
        elif isinstance(command, tuple) and self.has_accepted and not self.has_closed:
            kind, size = command
            message = content(self.client.number, len(self.sent), size)
            self.doing = "send"
            self.sent.append(message)
            body = {"text": message.decode()} if kind == "text" else {"bytes": message}
            await send({"type": "websocket.send", **body})

    async def _receive(self, receive: Any) -> None:
        self.doing = "receive"
        message = await receive()
        if message["type"] == "websocket.disconnect":
            assert self.code in (0, message["code"]), "two ends"
            self.code = message["code"]
            return
        assert not self.code, "a message after the end"
        got = message["bytes"] if "bytes" in message else message["text"].encode()
        assert got == self.client.messages[len(self.received)], "not the message that was sent"
        self.received.append(got)


class Client:
    """A client that has sent a handshake."""

    def __init__(self, number: int, peer: Peer, compress: bool, is_alive: bool) -> None:
        self.number, self.peer = number, peer
        self.compress = compress
        self.is_alive = is_alive
        """It answers pings, unless `was_silent`."""
        self.was_silent = not is_alive
        """It may have left a ping unanswered: it did not read, or was within a frame."""
        self.queue = b""
        self.sent = 0
        self.ended = math.inf
        """When it has sent its FIN or RST."""
        self.messages: list[bytes] = []
        self._ends: list[int] = []
        self.pings: list[bytes] = []
        self.last = 0
        """The code of its Close frame, or of its fault."""
        self.is_faulty = False
        self._end = 0
        self._pongs = 0
        fields = [b"Sec-WebSocket-Extensions: permessage-deflate"] if compress else []
        self.add(handshake(*fields).replace(b"/chat", b"/%d" % number))

    def add(self, data: bytes) -> None:
        self.queue += data
        self._end += len(data)

    def add_message(self, size: int, is_text: bool, pieces: int, compress: bool) -> None:
        """Add a message in some frames, with a ping between them."""
        message = content(self.number, len(self.messages), size)
        self.messages.append(message)
        first = TEXT if is_text else BINARY
        if compress and self.compress:
            message, first = _deflate(message), first | COMPRESSED
        step = len(message) // pieces + 1
        for piece in range(pieces):
            if piece:
                self.add_ping()
            fin = FIN if piece == pieces - 1 else 0
            self.add(masked(first | fin, message[piece * step : (piece + 1) * step]))
            first = 0
        self._ends.append(self._end)

    def add_ping(self) -> None:
        self.pings.append(b"ping %d" % len(self.pings))
        self.add(masked(FIN | PING, self.pings[-1]))

    def add_close(self, code: int) -> None:
        self.last = code
        self.add(masked(FIN | CLOSE, code.to_bytes(2, "big") if code != 1005 else b""))

    def add_fault(self, kind: str) -> None:
        data, self.last = FAULTS[kind]
        self.is_faulty = True
        self.add(data)

    def send(self, size: int) -> None:
        data, self.queue = self.queue[:size], self.queue[size:]
        self.sent += len(data)
        self.peer.send(data)

    @property
    def is_able(self) -> bool:
        """It can send more."""
        return not (self.last or self.peer.has_shut or self.peer.at_end)

    @property
    def delivered(self) -> int:
        """The number of messages that are sent to their end."""
        return sum(end <= self.sent for end in self._ends)

    @property
    def is_open(self) -> bool:
        return self.peer.received.startswith(b"HTTP/1.1 101 ")

    @property
    def status(self) -> int:
        found = read_responses(bytes(self.peer.received), ["GET"], self.peer.at_end)
        return found[0].status if found else 0

    def frames(self) -> list[tuple[int, bytes]]:
        if not self.is_open:
            return []
        return _frames(bytes(self.peer.received).partition(b"\r\n\r\n")[2])

    @property
    def close_code(self) -> int:
        """The code of the server's Close frame: 0 without one, 1005 if it has none."""
        payloads = [payload for first, payload in self.frames() if first & 15 == CLOSE]
        if not payloads:
            return 0
        return int.from_bytes(payloads[0][:2], "big") or 1005

    def answer_pings(self) -> bool:
        """Answer new pings of the server; return whether there were any."""
        pings = [payload for first, payload in self.frames() if first & 15 == PING]
        new = pings[self._pongs :]
        if not (new and self.is_alive and self.is_able and self.peer.reads):
            self.was_silent = self.was_silent or bool(new) or not self.peer.reads
            return False
        self._pongs = len(pings)
        for payload in new:
            self.add(masked(FIN | PONG, payload))
        if len(self.queue) == len(masked(FIN | PONG, new[0])) * len(new):
            self.send(len(self.queue))
        else:
            self.was_silent = True
        return True

    def check(self, talk: Talk | None) -> None:
        """Check what the server has sent."""
        frames = self.frames()
        if not frames:
            return
        assert talk is not None
        opcodes = [first & 15 for first, _ in frames]
        if CLOSE in opcodes:  # pings are answered until the client closes, too (RFC 6455 §5.5.2)
            after = opcodes[opcodes.index(CLOSE) + 1 :]
            assert set(after) <= {PONG}, "a frame after Close"
        messages, pongs = [], []
        for first, payload in frames:
            assert first & FIN
            opcode = first & 15
            assert opcode in (TEXT, BINARY, CLOSE, PING, PONG)
            if opcode in (TEXT, BINARY):
                assert self.compress or not first & COMPRESSED
                messages.append(self._inflate(payload) if first & COMPRESSED else payload)
            elif opcode == PONG:
                pongs.append(payload)
        assert messages == talk.sent[: len(messages)], "not what the app has sent"
        pings = iter(self.pings)
        assert all(pong in pings for pong in pongs), "a pong without ping, or out of order"

    def _inflate(self, payload: bytes) -> bytes:
        return zlib.decompressobj(wbits=-12).decompress(payload + b"\0\0\xff\xff")
