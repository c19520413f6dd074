"""A strict reader of HTTP/1.1 responses, as a client gets them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Response", "read_responses"]

_HEAD = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([A-Za-z -]*)\r\n((?:[!-9;-~]+: ?[ -~]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class Response(NamedTuple):
    """A response, or what has arrived of it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    complete: bool

    @property
    def closes(self) -> bool:
        """No response follows on the connection."""
        return self.headers.get(b"connection") == b"close"


def read_responses(data: bytes, methods: Iterable[str], at_end: bool) -> list[Response]:
    """Read responses, also interim ones, to requests with these methods.

    at_end: the server has closed the connection. Raises AssertionError for anything that is not
    valid, or that no request has asked for.
    """
    found: list[Response] = []
    asked = iter(methods)
    while data:
        head = _HEAD.match(data)
        if head is None:
            assert b"\r\n\r\n" not in data, f"not a response: {data[:200]!r}"
            assert data.startswith(b"HTTP/1.1 "[: len(data)]), f"not a response: {data[:200]!r}"
            return found
        assert not (found and found[-1].closes), f"after the last response: {data[:200]!r}"
        lines = [line.split(b":", 1) for line in head[3].splitlines()]
        headers = {name: value.strip() for name, value in lines}
        assert len(headers) == len(lines), f"a header is there twice: {head[0]!r}"
        status, data = int(head[1]), data[head.end() :]
        if status == 100:
            found.append(Response(status, headers, b"", True))
            continue
        method = next(asked, None)
        assert method is not None, f"a response that nobody has asked for: {head[0]!r}"
        if status == 101:
            return [*found, Response(status, headers, data, True)]
        if method == "HEAD" or status in (204, 304):
            found.append(Response(status, headers, b"", True))
            continue
        body, rest = _read_body(headers, data, at_end)
        found.append(Response(status, headers, body, rest is not None))
        data = rest or b""
    return found


def _read_body(
    headers: dict[bytes, bytes], data: bytes, at_end: bool
) -> tuple[bytes, bytes | None]:
    """Return a body and what follows it; None while it is incomplete."""
    if b"content-length" in headers:
        assert b"transfer-encoding" not in headers
        length = int(headers[b"content-length"])
        return data[:length], data[length:] if len(data) >= length else None
    if headers.get(b"transfer-encoding") == b"chunked":
        return _read_chunks(data)
    return data, b"" if at_end else None


def _read_chunks(data: bytes) -> tuple[bytes, bytes | None]:
    body = b""
    while match := _CHUNK.match(data):
        size, start = int(match[1], 16), match.end()
        body += data[start : start + size]
        if len(data) < start + size + 2:
            return body, None
        assert data[start + size : start + size + 2] == b"\r\n"
        data = data[start + size + 2 :]
        if not size:
            return body, data
    assert len(data) < 18 and b"\r\n" not in data, f"not a chunk: {data[:50]!r}"
    return body, None
