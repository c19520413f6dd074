"""Parser that uses h11: pure Python, slower than httptools."""

import re

import h11

from ...typing import Headers
from . import split_headers

# h11 accepts bare LF, folded lines and control bytes (RFC 9112 §2.2 and §5, RFC 9110 §5.5). It
# merges Content-Length headers, and changes the case of Transfer-Encoding.
_LENIENT = re.compile(
    rb"(?<!\r)\n|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\n(?:content-length|transfer-encoding):",
    re.IGNORECASE,
)


class H11Parser:
    """Parser that uses a new `h11.Connection` for each head."""

    def parse_headers(self, head: bytes, start: int) -> Headers:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError:
            return split_headers(head[start:])
        if not isinstance(request, h11.Request) or _LENIENT.search(head, start - 1):
            return split_headers(head[start:])
        return [(bytes(name), bytes(value)) for name, value in request.headers]
