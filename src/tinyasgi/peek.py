"""Reading from a socket without consuming the data."""

import asyncio
import socket
from contextlib import suppress


async def peek(sock: socket.socket, size: int) -> bytes:
    """Wait for data and return up to `size` bytes of it, which stay in the socket.

    Return b"" at the end of the stream. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    while True:
        with suppress(BlockingIOError):
            return sock.recv(size, socket.MSG_PEEK)
        readable = asyncio.Event()
        loop.add_reader(sock, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(sock)
