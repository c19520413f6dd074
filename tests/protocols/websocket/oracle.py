"""Comparison of our frame reader with the `websockets` library."""

import random
from collections.abc import Iterable
from typing import Any

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side

from tinyasgi.protocols.websocket.deflate import Deflate, negotiate
from tinyasgi.protocols.websocket.frames import (
    BINARY,
    CLOSE,
    COMPRESSED,
    TEXT,
    ProtocolError,
    encode,
    encode_close,
    read_frames,
)

__all__ = ["check", "cut", "read"]

#: Errors that `websockets` detects later, or not at all.
LENIENT = (
    "invalid UTF-8",
    "payload length not in its shortest",
    "control frame with more than",
    "data after the end of a compressed message",
)


def agreed() -> Deflate:
    """Return compression negotiated without parameters."""
    deflate = negotiate("permessage-deflate")
    assert deflate is not None
    return deflate


def cut(data: bytes, seed: int) -> list[bytes]:
    """Split data into parts of random sizes."""
    chance = random.Random(seed)
    pieces = []
    while data:
        size = chance.choice((1, 2, 3, 7, 50, 1000))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def read(reads: Iterable[bytes], limit: int = 0) -> tuple[list[Any], int | None]:
    """Return the frames that our reader returns, and the close code of an error or None."""
    said, fault = we_read(reads, limit)
    return said, fault and fault.code


def we_read(
    reads: Iterable[bytes], limit: int = 0, compressed: bool = False
) -> tuple[list[Any], ProtocolError | None]:
    said: list[Any] = []
    reader = read_frames(limit, agreed().inflater if compressed else None)
    next(reader)
    try:
        for data in reads:
            frame = reader.send(data)
            while frame is not None:
                opcode, what, more = frame
                said.append((opcode, what))
                frame = reader.send(b"")
                assert more or frame is None  # otherwise the call was unnecessary
    except ProtocolError as fault:
        return said, fault
    return said, None


def others_read(stream: bytes, side: Side, compressed: bool) -> tuple[list[Any], bool]:
    """Return the frames that `websockets` reads before a Close frame, and whether it fails."""
    protocol = Protocol(side, state=OPEN, max_size=None)
    if compressed:
        window = agreed().client_window if side is SERVER else agreed().server_window
        protocol.extensions = [PerMessageDeflate(True, True, window, window)]
    protocol.receive_data(stream)
    said: list[Any] = []
    parts: list[bytes] = []
    kind = BINARY
    for frame in protocol.events_received():
        if frame.opcode is Opcode.CLOSE:
            break
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            said.append((int(frame.opcode), bytes(frame.data)))
            continue
        kind = kind if frame.opcode is Opcode.CONT else int(frame.opcode)
        parts.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(parts)
            parts.clear()
            try:
                said.append((kind, message.decode() if kind == TEXT else message))
            except UnicodeDecodeError:
                return said, True
    return said, protocol.parser_exc is not None


def check(stream: bytes, compressed: bool, seed: int) -> None:
    """Check that our reader and `websockets` read the same, however the stream is split.

    Check also that `websockets` reads our frames.
    """
    said, fault = we_read([stream], compressed=compressed)
    again, same = we_read(cut(stream, seed), compressed=compressed)
    assert again == said
    if compressed:  # invalid UTF-8 may precede an error of inflation
        assert (same is None) == (fault is None)
    else:
        assert str(same) == str(fault)
    ends = [number for number, (opcode, _) in enumerate(said) if opcode == CLOSE]
    theirs, faulty = others_read(stream, SERVER, compressed)
    if ends:  # frames after a Close frame are ignored
        said = said[: ends[0]]
        theirs = theirs[: len(said)]
    elif fault is None:
        assert not faulty
    elif fault.reason.startswith(LENIENT):
        theirs = theirs[: len(said)]
    assert theirs == said  # our reader detects an error before the end of the frame
    stream = b""
    for opcode, what in said:
        payload = what.encode() if opcode == TEXT else what
        if compressed and opcode in (TEXT, BINARY):
            stream += encode(opcode, agreed().compress(payload), COMPRESSED)
        else:
            stream += encode(opcode, payload)
    assert others_read(stream + encode_close(1000), CLIENT, compressed) == (said, False)
