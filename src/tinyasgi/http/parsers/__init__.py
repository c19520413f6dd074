"""Adapters of the parser libraries, which parse the headers of a complete request head.

The connection finds the end of a head. `request` parses the request line and the framing headers,
whichever library is used. A parser keeps no state between two heads, so all connections of an event
loop share one.
"""

import importlib.util
import re
from typing import Protocol

from ...typing import Headers

#: RFC 9110 §5.6.2.
TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
#: Start line for a library that needs one before the headers.
START_LINE = b"GET / HTTP/1.0\r\n"

_CONTROL_BYTE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadRequest(Exception):
    """A request that the server refuses. The connection sends an error response and closes.

    status: status code of the response (RFC 9110 §15.5). reason: one line for the client and for
    the log; bytes of the request are escaped in it.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class Parser(Protocol):
    """Parser of headers. `create_parser` returns an instance."""

    def parse_headers(self, head: bytes, start: int) -> Headers:
        """Return the headers with lower-case names and stripped values (RFC 9112 §5).

        head: start line and header lines, with the empty line at the end. start: offset of the
        first header line. Raises BadRequest.
        """


def create_parser(name: str) -> Parser:
    """Return the parser `httptools`, `h11` or `auto` (httptools if it is installed).

    Raises ImportError if the library is not installed.
    """
    if name == "auto":
        name = "httptools" if importlib.util.find_spec("httptools") else "h11"
    if name == "httptools":
        from .httptools import HttptoolsParser

        return HttptoolsParser()
    from .h11 import H11Parser

    return H11Parser()


def split_headers(section: bytes) -> Headers:
    """Parse a header section that a library has rejected or does not parse strictly (RFC 9112 §5).

    section: header lines, with the empty line at the end. Raises BadRequest if the syntax is
    invalid. If the syntax is valid, the library has rejected the meaning of a header. `request`
    validates the meaning.
    """
    headers = []
    for line in section.split(b"\r\n")[:-2]:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            reason = "obsolete line folding in a header"
        elif not colon:
            reason = "header without a colon"
        elif name.rstrip(b" \t") != name:
            reason = "whitespace before the colon of a header"
        elif not TOKEN.fullmatch(name):
            reason = "invalid header name"
        elif _CONTROL_BYTE.search(value):
            reason = "control byte in a header value"
        else:
            headers.append((name.lower(), value.strip(b" \t")))
            continue
        raise BadRequest(400, f"{reason}: {line[:80]!r}")
    return headers
