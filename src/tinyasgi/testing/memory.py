"""An in-memory connection for tests of the protocol: bytes in, bytes out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from ..app.load import as_asgi3
from ..config.config import Config
from ..protocols.context import Context
from ..protocols.hooks import NO_HOOKS, Hooks
from ..protocols.http1 import HTTP1Connection


class MemoryConnection(asyncio.Transport):
    """A transport without a socket, with an HTTP/1.1 connection on it. Use `connect` to create one.

    `feed` passes bytes to the connection. `sent` collects the bytes that it writes.
    """

    def __init__(self, app: Any, config: Config, hooks: Hooks) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.stack = ExitStack()  # closed by `connect`
        app = as_asgi3(app, config, self.stack)
        self.context = Context(app, config, asyncio.get_running_loop(), hooks)
        self.protocol = HTTP1Connection(self.context)
        self.sent = bytearray()
        """All bytes that the server has written."""
        self.closed = False
        """True once the server has closed or half-closed the connection."""
        self.aborted = False
        """True once the server has aborted the connection."""
        self._half_closed = False
        self._lost = False
        self._reading = True
        self._waiting: list[bytes] = []
        self.protocol.connection_made(self)

    async def feed(self, *reads: bytes) -> bytes:
        """Let the connection receive each piece in a separate read; return `sent`."""
        for data in reads:
            self._waiting.append(data)
            await self.settle()
        return bytes(self.sent)

    async def settle(self) -> None:
        """Run the event loop until neither the apps nor the connection make progress."""
        quiet, before = 0, None
        while quiet < (10 if self.context.running else 3):  # an app may yield several times
            while self._waiting and self._reading and not self._lost:
                self._arrive(self._waiting.pop(0))
            await asyncio.sleep(0)
            sent = len(self.sent) + len(self.protocol.write_buffer)
            now = sent, len(self._waiting), self._lost
            quiet, before = (quiet + 1 if now == before else 0), now

    async def eof(self) -> bytes:
        """Half-close the connection as the client does; return `sent`."""
        return await self.feed(b"")

    def _arrive(self, data: bytes) -> None:
        """Pass a read to the protocol. An empty one is the end of the stream."""
        if data:
            self.protocol.data_received(data)
        elif not self.protocol.eof_received():
            self.close()

    async def reset(self) -> None:
        """Reset the connection."""
        self._lose(ConnectionResetError())
        await self.settle()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self.closed = self._lost = True
            asyncio.get_running_loop().call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        self.protocol.connection_lost(error)

    # Methods of the transport, for the protocol.

    def write(self, data: Any) -> None:
        if self._half_closed:  # as the transports of both event loops
            raise RuntimeError("Cannot call write() after write_eof()")
        if not self.closed:
            self.sent += data

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write_eof(self) -> None:
        self.closed = self._half_closed = True

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
async def connect(
    app: Any, hooks: Hooks = NO_HOOKS, **options: Any
) -> AsyncIterator[MemoryConnection]:
    """Open an in-memory connection. options: as for `Config`."""
    connection = MemoryConnection(app, Config(**options), hooks)
    try:
        yield connection
    finally:
        for exchange in list(connection.context.running):
            exchange.cancel()
        connection.close()
        await connection.settle()
        connection.stack.close()
