"""Frames, compared with the `websockets` library in both directions."""

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tinyasgi.protocols.websocket import frames
from tinyasgi.protocols.websocket.frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    encode,
    encode_close,
    read_frames,
)

from .helpers import masked
from .oracle import check, cut, read

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100_000]

MESSAGES = st.one_of(st.binary(max_size=300), st.text(max_size=300))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_one_message(kind: int, size: int) -> None:
    payload = b"x" * size
    data = Frame(Opcode(kind), payload).serialize(mask=True)
    expected = payload.decode() if kind == TEXT else payload
    for reads in ([data], cut(data, size), [data[:1], data[1:]], [data[:-1], data[-1:]]):
        assert read(reads) == ([(kind, expected)] if reads else [], None)


@given(st.lists(st.tuples(MESSAGES, st.lists(st.integers(0, 300), max_size=3))), st.integers())
def test_fragments_with_pings_between_them(
    messages: list[tuple[str | bytes, list[int]]], seed: int
) -> None:
    stream, expected = b"", []
    for message, places in messages:
        payload = message.encode() if isinstance(message, str) else message
        bounds = [0, *sorted(min(place, len(payload)) for place in places), len(payload)]
        fragments = [payload[a:b] for a, b in pairwise(bounds)]
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        for number, fragment in enumerate(fragments):
            last = number == len(fragments) - 1
            stream += Frame(opcode, fragment, fin=last).serialize(mask=True)
            opcode = Opcode.CONT
            if not last:
                stream += Frame(Opcode.PING, b"%d" % number).serialize(mask=True)
                expected.append((PING, b"%d" % number))
        expected.append((TEXT if isinstance(message, str) else BINARY, message))
    assert read([stream]) == read(cut(stream, seed)) == (expected, None)


@st.composite
def streams(draw: Any) -> bytes:
    """Mostly valid frames."""
    stream = b""
    for _ in range(draw(st.integers(1, 6))):
        first = draw(
            st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A] * 3)
            | st.integers(0, 255)
        )
        payload = draw(
            st.binary(max_size=130) | st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"\x03", b""])
        )
        data = masked(first, payload)
        if draw(st.integers(0, 20)) == 0:
            place = draw(st.integers(0, len(data) - 1))
            data = data[:place] + draw(st.binary(max_size=2)) + data[place + 1 :]
        stream += data
    return stream


@given(streams(), st.booleans(), st.integers())
def test_any_stream_is_read_as_by_websockets(stream: bytes, compressed: bool, seed: int) -> None:
    check(stream, compressed, seed)


@pytest.mark.parametrize("size", SIZES)
def test_frame_heads(size: int) -> None:
    payload = b"p" * size
    assert encode(BINARY, payload) == Frame(Opcode.BINARY, payload).serialize(mask=False)


