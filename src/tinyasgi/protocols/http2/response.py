"""Encoder of response heads (RFC 9113 §8.3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TypeAlias

from ...http.memo import Memo
from ...http.response import (
    DefaultHeaders,
    Framing,
    HeaderTuple,
    check_header,
    check_length,
    frame_response,
    head_cache,
)
from ...typing import HeaderPairs
from .hpack import encode_field

#: Headers of HTTP/1.1 that HTTP/2 does not allow (RFC 9113 §8.2.2). Those of an app are dropped.
CONNECTION_HEADERS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_STATUSES = {
    status.value: encode_field(b":status", b"%d" % status) for status in HTTPStatus if status >= 200
}
#: Block of the interim response 100 (Continue).
CONTINUE = encode_field(b":status", b"100")


#: Headers of the app, status, method, length: as for `encode_head`.
_Arguments: TypeAlias = tuple[HeaderTuple, int, str, int | None]
#: Header block, framing of the body, and the names of the app's headers.
_Head: TypeAlias = tuple[bytes, Framing, set[bytes]]
#: Cache of response heads.
Heads: TypeAlias = Memo[_Arguments, _Head]


@dataclass(frozen=True, slots=True)
class _Section:
    """The validated and encoded headers of an app, with the default headers."""

    block: bytes
    names: set[bytes]
    """Names of the headers that the app has sent, in lower case."""
    length: int | None
    """Value of content-length, which is not part of the block."""


def response_heads(defaults: DefaultHeaders) -> Heads:
    """Return a cache of response heads with these default headers."""
    fields = [(name, encode_field(name, value)) for name, value in defaults.headers]
    return head_cache(partial(_encode_headers, fields), _encode_head)


def encode_head(
    heads: Heads,
    status: int,
    headers: HeaderPairs,
    method: str,
    length: int | None,
    request_id: tuple[bytes, bytes] | None = None,
) -> tuple[bytes, Framing]:
    """Return the header block of a final response, and the framing of its body.

    headers: sent by the app. length: size of the whole body in bytes, or None if more is to come.
    request_id: a header to add unless the app has sent one of that name.

    Raises TypeError or ValueError for an invalid status, header or length.
    """
    pairs = tuple(headers)
    try:
        block, framing, names = heads[pairs, status, method, length]
    except TypeError:  # some pairs are lists
        pairs = tuple((name, value) for name, value in pairs)
        block, framing, names = heads[pairs, status, method, length]
    if request_id is not None and request_id[0] not in names:
        block += encode_field(*request_id)
    return block, framing


def _encode_head(sections: Mapping[HeaderTuple, _Section], arguments: _Arguments) -> _Head:
    """Encode a head without a request id, for `encode_head`."""
    headers, status, method, length = arguments
    start = _STATUSES.get(status) or _encode_status(status)
    section = sections[headers]
    framing, announced = frame_response(status, method, section.length, length)
    ending = b"" if announced is None else encode_field(b"content-length", b"%d" % announced)
    return b"".join((start, section.block, ending)), framing, section.names


def _encode_headers(defaults: list[tuple[bytes, bytes]], headers: HeaderTuple) -> _Section:
    """Validate and encode the headers of an app. Raises TypeError or ValueError.

    defaults: names and fields of the headers to add unless the app sends the name.
    """
    fields = []
    names = set()
    length = None
    for name, value in headers:
        lower = check_header(name, value)
        if lower == b"content-length":
            length = check_length(value, length)
        elif lower not in CONNECTION_HEADERS:
            names.add(lower)
            fields.append(encode_field(lower, value.strip(b" \t")))
    fields += [field for name, field in defaults if name not in names]
    return _Section(b"".join(fields), names, length)


def encode_fields(headers: HeaderPairs) -> bytes:
    """Return a header block without a status, such as that of trailers.

    Raises TypeError or ValueError for an invalid header.
    """
    return b"".join([encode_field(check_header(*each), each[1].strip(b" \t")) for each in headers])


def encode_interim(status: int, headers: HeaderPairs) -> bytes:
    """Return the header block of an interim response. Raises TypeError or ValueError."""
    return encode_field(b":status", b"%d" % status) + encode_fields(headers)


def _encode_status(status: int) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"status must be from 200 to 999, not {status!r}")
    return encode_field(b":status", b"%d" % status)
