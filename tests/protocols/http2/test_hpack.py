"""HPACK: the examples of RFC 7541 appendix C, and the tables."""

import random

import pytest
from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from tinyasgi.protocols.http2 import huffman
from tinyasgi.protocols.http2.hpack import (
    STATIC_TABLE,
    TABLE_SIZE,
    Decoder,
    HPACKError,
    TooManyFields,
    encode_field,
    encode_integer,
    read_integer,
)

from . import oracle

FIRST = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"www.example.com"),
]
SECOND = [*FIRST, (b"cache-control", b"no-cache")]
THIRD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
#: Sections C.3 and C.4: three requests on one connection, without and with the Huffman code.
PLAIN = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
HUFFMAN = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]


def decoder() -> Decoder:
    return Decoder(100, 1 << 16)


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN], ids=["C.3", "C.4"])
def test_requests_of_appendix_c(blocks: list[str]) -> None:
    ours = decoder()
    for block, fields in zip(blocks, [FIRST, SECOND, THIRD], strict=True):
        assert ours.decode(bytes.fromhex(block)) == (fields, True)


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header")),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path")),
        ("100870617373776f726406736563726574", (b"password", b"secret")),
        ("82", (b":method", b"GET")),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_fields_of_appendix_c(block: str, field: tuple[bytes, bytes]) -> None:
    assert decoder().decode(bytes.fromhex(block)) == ([field], True)


@pytest.mark.parametrize(
    ("value", "bits", "encoded"),
    [(10, 5, b"\x0a"), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a"), (31, 5, b"\x1f\0")],
)
def test_integers_of_appendix_c(value: int, bits: int, encoded: bytes) -> None:
    assert encode_integer(value, bits, 0) == encoded
    assert read_integer(encoded, 0, bits) == (value, len(encoded))


def test_static_table() -> None:
    assert STATIC_TABLE[1:] == HeaderTable.STATIC_TABLE


def test_huffman_code() -> None:
    encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
    every = bytes(range(256))
    for data in (every, every[::-1], b"", *(bytes((byte,)) for byte in every)):
        assert huffman.decode(encoder.encode(data)) == data


def test_eviction() -> None:
    ours = decoder()
    ours.decode(b"\x3f\x31" + b"\x40\1a\1b\x40\1c\1d")  # room for two entries
    assert ours.decode(b"\xbe\xbf") == ([(b"c", b"d"), (b"a", b"b")], True)
    ours.decode(b"\x40\1e\1f")
    assert ours.decode(b"\xbe\xbf") == ([(b"e", b"f"), (b"c", b"d")], True)
    ours.decode(b"\x40\1g\x32" + b"x" * 50)  # larger than the table, which is empty then
    with pytest.raises(HPACKError):
        ours.decode(b"\xbe")


def test_version_changes_with_the_table() -> None:
    ours = decoder()
    ours.decode(b"\x82\0\1a\1b\x10\1c\1d")
    before = ours.version
    ours.decode(b"\x40\1a\1b")
    assert ours.version != before


def test_limits() -> None:
    ours = Decoder(2, 200)
    assert ours.decode(b"\x82\x84") == ([(b":method", b"GET"), (b":path", b"/")], True)
    assert ours.decode(b"\x82\x84\x86") == ([(b":method", b"GET"), (b":path", b"/")], False)
    fields, complete = ours.decode(b"\x40\1a\x7f\x2b" + b"x" * 170)
    assert not complete
    assert not fields
    assert ours.decode(b"\x40\1a\1b\xbe")[1]
    with pytest.raises(TooManyFields):
        ours.decode(b"\x82" * 201)


def test_encoded_fields_can_be_decoded() -> None:
    fields = [
        (b":status", b"200"),
        (b":status", b"201"),
        (b"content-type", b"text/plain"),
        (b"x-name", b""),
        (b"set-cookie", b"x" * 1000),
        (b"www-authenticate", b"Basic"),
    ]
    ours = decoder()
    before = ours.version
    assert ours.decode(b"".join(encode_field(*field) for field in fields)) == (fields, True)
    assert ours.version == before


def test_random_blocks() -> None:
    """Valid blocks, and blocks with a random fault."""
    chance = random.Random(7541)
    for _ in range(3000):
        encoder, blocks = Encoder(), []
        for _ in range(chance.randint(1, 4)):
            fields = [
                (bytes(chance.choices(b"abc-:", k=chance.randint(0, 9))), chance.randbytes(9))
                for _ in range(chance.randint(0, 5))
            ]
            block = bytearray(encoder.encode(fields, huffman=chance.random() < 0.7))
            if block and chance.random() < 0.3:
                block[chance.randrange(len(block))] = chance.randrange(256)
            blocks.append(bytes(block))
        oracle.check(blocks)


@pytest.mark.parametrize("bits", [4, 5, 6, 7])
def test_integers(bits: int) -> None:
    for value in (*range(700), 16_383, 16_384, 65_535):
        encoded = encode_integer(value, bits, 0)
        assert read_integer(encoded + b"\xff", 0, bits) == (value, len(encoded))
        first = 0xFF ^ ((1 << bits) - 1)
        assert encode_integer(value, bits, first) == bytes((encoded[0] | first,)) + encoded[1:]


@pytest.mark.parametrize("excess", [0, 1])
def test_largest_entry(excess: int) -> None:
    """An entry takes 32 bytes in addition to its name and value (RFC 7541 §4.1)."""
    ours = decoder()
    value = b"v" * (TABLE_SIZE - 32 - 1 + excess)
    literal = b"\x40\1n" + encode_integer(len(value), 7, 0) + value
    assert ours.decode(literal) == ([(b"n", value)], True)
    if excess:
        with pytest.raises(HPACKError):
            ours.decode(b"\xbe")
    else:
        assert ours.decode(b"\xbe") == ([(b"n", value)], True)


@pytest.mark.parametrize(("room", "complete"), [(0, True), (-1, False)])
def test_largest_section(room: int, complete: bool) -> None:
    """Fields of any length have the same overhead in a header section (RFC 9113 §6.5.2)."""
    ours = Decoder(100, 2 * (32 + 3) + room)
    fields, is_complete = ours.decode(b"\0\1a\2bb" * 2)
    assert (len(fields), is_complete) == (1 + complete, complete)


def test_longest_integer() -> None:
    """Four bytes after the prefix are enough for any length of ours."""
    assert read_integer(b"\x7f\x80\x80\x80\x01", 0, 7) == (127 + (1 << 21), 5)
    with pytest.raises(HPACKError):
        read_integer(b"\x7f\x80\x80\x80\x80\x01", 0, 7)