TEXTS = {
    "ascii": (b"hello", None),
    "two bytes": ("é".encode(), None),
    "four bytes": ("\U0001f600".encode(), None),
    "the last code point": ("\U0010ffff".encode(), None),
    "beyond the last code point": (b"\xf4\x90\x80\x80", 1007),
    "a surrogate": (b"\xed\xa0\x80", 1007),
    "overlong": (b"\xc0\xaf", 1007),
    "a continuation byte alone": (b"\x80", 1007),
    "truncated": (b"\xe2\x82", 1007),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    payload, fault = TEXTS[name]
    data = masked(0x81, payload)
    fragments = [masked(0x01, payload[:1]), masked(0x80, payload[1:])]
    for reads in ([data], cut(data, 1), fragments):
        said, code = read(reads)
        assert code == fault
        assert said == ([] if fault else [(TEXT, payload.decode())])


def test_text_fails_at_its_first_invalid_byte() -> None:
    data = masked(0x81, b"good \xf4\x90 and more that has not arrived")
    assert read([data[:13]]) == ([], 1007)
    assert read([masked(0x01, b"\xce\xba\xe1"), masked(0x00, b"\xff")]) == ([], 1007)


FAULTS = {
    "no mask": (encode(TEXT, b"hello"), 1002),
    "reserved bit 1": (masked(0xC1, b"x"), 1002),
    "reserved bit 2": (masked(0xA1, b"x"), 1002),
    "reserved bit 3": (masked(0x91, b"x"), 1002),
    "opcode 3": (masked(0x83), 1002),
    "opcode 11": (masked(0x8B), 1002),
    "control frame in fragments": (masked(0x09), 1002),
    "long control frame": (masked(0x89, b"x" * 126), 1002),
    "continuation of nothing": (masked(0x80, b"x"), 1002),
    "message within another": (masked(0x01, b"x") + masked(0x81, b"y"), 1002),
    "length in two bytes": (masked(0x82, b"x", length=b"\xfe\x00\x01"), 1002),
    "length in eight bytes": (masked(0x82, b"x", length=b"\xff" + bytes(7) + b"\x01"), 1002),
    "length of 64 bits": (masked(0x82, b"", length=b"\xff\x80" + bytes(7)), 1002),
    "Close with one byte": (masked(0x88, b"\x03"), 1002),
    "Close with a bad reason": (masked(0x88, b"\x03\xe8\xff"), 1007),
    **{
        f"Close with {code}": (masked(0x88, code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("name", FAULTS)
def test_error(name: str) -> None:
    data, code = FAULTS[name]
    assert read([data]) == read(cut(data, 2)) == ([], code)
    good = masked(0x82, b"good")
    assert read([good + data]) == ([(BINARY, b"good")], code)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close(code: int) -> None:
    data = masked(0x88, code.to_bytes(2, "big") + "bye é".encode())
    assert read([data]) == read(cut(data, 3)) == ([(CLOSE, (code, "bye é"))], None)
    assert encode_close(code, "bye é")[2:] == code.to_bytes(2, "big") + "bye é".encode()


def test_close_without_a_code() -> None:
    assert read([masked(0x88)]) == ([(CLOSE, (1005, ""))], None)
    assert encode_close(1005) == b"\x88\x00"


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2000, 5000])
def test_invalid_close_code(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


def test_long_close_reason() -> None:
    assert len(encode_close(1000, "é" * 61)) == 2 + 2 + 122
    with pytest.raises(ValueError, match="124 bytes"):
        encode_close(1000, "é" * 62)


def test_limit() -> None:
    assert read([masked(0x82, b"x" * 10)], limit=10) == ([(BINARY, b"x" * 10)], None)
    head = masked(0x82, b"x" * 11)[:6]
    assert read([head], limit=10) == ([], 1009)  # before the payload has arrived
    fragments = [masked(0x02, b"x" * 6), masked(0x89, b"ping"), masked(0x80, b"x" * 5)]
    assert read(fragments, limit=10) == ([(PING, b"ping")], 1009)
    assert read([masked(0x02, b"x" * 10), masked(0x89, b"ping"), masked(0x80)], limit=10) == (
        [(PING, b"ping"), (BINARY, b"x" * 10)],
        None,
    )


@given(st.binary(max_size=500), st.binary(min_size=4, max_size=4))
def test_unmasking_in_python_and_in_c(data: bytes, key: bytes) -> None:
    assert frames.unmask is not frames._xor
    assert frames._xor(data, key) == frames.unmask(data, key)


def kept(reader: frames.Reader) -> int:
    """Return the number of bytes that a reader keeps between two reads."""
    values = reader.gi_frame.f_locals.values()
    return sum(len(value) for value in values if isinstance(value, bytes))


def feed(reader: frames.Reader, data: bytes) -> int:
    """Read all frames of `data`; return their number."""
    count, frame = 0, reader.send(data)
    while frame is not None:
        count, frame = count + 1, reader.send(b"") if frame[2] else None
    return count


def test_a_large_message_is_freed() -> None:
    reader = read_frames(0)
    next(reader)
    feed(reader, masked(0x82, bytes(100_000)))
    assert kept(reader) < 100


@pytest.mark.parametrize("place", [0, 1, 2, 5, 8, 9, 14])
def test_earlier_reads_are_freed_if_each_ends_within_a_frame(place: int) -> None:
    """Within the head, the extended length, the masking key or a control frame."""
    frame = masked(0x89, b"ping") if place < 10 else masked(0x82, bytes(200))
    stream = frame * 100
    reader = read_frames(0)
    next(reader)
    assert feed(reader, frame[:place]) == 0
    for _ in range(10):
        assert feed(reader, stream[place:] + stream[:place]) == 100
        assert kept(reader) < 300


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_small_parts_need_no_more_memory_than_their_message(first: int) -> None:
    """For many frames and for many reads."""
    fragments = masked(first, b"xy") + masked(0, b"xy") * 20_000
    message = masked(0x80 | first, bytes(40_000))
    for reads in ([fragments], [message[i : i + 2] for i in range(0, len(message) - 2, 2)]):
        reader = read_frames(0)
        next(reader)
        tracemalloc.start()
        for data in reads:
            assert feed(reader, data) == 0
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 150_000


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_number_of_frames_of_a_message_is_limited(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAMES", 1000)
    fragments = masked(0x02, payload) + masked(0x00, payload) * 998
    # Pings do not count. The count begins again for each message.
    said, fault = read([fragments, masked(0x89) * 1000, masked(0x80, b"end")] * 2)
    assert fault is None
    assert [opcode for opcode, _ in said] == ([PING] * 1000 + [BINARY]) * 2
    assert read([fragments, masked(0x00), masked(0x80)]) == ([], 1008)
