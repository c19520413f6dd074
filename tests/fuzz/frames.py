"""What must hold whatever frames a client sends.

Of an input's first byte the lowest bit says whether compression was agreed on, the others choose
where reads are cut. The rest are the frames. The `websockets` library must read the same in them.
"""

from tests.protocols.websocket import oracle

__all__ = ["check"]


async def check(data: bytes) -> None:
    """Fails for an input that breaks a rule."""
    choice, stream = data[:1] or b"\0", data[1:]
    oracle.check(stream, compressed=bool(choice[0] & 1), seed=choice[0] >> 1)
