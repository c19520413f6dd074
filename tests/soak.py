"""Soak test: honest clients and attackers on one server, while its resources are measured.

Run as `python -m tests.soak SECONDS [option of tinyasgi ...]`, or `make soak SECONDS=1800`. It
prints a line per minute. It fails if an honest request fails, if memory, descriptors or threads
grow, or if the server logs a traceback or does not stop.
"""

import asyncio
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

HOST = "127.0.0.1"
#: Seconds after which an honest client gives up.
PATIENCE = 30.0
#: Permitted growth of the resident memory after the first quarter of the run, in MiB.
MAX_GROWTH = 12.0

APP = """
import asyncio

async def start(send, **more):
    await send({"type": "http.response.start", "status": 200, **more})

async def read(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body

async def listen(receive):
    while (await receive())["type"] != "http.disconnect":
        pass

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/echo":
        body = await read(receive)
        await start(send)
        await send({"type": "http.response.body", "body": body})
    elif path == "/who":
        await start(send)
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})
    elif path == "/stream":  # until the client leaves
        await start(send)
        left = asyncio.create_task(listen(receive))
        try:
            while not left.done():
                await send({"type": "http.response.body", "body": b"event", "more_body": True})
                await asyncio.wait({left}, timeout=0.2)
        finally:
            left.cancel()
    elif path == "/large":
        await start(send)
        for _ in range(32):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await start(send)
        await send({"type": "http.response.body", "body": b"hello"})
"""

