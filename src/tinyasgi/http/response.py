"""Encoder of HTTP/1.1 responses (RFC 9110, RFC 9112)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

from ..typing import HeaderPairs, Headers
from .memo import Memo
from .parsers import TOKEN
from .request import RequestLine

#: Framing of a response body (RFC 9112 §6.3): the number of bytes still to come, or a
#: constant.
Framing: TypeAlias = int
CHUNKED: Framing = -1
CLOSE_DELIMITED: Framing = -2
#: The response has no body. The server discards the body that the app sends.
NO_BODY: Framing = -3

#: Interim response that lets the client send the request body (RFC 9110 §15.2.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode()
    for status in HTTPStatus
    if status >= 200
}
STATUSES_WITHOUT_BODY = frozenset({204, 304})
#: Content type of the responses that the server itself creates.
PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")
#: Additional headers of error responses, by status.
_ERROR_HEADERS = {
    426: [  # RFC 9110 §15.5.22, RFC 6455 §4.4
        (b"connection", b"upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ],
    503: [(b"retry-after", b"1")],  # seconds (RFC 9110 §10.2.3)
}


#: Headers of an app: the key of a cache.
HeaderTuple: TypeAlias = tuple[tuple[bytes, bytes], ...]
Section = TypeVar("Section")
Arguments = TypeVar("Arguments", bound=tuple[Any, ...])
Head = TypeVar("Head")


def head_cache(
    encode_headers: Callable[[HeaderTuple], Section],
    encode_head: Callable[[Mapping[HeaderTuple, Section], Arguments], Head],
) -> Memo[Arguments, Head]:
    """Return a cache of response heads. Apps repeat their headers, and often the whole head.

    encode_headers: its results are cached, too. encode_head: called with them, and with the
    arguments of a head, of which the headers are the first.
    """
    sections = Memo(encode_headers, 512, 4096, measure=headers_size)
    return Memo(
        partial(encode_head, sections),
        512,
        longest=4096,
        measure=lambda arguments: headers_size(arguments[0]),
    )


class DefaultHeaders:
    """Response headers that are added unless the app sends headers of the same name.

    headers: pairs with lower-case names; a name may occur more than once.
    """

    def __init__(self, headers: HeaderPairs) -> None:
        self.headers = list(headers)
        #: Name and encoded line of each header.
        self.lines = [(name, b"\r\n%b: %b" % (name, value)) for name, value in self.headers]
        #: Encoded heads, by the arguments of `encode_head`.
        self.heads = head_cache(partial(_encode_headers, self.lines), _encode_head)


@dataclass(frozen=True, slots=True)
class _HeaderSection:
    """The validated and encoded headers of a response."""

    lines: bytes
    names: set[bytes]
    """Names of the headers in `lines` that the app has sent, in lower case."""
    length: int | None
    """Value of content-length."""
    close: bool
    """The headers contain `connection: close`."""


def _encode_headers(defaults: list[tuple[bytes, bytes]], headers: HeaderTuple) -> _HeaderSection:
    """Validate and encode the headers of an app. Raises TypeError or ValueError.

    defaults: names and lines of the headers to add unless the app sends the name. A
    transfer-encoding header is dropped, because the server determines the framing.
    """
    lines = []
    names = set()
    length = None
    close = False
    for name, value in headers:
        lower = check_header(name, value)
        if lower == b"content-length":
            length = check_length(value, length)
        elif lower == b"connection":  # the server decides on keep-alive
            options = {option.strip() for option in value.lower().split(b",")}
            close = close or b"close" in options
            if others := options - {b"close", b"keep-alive"}:
                lines.append(b"\r\nconnection: %b" % b", ".join(sorted(others)))
        elif lower != b"transfer-encoding":
            names.add(lower)
            lines.append(b"\r\n%b: %b" % (lower, value))
    lines += [line for name, line in defaults if name not in names]
    return _HeaderSection(b"".join(lines), names, length, close)


def check_header(name: bytes, value: bytes) -> bytes:
    """Validate a header of an app; return its name in lower case.

    Raises TypeError or ValueError.
    """
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise TypeError(f"response headers must be pairs of bytes, not {name!r}, {value!r}")
    if not TOKEN.fullmatch(name):
        raise ValueError(f"invalid response header name: {name!r}")
    if b"\r" in value or b"\n" in value or b"\0" in value:
        raise ValueError(f"CR, LF or NUL in the response header {name!r}: {value!r}")
    return name.lower()


def check_length(value: bytes, previous: int | None) -> int:
    """Parse a content-length of an app. Raises ValueError.

    previous: that of an earlier header, which must be the same.
    """
    if not value.isdigit() or previous not in (None, int(value)):
        raise ValueError(f"invalid content-length of the response: {value!r}")
    return int(value)


def headers_size(headers: HeaderTuple) -> int:
    """Estimate the memory of headers in bytes: their text, and 64 bytes for each pair."""
    return sum([len(name) + len(value) + 64 for name, value in headers])


#: Headers of the app, status, method, HTTP version, persistent, length: as for `encode_head`.
_Arguments: TypeAlias = tuple[HeaderTuple, int, str, str, bool, int | None]


def encode_head(
    status: int,
    headers: HeaderPairs,
    defaults: DefaultHeaders,
    line: RequestLine,
    persistent: bool,
    length: int | None,
    request_id: tuple[bytes, bytes] | None = None,
) -> tuple[bytes, Framing, bool]:
    """Return the head of a final response, its framing, and whether the connection is kept alive.

    headers: sent by the app. line: request line. persistent: whether client and server allow
    keep-alive. length: size of the whole body in bytes, or None if more is to come.
    request_id: a header to add unless the app has sent one of that name.

    Raises TypeError or ValueError for an invalid status, header or length.
    """
    pairs = tuple(headers)
    try:
        head = defaults.heads[pairs, status, line.method, line.version, persistent, length]
    except TypeError:  # some pairs are lists
        pairs = tuple((name, value) for name, value in pairs)
        head = defaults.heads[pairs, status, line.method, line.version, persistent, length]
    data, framing, persistent, names = head
    if request_id is not None and request_id[0] not in names:
        data = b"%b%b: %b\r\n\r\n" % (data[:-2], *request_id)
    return data, framing, persistent


def _encode_head(
    sections: Mapping[HeaderTuple, _HeaderSection], arguments: _Arguments
) -> tuple[bytes, Framing, bool, set[bytes]]:
    """Encode a head without a request id, for `encode_head`.

    sections: the encoded headers of the app. Return the names of the app's headers, too.
    """
    headers, status, method, version, persistent, length = arguments
    start = _STATUS_LINES.get(status) or _status_line(status)
    section = sections[headers]
    lines = section.lines
    framing, announced = frame_response(status, method, section.length, length)
    if framing != CLOSE_DELIMITED:
        ending = b"\r\n\r\n" if announced is None else _length_line(announced)
    elif version == "1.1":
        framing = CHUNKED
        ending = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    else:
        ending = b"\r\n\r\n"
        persistent = False
    if section.close or not persistent:
        persistent = False
        lines += b"\r\nconnection: close"
    elif version == "1.0":
        lines += b"\r\nconnection: keep-alive"
    return b"".join((start, lines, ending)), framing, persistent, section.names


def frame_response(
    status: int, method: str, announced: int | None, length: int | None
) -> tuple[Framing, int | None]:
    """Return the framing of a response body, and the content-length to send (RFC 9110 §8.6).

    announced: the content-length that the app has sent. length: size of the whole body in bytes, or
    None if more is to come. The framing is CLOSE_DELIMITED if the size is unknown.

    Raises ValueError if the two differ.
    """
    if method == "HEAD" or status in STATUSES_WITHOUT_BODY:
        if status == 204:  # RFC 9110 §8.6 forbids a content-length
            announced = None
        elif announced is None and length and status != 304:  # 304 has no body (§8.6)
            announced = length
        return NO_BODY, announced
    if length is None:
        return CLOSE_DELIMITED if announced is None else announced, announced
    if announced not in (None, length):
        raise ValueError(
            f"the response body has {length} bytes, but its content-length is {announced}"
        )
    return length, length


def encode_switch(
    protocol: bytes,
    headers: HeaderPairs,
    defaults: DefaultHeaders,
    request_id: tuple[bytes, bytes] | None,
) -> bytes:
    """Return the head of a response 101 (Switching Protocols; RFC 9110 §15.2.2 and §7.8).

    protocol: name of the new protocol. request_id: a header to add unless the app has sent one of
    that name. Raises TypeError or ValueError for an invalid header.
    """
    lines = defaults.lines
    if request_id is not None:
        lines = [*lines, (request_id[0], b"\r\n%b: %b" % request_id)]
    section = _encode_headers(lines, tuple((name, value) for name, value in headers))
    start = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: "
    return b"".join((start, protocol, section.lines, b"\r\n\r\n"))


def encode_interim(status: int, headers: HeaderPairs) -> bytes:
    """Return an interim response (RFC 9110 §15.2). Raises TypeError or ValueError."""
    section = _encode_headers([], tuple(headers))
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()
    return b"".join((line, section.lines, b"\r\n\r\n"))


def encode_trailers(framing: Framing, trailers: HeaderPairs) -> bytes:
    """Return the end of a response body, with trailers if it is chunked (RFC 9112 §7.1.2).

    Raises TypeError or ValueError.
    """
    if framing != CHUNKED:
        return encode_body(framing, b"", False)[0]
    return b"0%b\r\n\r\n" % _encode_headers([], tuple(trailers)).lines


def _length_line(length: int) -> bytes:
    return b"\r\ncontent-length: %d\r\n\r\n" % length


def _status_line(status: int) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"status must be from 200 to 999, not {status!r}")
    return b"HTTP/1.1 %d " % status


def encode_body(framing: Framing, body: bytes, more_body: bool) -> tuple[bytes, Framing]:
    """Return a part of a response body in its framing, and the framing of the rest.

    Raises ValueError if the body becomes longer or stays shorter than its content-length.
    """
    if framing >= 0:
        framing -= len(body)
        if framing < 0:
            raise _too_long(-framing)
        if framing and not more_body:
            raise ValueError(
                f"the response body is {framing} bytes shorter than its content-length"
            )
        return body, framing
    if framing == CHUNKED:
        last = b"" if more_body else b"0\r\n\r\n"
        return (b"%x\r\n%b\r\n%b" % (len(body), body, last) if body else last), framing
    return (body if framing == CLOSE_DELIMITED else b""), framing


def _too_long(excess: int) -> ValueError:
    return ValueError(f"the response body is {excess} bytes longer than its content-length")


def error_response(status: int, reason: str) -> tuple[Headers, bytes]:
    """Return headers and body of an error response."""
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    return [PLAIN_TEXT, *_ERROR_HEADERS.get(status, ())], body


def frame_part(framing: Framing, size: int) -> tuple[bytes, bytes, Framing]:
    """Return what is sent before and after `size` bytes of a body, and the framing of the rest.

    Raises ValueError if the body becomes longer than its content-length.
    """
    if framing == CHUNKED:
        return b"%x\r\n" % size, b"\r\n", framing
    if framing >= 0:
        framing -= size
        if framing < 0:
            raise _too_long(-framing)
    return b"", b"", framing


def encode_refusal(status: int, reason: str, defaults: DefaultHeaders, method: str) -> bytes:
    """Return a complete error response with `connection: close`.

    reason: text for the body. method: method of the request, or "" if it is unknown.
    """
    headers, body = error_response(status, reason)
    line = RequestLine(method, "1.1", None, {}, "")
    head, framing, _ = encode_head(status, headers, defaults, line, False, len(body))
    return head + encode_body(framing, body, False)[0]
