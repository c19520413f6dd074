"""A TCP connection of a client, with TLS or without."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

HOST = "127.0.0.1"


class Address(NamedTuple):
    """Where the server listens.

    contexts: for TLS, by the protocol to negotiate. ca_certs: the file that they trust.
    """

    port: int
    contexts: Mapping[str, ssl.SSLContext] = MappingProxyType({})
    ca_certs: str = ""

    @property
    def scheme(self) -> str:
        return "https" if self.contexts else "http"


#: One visit of a client. It raises an exception if a response is wrong.
Visit = Callable[[Address], Awaitable[None]]


async def expect(actual: bytes, expected: bytes) -> None:
    if actual != expected:
        raise ConnectionError(f"{actual[:60]!r} instead of {expected[:60]!r}")


class Peer:
    """A TCP connection that is closed with RST or FIN."""

    protocol = "http/1.1"

    def __init__(self, server: Address) -> None:
        self.server = server

    async def __aenter__(self) -> Self:
        context = self.server.contexts.get(self.protocol)
        name = {"server_hostname": "localhost"} if context else {}
        opening = asyncio.open_connection(HOST, self.server.port, ssl=context, **name)
        self.reader, self.writer = await opening
        # `send` returns when (almost) all is sent. With 0, TLS would pause for an empty buffer.
        self.writer.transport.set_write_buffer_limits(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def half_close(self) -> None:
        """Send FIN. TLS cannot do that."""
        if self.writer.can_write_eof():
            self.writer.write_eof()

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
