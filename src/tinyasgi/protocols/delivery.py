"""Delivery of written data, and the end of the peer's data, as the kernel knows them."""

import asyncio
import select
import socket
import struct
import sys
from typing import NamedTuple

#: Fields of Linux's `struct tcp_info`: unacked (packets), bytes_acked, notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class Delivery(NamedTuple):
    """Progress of the delivery of data that was written to a transport."""

    taken: int
    """Grows with each byte that the peer acknowledges; only differences have a meaning."""
    left: int
    """Bytes that are not acknowledged yet."""


def delivery(transport: asyncio.Transport, more: int = 0) -> Delivery:
    """Return the figures of the kernel on Linux with TCP, otherwise those of the write buffer.

    more: bytes that will be written after those of the transport.

    The write buffer is empty long before a slow peer has read everything, because the kernel
    buffers data as well.
    """
    unsent = transport.get_write_buffer_size() + more
    sock = transport.get_extra_info("socket")
    if sys.platform == "linux" and sock is not None:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacked, acked, unsent_by_kernel = _TCP_INFO.unpack(info)
        except (OSError, struct.error):  # a unix socket, or closed
            pass
        else:
            return Delivery(acked, unsent + unacked + unsent_by_kernel)
    return Delivery(-unsent, unsent)


def has_ended(transport: asyncio.Transport) -> bool:
    """Return whether the peer has closed its sending side, even if there is unread data (Linux)."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)  # poll always reports a reset
    return bool(poll.poll(0))
