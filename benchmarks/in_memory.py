"""In-memory connections, which `hotpath` runs under valgrind.

`getppid` is called before and after each row, and nowhere else. At each call, valgrind writes the
number of instructions since the last call.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any, TypeAlias

import uvloop

from . import apps
from .websocket import HANDSHAKE, MASK, frame

GET = b"GET /path HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: test/1.0\r\nAccept: */*\r\n\r\n"
OTHER = GET.replace(b"test/1.0", b"%08d")
POST = b"POST /path HTTP/1.1\r\nHost: localhost:8000\r\nContent-Length: 1024\r\n\r\n" + bytes(1024)
MESSAGE = frame(bytes(64), MASK)
REPEATS = 200

#: Header blocks that add their authority to the table of the connection, and that refer to it.
FIRST_BLOCK, BLOCK = b"\x82\x84\x86\x41\x0elocalhost:8000", b"\x82\x84\x86\xbe"


def http2_gets(number: int) -> tuple[bytes, Callable[[], Iterator[bytes]]]:
    """Return the first bytes of a client, and reads with a number of requests each."""
    from tinyasgi.protocols.http2 import frames

    def get(stream_id: int, block: bytes = BLOCK) -> bytes:
        return frames.headers(stream_id, block, end_stream=True)

    first = frames.PREFACE + frames.settings({}) + frames.window_update(0, 1 << 30)
    reads = range(3, frames.MAX_STREAM_ID, 2 * number)
    return first + get(1, FIRST_BLOCK), lambda: (
        b"".join([get(stream_id) for stream_id in range(start, start + 2 * number, 2)])
        for start in reads
    )


#: A row that feeds bytes to a connection: the app, the first bytes, and the repeated bytes.
Fed: TypeAlias = tuple[Any, bytes, Callable[[], Iterator[bytes]]]
FED: dict[str, Fed] = {
    "GET": (apps.hello, GET, lambda: iter(lambda: GET, None)),
    "GET, one header changes each time": (apps.hello, GET, lambda: (OTHER % n for n in count())),
    "16 GETs pipelined": (apps.hello, GET, lambda: iter(lambda: GET * 16, None)),
    "POST of 1 KiB, echoed": (apps.echo, POST, lambda: iter(lambda: POST, None)),
    "100 events in one response": (apps.events, GET, lambda: iter(lambda: GET, None)),
    "WebSocket message of 64 bytes, echoed": (
        apps.ws_echo,
        HANDSHAKE,
        lambda: iter(lambda: MESSAGE, None),
    ),
}


class Memory(asyncio.Transport):
    """A transport without a socket that counts the bytes written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.protocol: Any = None
        self.written = 0
        self.first = b""

    def write(self, data: Any) -> None:
        self.written += len(data)
        self.first = self.first or bytes(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def tinyasgi(app: Any) -> asyncio.Protocol:
    from tinyasgi.config.config import Config
    from tinyasgi.protocols.context import Context
    from tinyasgi.protocols.http1 import HTTP1Connection

    config = Config(http="httptools")
    return HTTP1Connection(Context(app, config, asyncio.get_running_loop()))


def counted(app: Any) -> asyncio.Protocol:
    """Create a connection with metrics."""
    from tinyasgi.config.config import Config
    from tinyasgi.metrics.prometheus import Metrics
    from tinyasgi.metrics.store import MetricsStore
    from tinyasgi.protocols.context import Context
    from tinyasgi.protocols.hooks import Hooks
    from tinyasgi.protocols.http1 import HTTP1Connection

    config = Config(http="httptools", metrics_bind="127.0.0.1:0")
    metrics = Metrics(MetricsStore.create(config, shard=1))
    hooks = Hooks(access=metrics.count, on_tick=metrics.on_tick)
    loop = asyncio.get_running_loop()
    context = Context(metrics.observed(app), config, loop, hooks)
    metrics.start(context)
    return HTTP1Connection(context)


def http2(app: Any) -> asyncio.Protocol:
    from tinyasgi.config.config import Config
    from tinyasgi.protocols.context import Context
    from tinyasgi.protocols.http2.connection import HTTP2Connection

    return HTTP2Connection(Context(app, Config(), asyncio.get_running_loop()))


def uvicorn(app: Any) -> asyncio.Protocol:
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    config = Config(app, access_log=False, log_level="error", http="httptools")
    config.ws = "websockets-sansio"
    config.proxy_headers = False
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"uvicorn")]
    loop = asyncio.get_running_loop()
    protocol: asyncio.Protocol = HttpToolsProtocol(config, state, {}, loop)
    return protocol


