"""permessage-deflate, with the `websockets` library as the client."""

import os
import random
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension

from tinyasgi.protocols.websocket import deflate
from tinyasgi.protocols.websocket.deflate import TAIL, Deflate, negotiate
from tinyasgi.protocols.websocket.frames import (
    BINARY,
    COMPRESSED,
    TEXT,
    ProtocolError,
    encode,
    read_frames,
)

from .helpers import masked
from .oracle import cut

OFFER = "permessage-deflate; client_max_window_bits"


def parameters(answer: bytes) -> dict[str, str | None]:
    [(name, pairs)] = parse_extension(answer.decode())
    assert name == "permessage-deflate"
    return dict(pairs)


def agreed(offer: str = OFFER) -> Deflate:
    found = negotiate(offer)
    assert found is not None
    return found


NO_CONTEXT = {"server_no_context_takeover": None, "client_no_context_takeover": None}


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", {"server_max_window_bits": "12"}),
        (OFFER, {"server_max_window_bits": "12", "client_max_window_bits": "12"}),
        (OFFER + "=15", {"server_max_window_bits": "12", "client_max_window_bits": "12"}),
        (OFFER + "=9", {"server_max_window_bits": "12", "client_max_window_bits": "9"}),
        (OFFER + '="10"', {"server_max_window_bits": "12", "client_max_window_bits": "10"}),
        ("permessage-deflate; server_max_window_bits=10", {"server_max_window_bits": "10"}),
        ("permessage-deflate;server_max_window_bits=15", {"server_max_window_bits": "12"}),
        ("permessage-deflate; server_no_context_takeover", {"server_max_window_bits": "12"}),
        ("permessage-deflate; client_no_context_takeover", {"server_max_window_bits": "12"}),
        ("bzip, permessage-deflate", {"server_max_window_bits": "12"}),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            {"server_max_window_bits": "12"},
        ),
    ],
)
def test_accepted_offer(offer: str, answer: dict[str, str]) -> None:
    assert parameters(agreed(offer).header) == NO_CONTEXT | answer


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "bzip",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=8",  # not supported by zlib
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; client_max_window_bits=10; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; level=9",
        "permessage-deflate; =9",
        "permessage-deflate;;",
    ],
)
def test_rejected_offer(offer: str) -> None:
    assert negotiate(offer) is None


def other_side(offer: ClientPerMessageDeflateFactory) -> tuple[Deflate, Any]:
    """Negotiate between `websockets` and our server."""
    ours = agreed(build_extension([("permessage-deflate", offer.get_request_params())]))
    return ours, offer.process_response_params(list(parameters(ours.header).items()), [])


OFFERS = st.builds(
    ClientPerMessageDeflateFactory,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.none() | st.integers(9, 15),
    client_max_window_bits=st.none() | st.just(True) | st.integers(9, 15),
)
TEXTS = st.text(max_size=400) | st.sampled_from(["{'name': 'value'}" * 5000, "x" * 100_000])


@given(OFFERS, st.lists(TEXTS, max_size=4), st.integers())
def test_messages_in_both_directions(
    offer: ClientPerMessageDeflateFactory, texts: list[str], seed: int
) -> None:
    ours, theirs = other_side(offer)
    reader = read_frames(0, ours.inflater)
    next(reader)
    for text in texts:
        payload = text.encode()
        frame = Frame(Opcode.TEXT, ours.compress(payload), rsv1=True)
        assert bytes(theirs.decode(frame).data) == payload
        data = Frame(Opcode.TEXT, payload).serialize(mask=True, extensions=[theirs])
        *others, last = map(reader.send, cut(data, seed))
        assert set(others) <= {None}
        assert last is not None
        assert last[:2] == (TEXT, text)


def test_compressed_fragments() -> None:
    ours = agreed()
    payload = ours.compress(b"hello " * 1000)
    reader = read_frames(0, ours.inflater)
    next(reader)
    assert reader.send(masked(0x41, payload[:5])) is None
    assert reader.send(masked(0x00, payload[5:9])) is None
    assert reader.send(masked(0x80, payload[9:])) == (TEXT, "hello " * 1000, True)
    assert reader.send(masked(0x82, b"not compressed")) == (BINARY, b"not compressed", False)


def error_code(*reads: bytes, limit: int = 0) -> int:
    reader = read_frames(limit, agreed().inflater)
    next(reader)
    with pytest.raises(ProtocolError) as fault:
        for data in reads:
            reader.send(data)
    return fault.value.code


def test_compression_bomb_is_not_inflated() -> None:
    bomb = agreed().compress(bytes(10_000_000))
    assert error_code(masked(0xC2, bomb), limit=9_999_999) == 1009
    tracemalloc.start()
    assert error_code(masked(0xC2, bomb), limit=100_000) == 1009
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert error_code(masked(0x42, bomb[:5000]), masked(0x80, bomb[5000:]), limit=100_000) == 1009
    reader = read_frames(10_000_000, agreed().inflater)
    next(reader)
    assert reader.send(masked(0xC2, bomb)) == (BINARY, bytes(10_000_000), True)


def test_invalid_deflate_stream() -> None:
    assert error_code(masked(0xC2, b"\xff" * 20)) == 1007
    assert (
        error_code(masked(0xC1, agreed().compress(b"\xff"))) == 1007
    )  # valid, but the text is not UTF-8


def test_data_after_the_final_block() -> None:
    compressor = zlib.compressobj(wbits=-12)
    finished = (
        compressor.compress(b"hello") + compressor.flush()
    )  # a final block: RFC 7692 §7.2.3.5
    reader = read_frames(0, agreed().inflater)
    next(reader)
    assert reader.send(masked(0xC2, finished + b"\x00")) == (BINARY, b"hello", False)
    assert error_code(masked(0xC2, finished + os.urandom(10))) == 1007


def test_reserved_bit_only_on_the_first_frame_of_a_message() -> None:
    payload = agreed().compress(b"hello")
    assert error_code(masked(0x41, payload[:2]), masked(0xC0, payload[2:])) == 1002
    assert error_code(masked(0xC9, b"")) == 1002


def test_compressed_frame() -> None:
    payload = agreed().compress(b"hello" * 100)
    assert encode(BINARY, payload, COMPRESSED)[:2] == bytes([0xC2, len(payload)])
    stream = zlib.decompressobj(wbits=-deflate.WINDOW_BITS)
    assert stream.decompress(payload + TAIL) == b"hello" * 100


def test_no_context_between_messages() -> None:
    message = random.Random(0).randbytes(300)
    ours = agreed()
    assert ours.compress(message) == ours.compress(message)
