"""Clients of HTTP/2 that keep to its rules."""

import asyncio
import random
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Self

import grpc.aio
import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes

from .peer import HOST, Address, Peer, Visit, expect
from .websocket import frame


class Session(Peer):
    """An HTTP/2 connection."""

    protocol = "h2"

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        config = h2.config.H2Configuration(header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.bodies: defaultdict[int, bytes] = defaultdict(bytes)
        self.statuses: dict[int, bytes] = {}
        self.ended: set[int] = set()
        await self.flush()
        return self

    async def flush(self) -> None:
        await self.send(self.h2.data_to_send())

    async def request(
        self, path: str, *more: tuple[str, str], method: str = "GET", end_stream: bool = True
    ) -> int:
        """Send the headers of a request; return the id of its stream."""
        stream = self.h2.get_next_available_stream_id()
        target = [(":scheme", self.server.scheme), (":authority", "here"), (":path", path)]
        self.h2.send_headers(stream, [(":method", method), *target, *more], end_stream)
        await self.flush()
        return stream

    async def upload(self, stream: int, body: bytes, end_stream: bool = True) -> None:
        """Send a request body, as the windows allow."""
        while body:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not size:
                await self.receive()
                continue
            self.h2.send_data(stream, body[:size], end_stream and size >= len(body))
            body = body[size:]
            await self.flush()

    async def receive(self) -> None:
        """Process the frames of one read. Raises ConnectionError if a stream is reset."""
        data = await self.reader.read(65536)
        if not data:
            raise ConnectionError("connection closed")
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[b":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset) and not event.error_code:
                pass  # the response is complete
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionError(f"unexpected {event!r}")
        await self.flush()

    async def body(self, stream: int = 1) -> bytes:
        """Return the body of a response."""
        while stream not in self.ended:
            await self.receive()
        await expect(self.statuses[stream], b"200")
        return self.bodies.pop(stream, b"")

    async def read(self, stream: int, size: int) -> bytes:
        """Return the next bytes of a response."""
        while len(self.bodies[stream]) < size:
            await self.receive()
        data = self.bodies[stream]
        self.bodies[stream] = data[size:]
        return data[:size]


async def honest_http2(server: Address) -> None:
    """Many requests at once, whose paths vary."""
    async with Session(server) as session:
        for number in range(10):
            streams = [await session.request(f"/{number}/{each}") for each in range(16)]
            for stream in streams:
                await expect(await session.body(stream), b"hello")


async def honest_http2_upload(server: Address) -> None:
    body = random.randbytes(random.choice([1, 65536, 300_000]))
    async with Session(server) as session:
        for _ in range(3):
            stream = await session.request("/echo", method="POST", end_stream=False)
            await session.upload(stream, body)
            await expect(await session.body(stream), body)


async def honest_http2_download(server: Address) -> None:
    async with Session(server) as session:
        streams = [await session.request("/large") for _ in range(3)]
        for stream in streams:
            await expect(await session.body(stream), bytes(32 * 65536))


async def honest_http2_stream(server: Address) -> None:
    """An endless response, which the client resets."""
    async with Session(server) as session:
        stream = await session.request("/stream")
        await expect(await session.read(stream, 25), b"event" * 5)
        session.h2.reset_stream(stream, 8)
        await expect(await session.body(await session.request("/")), b"hello")


async def honest_http2_websocket(server: Address) -> None:
    """A WebSocket in a stream, and requests beside it."""
    async with Session(server) as session:
        while SettingCodes.ENABLE_CONNECT_PROTOCOL not in session.h2.remote_settings:
            await session.receive()
        more = (":protocol", "websocket"), ("sec-websocket-version", "13")
        stream = await session.request("/ws", *more, method="CONNECT", end_stream=False)
        for number in range(20):
            text = b"message %d" % number
            await session.upload(stream, frame(0x81, text), end_stream=False)
            await expect(await session.read(stream, 2 + len(text)), b"\x81%c" % len(text) + text)
            await expect(await session.body(await session.request("/")), b"hello")
        await session.upload(stream, frame(0x88, b"\x03\xe8"), end_stream=False)
        await expect(await session.read(stream, 4), b"\x88\x02\x03\xe8")


async def honest_h2load(server: Address) -> None:
    """Connections of h2load, if it is installed."""
    program = shutil.which("h2load")
    if program is None:
        await asyncio.sleep(60)
        return
    words = "-n", "500", "-c", "5", "-m", "20", f"{server.scheme}://{HOST}:{server.port}/"
    process = await asyncio.create_subprocess_exec(program, *words, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    await expect(output[output.find(b"500 succeeded") :][:13], b"500 succeeded")
    await asyncio.sleep(1)


async def honest_grpc(server: Address) -> None:
    """Calls of all kinds, with deadlines and cancellation."""
    where = f"localhost:{server.port}"
    if server.ca_certs:
        credentials = grpc.ssl_channel_credentials(Path(server.ca_certs).read_bytes())
        channel = grpc.aio.secure_channel(where, credentials)
    else:
        channel = grpc.aio.insecure_channel(where)
    async with channel:
        message = random.randbytes(random.choice([0, 10, 200_000]))
        await expect(await channel.unary_unary("/Echo/Echo")(message), message)
        counted = [each async for each in channel.unary_stream("/Echo/Count")(b"20")]
        await expect(counted[-1], b"19")
        joined = await channel.stream_unary("/Echo/Join")(iter([b"a", b"b"]))
        await expect(joined, b"a b")
        both = channel.stream_stream("/Echo/Echo")()
        for number in range(10):
            await both.write(b"%d" % number)
            await expect(await both.read(), b"%d" % number)
        await both.done_writing()
        call = channel.unary_stream("/Echo/Wait")(b"")
        await expect(await call.read(), b"waiting")
        call.cancel()
        try:
            await channel.unary_unary("/Echo/Wait")(b"", timeout=0.05)
        except grpc.aio.AioRpcError as error:
            await expect(error.code().name.encode(), b"DEADLINE_EXCEEDED")


HONEST: list[Visit] = [
    honest_http2,
    honest_http2_upload,
    honest_http2_download,
    honest_http2_stream,
    honest_http2_websocket,
    honest_h2load,
    honest_grpc,
]
