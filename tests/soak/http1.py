"""Clients of HTTP/1.1."""

import asyncio
import random

from .peer import Address, Peer, Visit, expect


def get(path: str, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\n%b\r\n" % (path.encode(), headers)


def post(size: int) -> bytes:
    return b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % size


# Honest clients.


async def honest_kept(server: Address) -> None:
    async with Peer(server) as peer:
        for _ in range(50):
            await peer.send(get("/"))
            await expect(await peer.body(), b"hello")


async def honest_pipeline(server: Address) -> None:
    async with Peer(server) as peer:
        await peer.send(get("/") * 16)
        for _ in range(16):
            await expect(await peer.body(), b"hello")


async def honest_upload(server: Address) -> None:
    body = random.randbytes(random.choice([1, 65536, 65537, 300_000]))
    async with Peer(server) as peer:
        await peer.send(post(len(body)) + body)
        await expect(await peer.body(), body)
        await peer.send(get("/who", b"X-Forwarded-For: 203.0.113.9\r\n"))
        await expect(await peer.body(), b"203.0.113.9")  # loopback is a trusted proxy


async def honest_download(server: Address) -> None:
    async with Peer(server) as peer:
        await peer.send(get("/large"))
        await expect(await peer.body(), bytes(32 * 65536))


async def honest_stream(server: Address) -> None:
    async with Peer(server) as peer:
        await peer.send(get("/stream"))
        await peer.head()
        for _ in range(5):
            await peer.reader.readuntil(b"event")


# Attackers: they ignore errors.


async def attack_spoof(server: Address) -> None:
    """A complete request with a forged address, then a reset."""
    async with Peer(server) as peer:
        await peer.send(get("/who", b"X-Forwarded-For: 6.6.6.6\r\n"))
        peer.reset()


async def attack_upload(server: Address) -> None:
    """A large body, then a disconnect at any point."""
    async with Peer(server) as peer:
        await peer.send(post(1 << 20) + bytes(random.randrange(1 << 20)))
        random.choice([peer.reset, peer.writer.close])()


async def attack_pipeline(server: Address) -> None:
    """Many requests whose responses are never read."""
    async with Peer(server) as peer:
        peer.writer.write(get("/large") * 200)
        await asyncio.sleep(random.random() * 3)
        peer.reset()


async def attack_head(server: Address) -> None:
    """A HEAD request for an endless stream, then a disconnect."""
    async with Peer(server) as peer:
        await peer.send(get("/stream").replace(b"GET", b"HEAD"))
        await asyncio.sleep(random.random())


async def attack_slow_head(server: Address) -> None:
    """A head that arrives byte by byte, with a long request line."""
    async with Peer(server) as peer:
        await peer.send(b"GET /" + b"a" * 4000)
        for _ in range(100):
            await peer.send(b"a")
            await asyncio.sleep(0.02)


async def attack_slow_body(server: Address) -> None:
    """A body that arrives byte by byte."""
    async with Peer(server) as peer:
        await peer.send(post(100_000))
        while not peer.reader.at_eof():
            await peer.send(b"x")
            await asyncio.sleep(0.3)
            if random.random() < 0.01:
                break


async def attack_slow_reader(server: Address) -> None:
    """A response that is read one byte at a time."""
    async with Peer(server) as peer:
        await peer.send(get("/large"))
        for _ in range(100):
            if not await peer.reader.read(1):
                break
            await asyncio.sleep(0.1)


async def attack_garbage(server: Address) -> None:
    """Random bytes, and requests with an error in them."""
    async with Peer(server) as peer:
        good = bytearray(get("/", b"Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n")
        good[random.randrange(len(good))] = random.randrange(256)
        await peer.send(random.choice([bytes(good), random.randbytes(200)]))
        peer.half_close()
        async with asyncio.timeout(2):
            await peer.reader.read()


async def attack_half_close(server: Address) -> None:
    """A request and a half-close, then a reset."""
    async with Peer(server) as peer:
        await peer.send(get(random.choice(["/stream", "/", "/large"])))
        peer.half_close()
        await asyncio.sleep(random.random())
        peer.reset()


HONEST: list[Visit] = [honest_kept, honest_pipeline, honest_upload, honest_download, honest_stream]
ATTACKS: list[Visit] = [
    attack_spoof,
    attack_upload,
    attack_pipeline,
    attack_head,
    attack_slow_head,
    attack_slow_body,
    attack_slow_reader,
    attack_garbage,
    attack_half_close,
]