KEY = b"\x12\x34\xab\xcd"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def get(path: str, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\n%b\r\n" % (path.encode(), headers)


def post(size: int) -> bytes:
    return b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % size


def frame(first: int, payload: bytes = b"") -> bytes:
    """A masked frame with a short payload."""
    masked = bytes(byte ^ KEY[index % 4] for index, byte in enumerate(payload))
    return bytes([first, 0x80 | len(payload)]) + KEY + masked


class Peer:
    """A TCP connection that is closed with RST or FIN."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> "Peer":
        self.reader, self.writer = await asyncio.open_connection(HOST, self.port)
        self.writer.transport.set_write_buffer_limits(0)  # `send` returns when all is sent
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def body(self) -> bytes:
        """Read one response and return its body."""
        head = (await self.head()).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise ConnectionError(f"unexpected response: {head[:60]!r}")
        if match := re.search(rb"content-length: (\d+)", head):
            return await self.reader.readexactly(int(match[1]))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body


# Honest clients: each call is one visit, and raises an exception if a response is wrong.


async def expect(actual: bytes, expected: bytes) -> None:
    if actual != expected:
        raise ConnectionError(f"{actual[:60]!r} instead of {expected[:60]!r}")


async def honest_kept(port: int) -> None:
    async with Peer(port) as peer:
        for _ in range(50):
            await peer.send(get("/"))
            await expect(await peer.body(), b"hello")


async def honest_pipeline(port: int) -> None:
    async with Peer(port) as peer:
        await peer.send(get("/") * 16)
        for _ in range(16):
            await expect(await peer.body(), b"hello")


async def honest_upload(port: int) -> None:
    body = random.randbytes(random.choice([1, 65536, 65537, 300_000]))
    async with Peer(port) as peer:
        await peer.send(post(len(body)) + body)
        await expect(await peer.body(), body)
        await peer.send(get("/who", b"X-Forwarded-For: 203.0.113.9\r\n"))
        await expect(await peer.body(), b"203.0.113.9")  # loopback is a trusted proxy


async def honest_download(port: int) -> None:
    async with Peer(port) as peer:
        await peer.send(get("/large"))
        await expect(await peer.body(), bytes(32 * 65536))


async def honest_stream(port: int) -> None:
    async with Peer(port) as peer:
        await peer.send(get("/stream"))
        await peer.head()
        for _ in range(5):
            await peer.reader.readuntil(b"event")


async def honest_websocket(port: int) -> None:
    async with Peer(port) as peer:
        await peer.send(HANDSHAKE)
        await peer.head()
        for number in range(20):
            text = b"message %d" % number
            await peer.send(frame(0x81, text))
            answer = await peer.reader.readexactly(2 + len(text))
            await expect(answer[2:], text)
        await peer.send(frame(0x88, b"\x03\xe8"))
        await expect(await peer.reader.readexactly(4), b"\x88\x02\x03\xe8")


# Attackers: they ignore errors.


async def attack_spoof(port: int) -> None:
    """A complete request with a forged address, then a reset."""
    async with Peer(port) as peer:
        await peer.send(get("/who", b"X-Forwarded-For: 6.6.6.6\r\n"))
        peer.reset()


async def attack_upload(port: int) -> None:
    """A large body, then a disconnect at any point."""
    async with Peer(port) as peer:
        await peer.send(post(1 << 20) + bytes(random.randrange(1 << 20)))
        random.choice([peer.reset, peer.writer.close])()


async def attack_pipeline(port: int) -> None:
    """Many requests whose responses are never read."""
    async with Peer(port) as peer:
        peer.writer.write(get("/large") * 200)
        await asyncio.sleep(random.random() * 3)
        peer.reset()


async def attack_head(port: int) -> None:
    """A HEAD request for an endless stream, then a disconnect."""
    async with Peer(port) as peer:
        await peer.send(get("/stream").replace(b"GET", b"HEAD"))
        await asyncio.sleep(random.random())


async def attack_slow_head(port: int) -> None:
    """A head that arrives byte by byte, with a long request line."""
    async with Peer(port) as peer:
        await peer.send(b"GET /" + b"a" * 4000)
        for _ in range(100):
            await peer.send(b"a")
            await asyncio.sleep(0.02)


async def attack_slow_body(port: int) -> None:
    """A body that arrives byte by byte."""
    async with Peer(port) as peer:
        await peer.send(post(100_000))
        while not peer.reader.at_eof():
            await peer.send(b"x")
            await asyncio.sleep(0.3)
            if random.random() < 0.01:
                break


async def attack_slow_reader(port: int) -> None:
    """A response that is read one byte at a time."""
    async with Peer(port) as peer:
        await peer.send(get("/large"))
        for _ in range(100):
            if not await peer.reader.read(1):
                break
            await asyncio.sleep(0.1)


async def attack_garbage(port: int) -> None:
    """Random bytes, and requests with an error in them."""
    async with Peer(port) as peer:
        good = bytearray(get("/", b"Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n")
        good[random.randrange(len(good))] = random.randrange(256)
        await peer.send(random.choice([bytes(good), random.randbytes(200)]))
        peer.writer.write_eof()
        async with asyncio.timeout(2):
            await peer.reader.read()


async def attack_pings(port: int) -> None:
    """Pings whose reads end within frame headers."""
    async with Peer(port) as peer:
        await peer.send(HANDSHAKE)
        data = frame(0x89, b"ping") * 10_000
        for start in range(0, len(data), 13):
            await peer.send(data[start : start + 13])
            await asyncio.sleep(0)


async def attack_fragments(port: int) -> None:
    """One message in very small fragments, some of them empty."""
    async with Peer(port) as peer:
        await peer.send(HANDSHAKE + frame(0x01, b"a"))
        for _ in range(200):
            await peer.send((frame(0x00, b"bb") + frame(0x00)) * 200)
            await asyncio.sleep(0.005)
        peer.reset()


async def attack_handshakes(port: int) -> None:
    """A handshake and a Close frame in one segment, then nothing is read."""
    async with Peer(port) as peer:
        await peer.send(HANDSHAKE + frame(0x81, b"hello") * 50 + frame(0x88, b"\x03\xe8"))
        random.choice([peer.reset, peer.writer.close])()


async def attack_half_close(port: int) -> None:
    """A request and a half-close, then a reset."""
    async with Peer(port) as peer:
        await peer.send(get(random.choice(["/stream", "/", "/large"])))
        peer.writer.write_eof()
        await asyncio.sleep(random.random())
        peer.reset()


Visit = Callable[[int], Awaitable[None]]
HONEST: list[Visit] = [
    honest_kept,
    honest_pipeline,
    honest_upload,
    honest_download,
    honest_stream,
    honest_websocket,
]
ATTACKS: list[Visit] = [
    attack_spoof,
    attack_upload,
    attack_pipeline,
    attack_head,
    attack_slow_head,
    attack_slow_body,
    attack_slow_reader,
    attack_garbage,
    attack_pings,
    attack_fragments,
    attack_handshakes,
    attack_half_close,
]


class Soak:
    """One run against one server process."""

    def __init__(self, port: int, pid: int, seconds: float) -> None:
        self.port = port
        self.pid = pid
        self.end = time.monotonic() + seconds
        self.visits: Counter[str] = Counter()
        self.failures: list[str] = []

    async def repeat(self, visit: Visit, honest: bool) -> None:
        name = getattr(visit, "__name__", "visit")
        while time.monotonic() < self.end:
            try:
                async with asyncio.timeout(PATIENCE):
                    await visit(self.port)
                self.visits[name] += 1
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                if honest:
                    self.failures.append(f"{name}: {error!r}")
            await asyncio.sleep(0.02)

    def measure(self) -> tuple[float, int, int]:
        """Resident memory in MiB, descriptors and threads of the server."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
        threads = int(re.search(r"Threads:\s+(\d+)", status)[1])  # type: ignore[index]
        return round(memory, 1), len(os.listdir(f"/proc/{self.pid}/fd")), threads

    async def run(self) -> list[str]:
        """Run all clients; return what is wrong."""
        before = self.measure()
        seconds = self.end - time.monotonic()
        settled: tuple[float, int, int] | None = None
        async with asyncio.TaskGroup() as tasks:
            for visit in HONEST + ATTACKS:
                tasks.create_task(self.repeat(visit, visit in HONEST))
            while (left := self.end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 60, seconds / 8))
                now = self.measure()
                memory, descriptors, threads = now
                left = max(self.end - time.monotonic(), 0)
                print(f"{left:6.0f} s left: {memory:.1f} MiB, {descriptors}, {threads}", flush=True)
                if settled is None and left < seconds * 3 / 4:
                    settled = now
        for _ in range(120):  # until lingering connections are closed
            after = self.measure()
            if after[1] <= before[1]:
                break
            await asyncio.sleep(1)
        print(f"before: {before}, after: {after} (MiB, descriptors, threads)")
        print(", ".join(f"{name} {count}" for name, count in sorted(self.visits.items())))
        faults = self.failures[:20]
        if settled is not None and after[0] > settled[0] + MAX_GROWTH:
            faults.append(f"memory grew from {settled[0]:.1f} to {after[0]:.1f} MiB")
        if after[1] > before[1]:
            faults.append(f"descriptors grew from {before[1]} to {after[1]}")
        if after[2] > before[2]:
            faults.append(f"threads grew from {before[2]} to {after[2]}")
        return faults


def main(seconds: float, options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        Path(folder, "soaked.py").write_text(APP)
        words = [sys.executable, "-m", "tinyasgi", "soaked:app", "--port", "0", *options]
        server = subprocess.Popen(words, cwd=folder, stderr=log, stdout=subprocess.DEVNULL)
        try:
            while not (match := re.search(r"http://[^ ]+:(\d+)", Path(log.name).read_text())):
                if server.poll() is not None:
                    print(Path(log.name).read_text())
                    return 1
                time.sleep(0.1)
            port = int(match[1])
            asyncio.run(honest_kept(port))
            faults = asyncio.run(Soak(port, server.pid, seconds).run())
            server.send_signal(signal.SIGTERM)
            try:
                if code := server.wait(PATIENCE):
                    faults.append(f"exit code {code}")
            except subprocess.TimeoutExpired:
                faults.append("the server did not stop")
        finally:
            server.kill()
        text = Path(log.name).read_text()
        for line in [line for line in text.splitlines() if re.search("ERROR|Traceback", line)][:20]:
            faults.append(line)
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
