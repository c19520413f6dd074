"""Properties of WebSocket frames for any bytes of a client.

The lowest bit of the first byte of an input selects compression. The other bits select the cuts.
The other bytes are the frames. The `websockets` library must read the same messages.
"""

from tests.protocols.websocket import oracle

__all__ = ["check"]


async def check(data: bytes) -> None:
    """Check an input."""
    choice, stream = data[:1] or b"\0", data[1:]
    oracle.check(stream, compressed=bool(choice[0] & 1), seed=choice[0] >> 1)
