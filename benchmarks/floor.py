"""Minimal server: uvloop, httptools and one fixed response, without ASGI.

No server with this event loop and this parser can be faster. The difference to this server is the
cost of a server's own code.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

REPLY = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"server: floor\r\n"
    b"content-type: text/plain\r\n"
    b"content-length: 13\r\n"
    b"\r\n"
    b"Hello, world!"
)


class Fixed(asyncio.Protocol):
    """Parses a read and answers all requests in it with a single write."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.complete = 0

    def data_received(self, data: bytes) -> None:
        self.complete = 0
        self.parser.feed_data(data)
        if self.complete:
            self.transport.write(REPLY * self.complete)
            if not self.keep_alive:
                self.transport.close()

    def on_message_complete(self) -> None:
        self.complete += 1
        self.keep_alive = self.parser.should_keep_alive()


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Fixed, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
