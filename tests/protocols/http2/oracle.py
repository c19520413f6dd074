"""Comparison of our HPACK decoder with the `hpack` library."""

from hpack import Decoder as TheirDecoder
from hpack import HPACKError as TheirError

from tinyasgi.protocols.http2.hpack import TABLE_SIZE, Decoder, HPACKError

__all__ = ["check", "split"]

#: Errors of ours that `hpack` does not detect.
STRICT = ("integer too long",)
#: Errors of `hpack` about its own limits.
LIMITS = ("exceeded max allowable",)


def split(data: bytes) -> list[bytes]:
    """Split data into blocks. The first byte of each one is its size."""
    blocks = []
    while data:
        size, data = data[0], data[1:]
        blocks.append(data[:size])
        data = data[size:]
    return blocks


def check(blocks: list[bytes]) -> None:
    """Decode the blocks of a connection with both, until one is invalid."""
    ours, theirs = Decoder(10_000, 1 << 24), TheirDecoder(1 << 24)
    theirs.max_allowed_table_size = TABLE_SIZE
    for block in blocks:
        try:
            expected = [
                (bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)
            ]
        except TheirError as error:
            expected, reason = None, str(error)
        try:
            fields, complete = ours.decode(block)
        except HPACKError as error:
            assert expected is None or str(error) in STRICT, error
            return
        assert expected is not None, reason
        assert complete
        assert fields == expected
        assert ours.version >= 0
