"""Clients of WebSocket over HTTP/1.1."""

import asyncio
import random

from .peer import Address, Peer, Visit, expect

KEY = b"\x12\x34\xab\xcd"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A masked frame with a short payload."""
    masked = bytes(byte ^ KEY[index % 4] for index, byte in enumerate(payload))
    return bytes([first, 0x80 | len(payload)]) + KEY + masked


async def honest_websocket(server: Address) -> None:
    async with Peer(server) as peer:
        await peer.send(HANDSHAKE)
        await peer.head()
        for number in range(20):
            text = b"message %d" % number
            await peer.send(frame(0x81, text))
            answer = await peer.reader.readexactly(2 + len(text))
            await expect(answer[2:], text)
        await peer.send(frame(0x88, b"\x03\xe8"))
        await expect(await peer.reader.readexactly(4), b"\x88\x02\x03\xe8")


# Attackers.


async def attack_pings(server: Address) -> None:
    """Pings whose reads end within frame headers."""
    async with Peer(server) as peer:
        await peer.send(HANDSHAKE)
        data = frame(0x89, b"ping") * 10_000
        for start in range(0, len(data), 13):
            await peer.send(data[start : start + 13])
            await asyncio.sleep(0)


async def attack_fragments(server: Address) -> None:
    """One message in very small fragments, some of them empty."""
    async with Peer(server) as peer:
        await peer.send(HANDSHAKE + frame(0x01, b"a"))
        for _ in range(200):
            await peer.send((frame(0x00, b"bb") + frame(0x00)) * 200)
            await asyncio.sleep(0.005)
        peer.reset()


async def attack_handshakes(server: Address) -> None:
    """A handshake and a Close frame in one segment, then nothing is read."""
    async with Peer(server) as peer:
        await peer.send(HANDSHAKE + frame(0x81, b"hello") * 50 + frame(0x88, b"\x03\xe8"))
        random.choice([peer.reset, peer.writer.close])()


HONEST: list[Visit] = [honest_websocket]
ATTACKS: list[Visit] = [attack_pings, attack_fragments, attack_handshakes]
