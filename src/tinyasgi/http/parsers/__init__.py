"""What a parser is: a library that turns the head of a request into its headers.

Where a head ends, what its start line says and how its body is framed is decided once, by the
connection and `request`, whatever library is in use. A parser keeps no state between two heads, so
the connections of an event loop share one.
"""

import importlib.util
import re
from typing import Protocol

from ...typing import Headers

__all__ = ["START_LINE", "TOKEN", "BadRequest", "Parser", "choose", "split_headers"]

#: RFC 9110 §5.6.2.
TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
#: A start line for a library that wants one before the headers.
START_LINE = b"GET / HTTP/1.0\r\n"

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadRequest(Exception):
    """A request that is refused: the connection answers it and closes.

    status: the status code of the answer (RFC 9110 §15.5). reason: one line for the client and
    for the log; it never holds unescaped bytes of the request.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class Parser(Protocol):
    """What `choose` returns an instance of."""

    def parse_headers(self, head: bytes, start: int) -> Headers:
        """The headers of a head, names lower-case, values stripped (RFC 9112 §5).

        head: start line and field section with the empty line that ends it. start: the offset of
        the first field line. Raises BadRequest.
        """


def choose(name: str) -> Parser:
    """A parser by its name: `httptools`, `h11`, or `auto` (httptools when it is installed)."""
    if name == "auto":
        name = "httptools" if importlib.util.find_spec("httptools") else "h11"
    if name == "httptools":
        from .httptools import HttptoolsParser

        return HttptoolsParser()
    from .h11 import H11Parser

    return H11Parser()


def split_headers(section: bytes) -> Headers:
    """The headers of a section, strictly (RFC 9112 §5), to say what is wrong with one.

    What a library refuses for other reasons, the meaning of a field, is for `request` to refuse.
    Raises BadRequest.
    """
    headers = []
    for line in section.removesuffix(b"\r\n").removesuffix(b"\r\n").split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            fault = "a folded field line"
        elif not colon:
            fault = "a field line without a colon"
        elif name.rstrip(b" \t") != name:
            fault = "whitespace before the colon of a field"
        elif not TOKEN.fullmatch(name):
            fault = "a field name that is no token"
        elif _CONTROL.search(value):
            fault = "a control byte in a field value"
        else:
            headers.append((name.lower(), value.strip(b" \t")))
            continue
        raise BadRequest(400, f"{fault}: {line[:80]!r}")
    return headers