def mark() -> None:
    os.getppid()


async def fed(make: Callable[[Any], asyncio.Protocol], row: Fed) -> bool:
    """Run one row on one server; return False if the server does not support it."""
    app, first, pieces = row
    transport = Memory()
    transport.protocol = make(app)
    transport.protocol.connection_made(transport)
    transport.protocol.data_received(first)
    await settled(transport)
    if first is HANDSHAKE and not transport.first.startswith(b"HTTP/1.1 101 "):
        return False
    data = pieces()
    before = transport.written
    transport.get_protocol().data_received(next(data))  # type: ignore[attr-defined]
    await settled(transport)
    size = transport.written - before
    assert size > 0

    async def repeat() -> None:
        for _ in range(REPEATS):
            wanted = transport.written + size
            transport.protocol.data_received(next(data))
            while transport.written < wanted:
                await asyncio.sleep(0)

    await repeat()  # warm up the specializing interpreter
    mark()
    await repeat()
    mark()
    return True


async def settled(transport: Memory) -> None:
    """Wait until nothing more is written."""
    quiet, before = 0, -1
    while quiet < 50:
        await asyncio.sleep(0)
        quiet = quiet + 1 if transport.written == before else 0
        before = transport.written


# Single layers of tinyasgi.


async def layers() -> dict[str, Callable[[], Awaitable[object] | object]]:
    """Return the steps of a GET as functions."""
    from tinyasgi.http import request, response

    transport = Memory()
    connection: Any = tinyasgi(apps.hello)
    connection.connection_made(transport)
    connection.data_received(GET)
    await settled(transport)
    context = connection._context
    start = GET.find(b"\r\n") + 2
    line = context.request_lines[GET[: start - 2]]
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"13")]

    async def nothing() -> None:
        pass

    async def send(message: Any) -> None:
        pass

    async def task() -> None:
        await asyncio.Task(nothing(), context=context.variables.copy())

    async def app() -> None:
        await apps.hello({"type": "http"}, send, send)  # type: ignore[arg-type]

    return {
        "an empty task, awaited": task,
        "the app, with an empty send": app,
        "parse the headers of a request, httptools": lambda: context.parser.parse_headers(
            GET, start
        ),
        "parse the framing of a request": lambda: request.parse_framing(
            "1.1", context.parser.parse_headers(GET, start)
        ),
        "encode the head of a response": lambda: response.encode_head(
            200, fields, context.defaults, line, True, 13
        ),
    }


async def layer(function: Callable[[], Awaitable[object] | object]) -> None:
    async def repeat() -> None:
        for _ in range(REPEATS):
            result = function()
            if result.__class__.__name__ == "coroutine":
                await result  # type: ignore[misc]

    await repeat()
    mark()
    await repeat()
    mark()


async def main() -> None:
    """Print a line for each pair of marks: row, tab, server."""
    for row, feed in FED.items():
        for make in (tinyasgi, uvicorn):
            if await fed(make, feed):
                print(row, make.__name__, sep="\t")
    if await fed(counted, FED["GET"]):
        print("GET, metrics on", "tinyasgi", sep="\t")
    for row, number in (("GET, HTTP/2", 1), ("16 GETs in one read, HTTP/2", 16)):
        if await fed(http2, (apps.hello, *http2_gets(number))):
            print(row, "tinyasgi", sep="\t")
    for row, function in (await layers()).items():
        await layer(function)
        print(row, "tinyasgi", sep="\t")
    sys.stdout.flush()
    os._exit(0)  # skip the cleanup


if __name__ == "__main__":
    uvloop.run(main())
