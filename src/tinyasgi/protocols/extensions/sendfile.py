"""Files by sendfile(2): from the page cache to the socket, without a copy in this process."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from ..exchange import Exchange
from ..states import SENDING_FILE
from ..stream import FilePart
from .files import too_short, unblocked

#: Maximum bytes per call, so that a fast client does not block the event loop.
CHUNK = 1024 * 1024


def has_socket(transport: asyncio.BaseTransport) -> bool:
    """Return whether data can be written directly to the socket of a transport."""
    return (
        hasattr(os, "sendfile")
        and transport.get_extra_info("socket") is not None
        and transport.get_extra_info("ssl_object") is None
    )


async def sendfile(
    transport: asyncio.Transport, exchange: Exchange, part: FilePart, on_sent: Callable[[int], None]
) -> None:
    """Send a part of a file to the socket of a transport, after what was written to it.

    Returns when all of it is in the socket, or when the phase of the exchange changes. `on_sent` is
    called with the size of each piece. Raises OSError: a ConnectionError is about the peer, others
    are about the file.

    The sendfile of uvloop's event loop is not implemented. That of asyncio sends without a limit as
    long as the peer reads, and does not notice that a transport was aborted.
    """
    descriptor, offset, count = part
    # A duplicate, because event loops reserve the descriptor for the transport.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as out:
        _set_no_delay(out, False)
        while count and exchange.phase is SENDING_FILE:
            if transport.get_write_buffer_size():
                await _writable(out, exchange)
                continue
            block = FilePart(descriptor, offset, min(count, CHUNK))
            try:
                sent = await unblocked(block, os.sendfile, out.fileno(), *block)
            except BlockingIOError:
                await _writable(out, exchange)
                continue
            if not sent:
                raise too_short(count)
            offset += sent
            count -= sent
            on_sent(sent)
            await asyncio.sleep(0)
        _set_no_delay(out, True)


def _set_no_delay(sock: socket.socket, enabled: bool) -> None:
    """Set TCP_NODELAY. With it, sendfile produces small segments, which take 60 % more CPU time."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        with suppress(OSError):  # the connection is closed
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)


async def _writable(sock: socket.socket, exchange: Exchange) -> None:
    """Wait until a socket is writable, or the exchange is woken."""
    loop = asyncio.get_running_loop()
    loop.add_writer(sock, exchange.wake)
    try:
        await exchange.wait()
    finally:
        loop.remove_writer(sock)
