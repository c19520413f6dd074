"""Knowledge of the kernel about a peer: how much it has taken, whether it has left."""

import asyncio
import select
import socket
import struct
import sys
from typing import NamedTuple

__all__ = ["Delivery", "delivery", "has_ended"]

#: Of Linux's `struct tcp_info`: unacked (packets), bytes_acked, notsent_bytes.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


class Delivery(NamedTuple):
    """What has been delivered of the bytes that were written to a transport."""

    taken: int
    """Grows with each byte that the peer takes; only differences mean something."""
    left: int
    """0 when nothing is on its way any more."""


def delivery(transport: asyncio.Transport) -> Delivery:
    """Return what the kernel knows, on Linux and TCP, else what can be seen of the buffer.

    The buffer alone is empty long before a slow reader has read all, because the kernel has
    buffers of its own.
    """
    unsent = transport.get_write_buffer_size()
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
    """Tell whether the peer sends no more. Linux knows, even if there is unread data."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)  # and a reset, always
    return bool(poll.poll(0))
