"""For tests: a real server in a thread, and a connection in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from .config import Config
from .context import Context
from .http1 import HTTP1Connection
from .load import as_asgi3
from .server import Server

__all__ = ["MemoryConnection", "connect", "serve"]


@contextmanager
def serve(app: Any, **options: Any) -> Iterator[Server]:
    """A server in a thread with a loop of its own, ready on entry, stopped on exit.

        with serve(app) as server:
            httpx.get(server.url)

    options: arguments of `Server`; a free port is taken unless they say otherwise. What the
    server raises as it starts or stops is raised here.
    """
    if not {"sockets", "bind", "uds", "fd"} & options.keys():
        options.setdefault("port", 0)
    ready = threading.Event()
    servers: list[Server] = []
    errors: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with Server(app, **options) as server:
            servers.append(server)
            ready.set()
            await server.stopped()

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
        ready.set()

    thread = threading.Thread(target=work, name="tinyasgi")
    thread.start()
    ready.wait()
    try:
        if servers:
            yield servers[0]
    finally:
        if servers and thread.is_alive():
            with suppress(RuntimeError):  # it has just stopped by itself
                loops[0].call_soon_threadsafe(servers[0].stop)
        thread.join()
    if errors:
        raise errors[0]


class MemoryConnection(asyncio.Transport):
    """One HTTP/1.1 connection without a socket: what is fed arrives, what is written is kept."""

    def __init__(self, app: Any, config: Config) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.context = Context(as_asgi3(app), config, asyncio.get_running_loop())
        self.protocol = HTTP1Connection(self.context)
        #: All that the server has written.
        self.sent = bytearray()
        #: The server has closed, or half-closed, the connection.
        self.closed = False
        self.aborted = False
        self._lost = False
        self._reading = True
        self._waiting: list[bytes] = []
        self.protocol.connection_made(self)

    async def feed(self, *reads: bytes) -> bytes:
        """Lets each piece arrive in a read of its own; returns all that is sent by then."""
        for data in reads:
            self._waiting.append(data)
            await self.settle()
        return bytes(self.sent)

    async def settle(self) -> None:
        """Until apps that wait for nothing else have gone on as far as they can."""
        quiet, before = 0, None
        while quiet < 10:
            while self._waiting and self._reading and not self._lost:
                self.protocol.data_received(self._waiting.pop(0))
            await asyncio.sleep(0)
            now = len(self.sent), len(self._waiting), self._lost
            quiet, before = (quiet + 1 if now == before else 0), now

    async def eof(self) -> bytes:
        """The client ends its side; returns all that is sent by then."""
        if not self._lost and not self.protocol.eof_received():
            self.close()
        await self.settle()
        return bytes(self.sent)

    async def reset(self) -> None:
        """The connection breaks."""
        self._lose(ConnectionResetError())
        await self.settle()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self.closed = self._lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    # What the protocol calls.

    def write(self, data: Any) -> None:
        if not self.closed:
            self.sent += data

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self.aborted = True
        self._lose(None)

    def is_closing(self) -> bool:
        return self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def get_write_buffer_size(self) -> int:
        return 0


@asynccontextmanager
async def connect(app: Any, **options: Any) -> AsyncIterator[MemoryConnection]:
    """A connection in memory, for tests of the protocol; options as for `Config`."""
    connection = MemoryConnection(app, Config(**options))
    try:
        yield connection
    finally:
        for exchange in list(connection.context.running):
            exchange.cancel()
        connection.close()
        await connection.settle()
