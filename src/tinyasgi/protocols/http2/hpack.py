"""HPACK (RFC 7541): decoder of header blocks, and literals for blocks that use no table; no I/O."""

from ...typing import Headers
from . import huffman

#: Maximum size of the dynamic table of the client, in bytes (RFC 9113 §6.5.2).
TABLE_SIZE = 4096
#: Size of a field in addition to its name and value (RFC 7541 §4.1, RFC 9113 §6.5.2).
FIELD_OVERHEAD = 32
#: First byte of a block whose encoder uses no dynamic table: its size is 0 (RFC 7541 §6.3).
NO_TABLE = b"\x20"

_NAMES = (
    "access-control-allow-origin age allow authorization cache-control content-disposition "
    "content-encoding content-language content-length content-location content-range content-type "
    "cookie date etag expect expires from host if-match if-modified-since if-none-match if-range "
    "if-unmodified-since last-modified link location max-forwards proxy-authenticate "
    "proxy-authorization range referer refresh retry-after server set-cookie "
    "strict-transport-security transfer-encoding user-agent vary via www-authenticate"
)
#: The static table (RFC 7541 appendix A). The first index is 1.
STATIC_TABLE: tuple[tuple[bytes, bytes], ...] = (
    (b"", b""),
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *[(b":status", status) for status in b"200 204 206 304 400 404 500".split()],
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    *[(name, b"") for name in _NAMES.encode().split()],
)
_STATIC_SIZE = len(STATIC_TABLE)
_INDEXES = {name: index for index, (name, _) in reversed([*enumerate(STATIC_TABLE)]) if index}
_FIELDS = {field: index for index, field in enumerate(STATIC_TABLE) if field[1]}


class HPACKError(Exception):
    """A header block that can't be decoded: a connection error (RFC 9113 §4.3)."""


def read_integer(data: bytes, position: int, bits: int) -> tuple[int, int]:
    """Return an integer with a prefix of `bits` bits, and the position after it (RFC 7541 §5.1).

    Raises HPACKError if it is longer than five bytes, and IndexError if it is incomplete.
    """
    mask = (1 << bits) - 1
    value = data[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, 28, 7):
        byte = data[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise HPACKError("integer too long")


def read_string(data: bytes, position: int) -> tuple[bytes, int]:
    """Return a string, and the position after it (RFC 7541 §5.2).

    Raises HPACKError if it is invalid, and IndexError if it is incomplete.
    """
    is_huffman = data[position] & 0x80
    length, position = read_integer(data, position, 7)
    end = position + length
    string = data[position:end]
    if len(string) < length:
        raise IndexError
    if is_huffman:
        try:
            string = huffman.decoded[string]
        except ValueError as error:
            raise HPACKError(str(error)) from None
    return string, end


class TooManyFields(HPACKError):
    """A header block with so many fields that it is not decoded to its end."""


#: A block with more than this many times the allowed number of fields is an attack: one byte can
#: encode a field (CVE-2026-49975).
_MAX_EXCESS = 100


class Decoder:
    """Decoder of the header blocks of one connection.

    max_fields: maximum number of fields in a block. max_size: maximum size of their names and
    values, with FIELD_OVERHEAD for each, in bytes.
    """

    __slots__ = ("_entries", "_limit", "_max_fields", "_max_size", "_size", "version")

    def __init__(self, max_fields: int, max_size: int) -> None:
        self._max_fields = max_fields
        self._max_size = max_size
        #: The dynamic table, oldest entry first.
        self._entries: Headers = []
        self._size = 0
        self._limit = TABLE_SIZE
        #: Changes whenever the dynamic table changes. A block has the same meaning until then.
        self.version = 0

    def decode(self, block: bytes) -> tuple[Headers, bool]:
        """Return the fields of a block, and whether these are all. Raises HPACKError.

        Fields beyond the limits are dropped, but they still change the dynamic table.
        """
        fields: Headers = []
        count = size = 0
        position = self._resize(block)
        try:
            while position < len(block):
                byte = block[position]
                if byte >= 0x80:
                    index, position = read_integer(block, position, 7)
                    field = self._look_up(index)
                else:
                    field, position = self._read_literal(block, position, byte)
                count += 1
                size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
                if count <= self._max_fields and size <= self._max_size:
                    fields.append(field)
                elif count > self._max_fields * _MAX_EXCESS:
                    raise TooManyFields(f"header block with more than {count - 1} fields")
        except IndexError:
            raise HPACKError("incomplete header block, or an index beyond the table") from None
        return fields, len(fields) == count

    def _look_up(self, index: int) -> tuple[bytes, bytes]:
        """Return an entry of the tables. Raises HPACKError or IndexError."""
        if index >= _STATIC_SIZE:
            return self._entries[_STATIC_SIZE - 1 - index]
        if not index:
            raise HPACKError("index 0")
        return STATIC_TABLE[index]

    def _read_literal(
        self, block: bytes, position: int, byte: int
    ) -> tuple[tuple[bytes, bytes], int]:
        """Return a literal field, and the position after it (RFC 7541 §6.2)."""
        if 0x20 <= byte < 0x40:
            raise HPACKError("size update after a field")
        index, position = read_integer(block, position, 6 if byte >= 0x40 else 4)
        if index:
            name = self._look_up(index)[0]
        else:
            name, position = read_string(block, position)
        value, position = read_string(block, position)
        field = name, value
        if byte >= 0x40:
            self._add(field)
        return field, position

    def _resize(self, block: bytes) -> int:
        """Apply the size updates at the beginning of a block (RFC 7541 §4.2 and §6.3)."""
        position = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            try:
                self._limit, position = read_integer(block, position, 5)
            except IndexError:
                raise HPACKError("incomplete size update") from None
            if self._limit > TABLE_SIZE:
                raise HPACKError("table size above the limit")
            self._evict()
        return position

    def _add(self, field: tuple[bytes, bytes]) -> None:
        """Add an entry to the dynamic table (RFC 7541 §4.4)."""
        self._entries.append(field)
        self._size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        self._evict()

    def _evict(self) -> None:
        self.version += 1
        while self._size > self._limit:
            name, value = self._entries.pop(0)
            self._size -= len(name) + len(value) + FIELD_OVERHEAD


def encode_integer(value: int, bits: int, first: int) -> bytes:
    """Encode an integer with a prefix of `bits` bits. first: the other bits of the first byte."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((first | value,))
    encoded = bytearray((first | mask,))
    value -= mask
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_field(name: bytes, value: bytes) -> bytes:
    """Encode a field without adding it to the dynamic table (RFC 7541 §6.1 and §6.2.2).

    So all connections can share the encoded bytes.
    """
    if index := _FIELDS.get((name, value)):
        return encode_integer(index, 7, 0x80)
    index = _INDEXES.get(name, 0)
    literal = encode_integer(index, 4, 0)
    if not index:
        literal += encode_integer(len(name), 7, 0) + name
    return literal + encode_integer(len(value), 7, 0) + value
