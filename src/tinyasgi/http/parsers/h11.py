"""Headers by h11, pure Python: slower, and there wherever Python is."""

import re

import h11

from ...typing import Headers
from . import START_LINE, split_headers

__all__ = ["H11Parser"]

# What h11, or the trick below, lets pass: a bare CR or LF, folded lines, empty names, control
# bytes (RFC 9112 §2.2, §5, RFC 9110 §5.5).
_TOLERATED = re.compile(rb"\r(?!\n)|(?<!\r)\n|(?:\A|\n)[ \t:]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class H11Parser:
    """A fresh `h11.Connection` parses each head."""

    def parse_headers(self, head: bytes, start: int) -> Headers:
        section = head[start:]
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
        # An "x" before each name keeps h11 from judging Host and the framing headers: that is for
        # `request`, alike for every parser.
        lines = section[:-2].splitlines(keepends=True)
        connection.receive_data(START_LINE + b"".join([b"x" + line for line in lines]) + b"\r\n")
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError:
            return split_headers(section)
        if not isinstance(request, h11.Request) or _TOLERATED.search(section):
            return split_headers(section)
        return [(bytes(name[1:]), bytes(value)) for name, value in request.headers]
