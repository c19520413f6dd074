"""Responses: values → bytes. The only code that writes HTTP/1.1 (RFC 9110, RFC 9112)."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TypeAlias

from .parsers import TOKEN

__all__ = ["CONTINUE", "NONE", "Framing", "default_field", "encode_body", "encode_head"]
__all__ += ["encode_refusal"]

#: How the end of a response body is known (RFC 9112 §6.3): the number of bytes still to come, or
#: one of these.
Framing: TypeAlias = int
CHUNKED: Framing = -1
CLOSE_DELIMITED: Framing = -2
#: The response has no body; what the app sends of one is left out.
NONE: Framing = -3

#: The interim response that asks for the request's body (RFC 9110 §15.2.1).
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode()
    for status in HTTPStatus
    if status >= 200
}


class _Names(dict[bytes, bytes]):
    """Field name → lower-case, with its colon: each name is checked once."""

    def __missing__(self, name: bytes) -> bytes:
        if not isinstance(name, bytes):
            raise TypeError(f"the name of a response field must be bytes, not {name!r}")
        if not TOKEN.fullmatch(name):
            raise ValueError(f"the name of a response field must be a token, not {name!r}")
        lower = name.lower()
        if lower != name:
            return self[lower]
        rendered = name + b": "
        if len(self) < 1000:
            self[name] = rendered
        return rendered


_NAMES = _Names()
_CONNECTION = _NAMES[b"connection"]
_CONTENT_LENGTH = _NAMES[b"content-length"]
_TRANSFER_ENCODING = _NAMES[b"transfer-encoding"]


def default_field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A field for the `defaults` of `encode_head`."""
    return _NAMES[name], _NAMES[name] + value + b"\r\n"


def encode_head(
    status: int,
    fields: Iterable[tuple[bytes, bytes]],
    defaults: Mapping[bytes, bytes],
    method: str,
    version: str,
    persistent: bool,
    length: int | None,
) -> tuple[bytes, Framing, bool]:
    """The head of a final response, the framing it announces, and whether the connection persists.

    fields: the app's; its transfer-encoding is dropped, framing being the server's. defaults:
    fields (`default_field`) that are added unless the app set them. method, version: of the
    request. persistent: whether server and client would go on. length: of the whole body in
    bytes, None while more of it is to come. Raises TypeError or ValueError for what can't be sent.
    """
    lines = [_STATUS_LINES.get(status) or _status_line(status)]
    announced = None
    replaced = None
    for name, value in fields:
        field = _NAMES[name]
        if field is _CONTENT_LENGTH:
            announced = _content_length(value, announced)
            continue
        if field is _TRANSFER_ENCODING:
            continue
        if field is _CONNECTION and b"close" in value.lower().replace(b" ", b"").split(b","):
            persistent = False
            continue
        if field in defaults:
            replaced = {field} if replaced is None else replaced | {field}
        try:
            lines.append(field + value)
        except TypeError:
            raise TypeError(f"the value of {name!r} must be bytes, not {value!r}") from None
    # What would end a line early is counted on the whole: cheaper than a look at each value.
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError(f"CR, LF or NUL in a response field: {lines[1:]!r}")
    if replaced is None:
        ending = b"".join(defaults.values())
    else:
        ending = b"".join([line for field, line in defaults.items() if field not in replaced])

    bodiless = method == "HEAD" or status == 304
    framing: Framing
    if status == 204:
        framing = NONE  # and RFC 9110 §8.6 forbids a content-length
    elif announced is not None or (length is not None and (length or not bodiless)):
        if announced is None:
            announced = length or 0
        elif length is not None and length != announced and not bodiless:
            raise ValueError(f"a body of {length} bytes, but content-length says {announced}")
        ending += b"content-length: %d\r\n" % announced
        framing = NONE if bodiless else announced
    elif bodiless:
        framing = NONE
    elif version == "1.1":
        ending += b"transfer-encoding: chunked\r\n"
        framing = CHUNKED
    else:
        framing = CLOSE_DELIMITED
        persistent = False
    if not persistent:
        ending += b"connection: close\r\n"
    elif version == "1.0":
        ending += b"connection: keep-alive\r\n"
    return b"%b\r\n%b\r\n" % (head, ending), framing, persistent


def _status_line(status: int) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"the status of a final response is 200 to 999, not {status!r}")
    return b"HTTP/1.1 %d " % status


def _content_length(value: bytes, announced: int | None) -> int:
    if not value.isdigit() or announced not in (None, int(value)):
        raise ValueError(f"an invalid content-length in a response: {value!r}")
    return int(value)


def encode_body(framing: Framing, body: bytes, more_body: bool) -> tuple[bytes, Framing]:
    """A piece of a response body in its framing, and the framing of the rest.

    Raises ValueError when the body turns out longer or shorter than was announced.
    """
    if framing == CHUNKED:
        if not body:
            return (b"" if more_body else b"0\r\n\r\n"), framing
        ending = b"\r\n" if more_body else b"\r\n0\r\n\r\n"
        return b"%x\r\n%b%b" % (len(body), body, ending), framing
    if framing == CLOSE_DELIMITED:
        return body, framing
    if framing == NONE:
        return b"", framing
    framing -= len(body)
    if framing < 0:
        raise ValueError(f"a body {-framing} bytes longer than its content-length")
    if framing and not more_body:
        raise ValueError(f"a body {framing} bytes shorter than its content-length")
    return body, framing


def encode_refusal(status: int, reason: str, defaults: Mapping[bytes, bytes], method: str) -> bytes:
    """A whole response by the server itself, after which the connection closes.

    reason: the body. method: of the request, as far as it is known.
    """
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 503:
        fields.append((b"retry-after", b"1"))  # seconds (RFC 9110 §10.2.3)
    head, framing, _ = encode_head(status, fields, defaults, method, "1.1", False, len(body))
    return head + encode_body(framing, body, False)[0]
