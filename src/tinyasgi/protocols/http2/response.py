"""Encoder of response heads (RFC 9113 §8.3.2)."""

from dataclasses import dataclass
from http import HTTPStatus

from ...http.memo import Memo
from ...http.response import (
    CLOSE_DELIMITED,
    NO_BODY,
    STATUSES_WITHOUT_BODY,
    DefaultHeaders,
    Framing,
    check_header,
    check_length,
    headers_size,
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


@dataclass(frozen=True, slots=True)
class _Section:
    """The validated and encoded headers of an app, with the default headers."""

    block: bytes
    names: set[bytes]
    """Names of the headers that the app has sent, in lower case."""
    length: int | None
    """Value of content-length, which is not part of the block."""


class DefaultFields:
    """Encoded form of the default headers."""

    def __init__(self, defaults: DefaultHeaders) -> None:
        self._fields = [(name, encode_field(name, value)) for name, value in defaults.headers]
        #: Encoded header sections, by the headers of the app. Apps repeat their headers.
        self.sections = Memo(self._encode, 512, longest=4096, measure=headers_size)

    def _encode(self, headers: tuple[tuple[bytes, bytes], ...]) -> _Section:
        """Validate and encode the headers of an app. Raises TypeError or ValueError."""
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
        fields += [field for name, field in self._fields if name not in names]
        return _Section(b"".join(fields), names, length)


_lengths: Memo[int, bytes] = Memo(
    lambda size: encode_field(b"content-length", b"%d" % size), 512, 0, measure=lambda _: 0
)


def encode_head(
    status: int,
    headers: HeaderPairs,
    defaults: DefaultFields,
    method: str,
    length: int | None,
    request_id: tuple[bytes, bytes] | None = None,
) -> tuple[bytes, Framing]:
    """Return the header block of a final response, and the framing of its body.

    headers: sent by the app. length: size of the whole body in bytes, or None if more is to come.
    request_id: a header to add unless the app has sent one of that name.

    Raises TypeError or ValueError for an invalid status, header or length.
    """
    start = _STATUSES.get(status) or _encode_status(status)
    pairs = tuple(headers)
    try:
        section = defaults.sections[pairs]
    except TypeError:  # some pairs are lists
        section = defaults.sections[tuple((name, value) for name, value in pairs)]
    announced = section.length
    framing: Framing
    if method == "HEAD" or status in STATUSES_WITHOUT_BODY:
        framing = NO_BODY
        if status == 204:  # RFC 9110 §8.6 forbids a content-length
            announced = None
        elif announced is None and length and status != 304:
            announced = length
    elif length is not None:
        framing = length
        if announced is None:
            announced = length
        elif announced != length:
            raise ValueError(
                f"the response body has {length} bytes, but its content-length is {announced}"
            )
    else:
        framing = CLOSE_DELIMITED if announced is None else announced
    ending = b"" if announced is None else _lengths[announced]
    if request_id is not None and request_id[0] not in section.names:
        ending += encode_field(*request_id)
    return b"".join((start, section.block, ending)), framing


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
