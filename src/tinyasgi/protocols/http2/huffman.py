"""Decoder of the Huffman code of HPACK (RFC 7541 §5.2 and appendix B)."""

from ...http.memo import Memo

# The code is canonical: symbols of the same length have consecutive codes, in this order.
_SYMBOLS: dict[int, bytes] = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe"
    b"\xc4\xc6\xe4\xe8\xe9",
    23: b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf"
    b"\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a"
    b"\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    30: b"\n\r\x16",  # and EOS, whose code is 30 ones
}


def _make_codes() -> dict[str, bytes]:
    """Return the symbol of each code. Codes are strings of `0` and `1`."""
    codes = {}
    code = previous = 0
    for length, symbols in _SYMBOLS.items():
        code <<= length - previous
        previous = length
        for symbol in symbols:
            codes[f"{code:0{length}b}"] = bytes((symbol,))
            code += 1
    return codes


def _make_steps() -> tuple[list[tuple[int, bytes]], frozenset[int]]:
    """Return the state machine: the steps of each state, and the states of a valid end.

    A state stands for the bits after the last symbol. It is the offset of its steps, one for each
    value of the next four bits: the next state, and a symbol or nothing. The last state follows the
    forbidden EOS; nothing follows it.
    """
    codes = _make_codes()
    prefixes = sorted({code[:length] for code in codes for length in range(len(code))}, key=len)
    states = {bits: 16 * number for number, bits in enumerate(prefixes)}
    invalid = 16 * len(prefixes)
    steps = []
    for prefix in prefixes:
        for value in range(16):
            bits, symbol = prefix, b""
            for bit in f"{value:04b}":
                bits += bit
                if bits in codes:  # at most once: the shortest code has five bits
                    bits, symbol = "", codes[bits]
            steps.append((states.get(bits, invalid), symbol))
    steps += [(invalid, b"")] * 16
    # Padding consists of the first bits of EOS, less than eight (RFC 7541 §5.2).
    return steps, frozenset(states["1" * length] for length in range(8))


_steps, _ends = _make_steps()


def decode(data: bytes) -> bytes:
    """Decode a string. Raises ValueError if its padding is invalid or it contains EOS."""
    steps = _steps
    symbols = bytearray()
    state = 0
    for byte in data:
        state, symbol = steps[state + (byte >> 4)]
        symbols += symbol
        state, symbol = steps[state + (byte & 15)]
        symbols += symbol
    if state not in _ends:
        raise ValueError("invalid Huffman code")
    return bytes(symbols)


#: Decoded strings. Clients repeat paths and values.
decoded = Memo(decode, 512, longest=64)
