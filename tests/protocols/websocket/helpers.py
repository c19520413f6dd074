"""Shared by the WebSocket tests: frames of a client, and a client in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tinyasgi.protocols.websocket.frames import TEXT
from tinyasgi.testing import MemoryConnection, connect

__all__ = ["ACCEPT", "HANDSHAKE", "Peer", "echo", "handshake", "masked", "opened"]

KEY = b"\x12\x34\xab\xcd"


def handshake(*fields: bytes) -> bytes:
    """Return a handshake with additional headers."""
    lines = [
        b"GET /chat?a=b HTTP/1.1",
        b"Host: here",
        b"Upgrade: websocket",
        b"Connection: keep-alive, Upgrade",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *fields,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


HANDSHAKE = handshake()
ACCEPT = {"type": "websocket.accept"}


def masked(first: int, payload: bytes = b"", *, length: bytes | None = None) -> bytes:
    """Return a frame of a client. length: replaces the length field, with the mask bit."""
    size = len(payload)
    if length is not None:
        pass
    elif size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([first]) + length + KEY + bytes(b ^ KEY[i % 4] for i, b in enumerate(payload))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo messages until the client disconnects."""
    assert scope["type"] == "websocket"
    assert await receive() == {"type": "websocket.connect"}
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Peer:
    """A client after the handshake. start: offset of the first frame from the server."""

    def __init__(self, connection: MemoryConnection, start: int) -> None:
        self.connection = connection
        self._read = start

    def take(self) -> bytes:
        """What has been sent since the last call."""
        data = bytes(self.connection.sent[self._read :])
        self._read += len(data)
        return data

    async def send(self, *reads: bytes) -> bytes:
        """Lets reads arrive; returns what is answered."""
        await self.connection.feed(*reads)
        await self.connection.settle()
        return self.take()

    async def say(self, text: str) -> bytes:
        return await self.send(masked(0x80 | TEXT, text.encode()))


@asynccontextmanager
async def opened(app: Any, *fields: bytes, **options: Any) -> AsyncIterator[Peer]:
    """Open a connection in memory and complete the handshake."""
    async with connect(app, **options) as connection:
        answer = await connection.feed(handshake(*fields))
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), answer
        yield Peer(connection, answer.index(b"\r\n\r\n") + 4)
