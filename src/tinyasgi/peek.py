"""Looking at what has arrived on a socket that has no transport yet."""

import asyncio
import socket
from contextlib import suppress

__all__ = ["peek"]


async def peek(sock: socket.socket, size: int) -> bytes:
    """Wait until something has arrived, and return up to `size` bytes without taking them.

    Returns b"" at the end of the stream. Raises OSError.
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
