"""The beginning of a line or of a section, kept until the rest of it arrives."""

import re

__all__ = ["Partial"]

_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")


class Partial:
    """Bytes that are kept until they contain a mark of at most four bytes.

    Each byte is searched once, however many reads bring them: a byte that arrives alone costs the
    same after 60 KiB as after the first line.
    """

    __slots__ = ("_seen", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._seen = 0  # bytes in which no mark begins

    def add(self, data: bytes) -> None:
        """Append the bytes of a read."""
        self._seen = max(len(self.data) - 3, 0)
        self.data += data

    def find(self, mark: bytes) -> int:
        """Return the position of a mark that the last read has completed, or -1."""
        return self.data.find(mark, self._seen)

    def has_bare(self) -> bool:
        """Return whether the last read has brought a CR without LF, or an LF without CR."""
        return _BARE.search(self.data, self._seen) is not None
