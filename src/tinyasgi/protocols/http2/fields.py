"""Validation of the fields of a header block (RFC 9113 §8.2 and §8.3)."""

from ...http.request import valid_authorities
from ...typing import Headers
from .frames import ErrorCode, StreamFault
from .response import CONNECTION_HEADERS

_NAME_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_VALUE_BYTES = bytes({*range(256)} - {*range(9), *range(10, 32), 127})
_PSEUDO_HEADERS = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_SINGLE = frozenset({b"content-length", b"expect", b"host"})


def malformed(reason: str) -> StreamFault:
    """Return the error for a malformed message (RFC 9113 §8.1.1)."""
    return StreamFault(ErrorCode.PROTOCOL_ERROR, reason)


def split(fields: Headers) -> tuple[dict[bytes, bytes], Headers]:
    """Separate pseudo-headers from the headers after them (RFC 9113 §8.3). Raises StreamFault."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _PSEUDO_HEADERS:
            raise malformed(f"unknown pseudo-header: {name[:80]!r}")
        if name in pseudo:
            raise malformed(f"repeated pseudo-header: {name.decode()}")
        pseudo[name] = value
    return pseudo, fields[len(pseudo) :]


def check(headers: Headers) -> None:
    """Validate the bytes of names and values (RFC 9113 §8.2.1). Raises StreamFault."""
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _NAME_BYTES):
        raise malformed("invalid header name")
    values = b"\n".join([value for _, value in headers])
    if values.translate(None, _VALUE_BYTES) != b"\n" * (len(headers) - 1):
        raise malformed("control byte in a header value")
    for value in values.split(b"\n") if b" " in values or b"\t" in values else ():
        if value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
            raise malformed("whitespace around a header value")


def combine(authority: bytes | None, headers: Headers) -> tuple[Headers, dict[bytes, bytes]]:
    """Return the headers as in HTTP/1.1, and the values of those that the server evaluates.

    Host comes from :authority; cookies are joined (RFC 9113 §8.2.3, §8.3.1). Raises StreamFault.
    """
    values: dict[bytes, bytes] = {}
    cookies: list[bytes] = []
    combined: Headers = []
    for field in headers:
        name, value = field
        if name == b"cookie":
            cookies.append(value)
            if len(cookies) == 1:
                combined.append(field)
            continue
        if name in _SINGLE:
            if name in values:
                raise malformed(f"repeated header: {name.decode()}")
            values[name] = value
            if name == b"host":
                continue
        elif name in CONNECTION_HEADERS or (name == b"te" and value.lower() != b"trailers"):
            raise malformed(f"header not allowed in HTTP/2: {name.decode()}")
        combined.append(field)
    if len(cookies) > 1:
        joined = b"cookie", b"; ".join(cookies)
        combined = [joined if field[0] == b"cookie" else field for field in combined]
    host = values.get(b"host", authority)
    if host is not None:
        if not valid_authorities[host]:
            raise malformed(f"invalid authority: {host[:80]!r}")
        if authority is not None and authority.lower() != host.lower():
            raise malformed(":authority and Host differ")
        values[b"host"] = host
        combined.insert(0, (b"host", host))
    return combined, values
