"""Responses: values → bytes. The only code that writes HTTP/1.1 (RFC 9110, RFC 9112)."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from ..typing import HeaderPairs
from .memo import Memo
from .parsers import TOKEN
from .request import RequestLine

__all__ = ["CONTINUE", "NONE", "PLAIN_TEXT", "Defaults", "Framing", "encode_body"]
__all__ += ["encode_head", "encode_refusal", "encode_switch"]

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
_BODILESS = frozenset({204, 304})
#: The field of the texts that the server itself sends.
PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")
#: What a refusal tells besides.
_REFUSALS = {
    426: [  # RFC 9110 §15.5.22, RFC 6455 §4.4
        (b"connection", b"upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ],
    503: [(b"retry-after", b"1")],  # seconds (RFC 9110 §10.2.3)
}


class Defaults:
    """Headers that a response gets unless the app sets one of the same name.

    headers: pairs with lower-case names; names may repeat.
    """

    def __init__(self, headers: HeaderPairs) -> None:
        self._lines = [(name, b"\r\n%b: %b" % (name, value)) for name, value in headers]
        self.names = frozenset([name for name, _ in self._lines])
        self.lines = self.without(frozenset())

    def without(self, names: frozenset[bytes]) -> bytes:
        """The lines of the headers that are not named."""
        return b"".join([line for name, line in self._lines if name not in names])


@dataclass(frozen=True, slots=True)
class _Section:
    """The headers of an app's response, as far as the app decides: checked and rendered."""

    lines: bytes
    names: frozenset[bytes]
    length: int | None
    """What its content-length says."""
    ending: bytes
    """The line of its content-length, if it has one, and the end of the head."""
    close: bool
    """It has `connection: close`."""


def _render(headers: tuple[tuple[bytes, bytes], ...]) -> _Section:
    """Raises TypeError or ValueError. A transfer-encoding is dropped: framing is the server's."""
    lines = []
    names = set()
    length = None
    close = False
    for name, value in headers:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"a response field must be a pair of bytes, not {name!r}, {value!r}")
        if not TOKEN.fullmatch(name):
            raise ValueError(f"the name of a response field must be a token, not {name!r}")
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise ValueError(f"CR, LF or NUL in the response field {name!r}: {value!r}")
        lower = name.lower()
        if lower == b"content-length":
            if not value.isdigit() or length not in (None, int(value)):
                raise ValueError(f"an invalid content-length in a response: {value!r}")
            length = int(value)
        elif lower == b"connection":  # whether it persists is told by the server
            options = {option.strip() for option in value.lower().split(b",")}
            close = close or b"close" in options
            if others := options - {b"close", b"keep-alive"}:
                lines.append(b"\r\nconnection: %b" % b", ".join(sorted(others)))
        elif lower != b"transfer-encoding":
            names.add(lower)
            lines.append(b"\r\n%b: %b" % (lower, value))
    ending = b"\r\n\r\n" if length is None else _length_line(length)
    return _Section(b"".join(lines), frozenset(names), length, ending, close)


def _measure(headers: tuple[tuple[bytes, bytes], ...]) -> int:
    """Bytes that headers take, roughly: of names and values, and 64 for each pair."""
    return sum([len(name) + len(value) + 64 for name, value in headers])


#: The responses of an app are much alike.
_sections = Memo(_render, 512, longest=4096, measure=_measure)


def encode_head(
    status: int,
    headers: HeaderPairs,
    defaults: Defaults,
    line: RequestLine,
    persistent: bool,
    length: int | None,
) -> tuple[bytes, Framing, bool]:
    """The head of a final response, the framing it announces, and whether the connection persists.

    headers: the app's. line: of the request. persistent: whether server and client would go on.
    length: of the whole body in bytes, None while more of it is to come. Raises TypeError or
    ValueError for what can't be sent.
    """
    head = _STATUS_LINES.get(status) or _status_line(status)
    pairs = tuple(headers)
    try:
        section = _sections[pairs]
    except TypeError:  # pairs that are lists
        section = _sections[tuple((name, value) for name, value in pairs)]
    names = section.names
    default = defaults.lines if names.isdisjoint(defaults.names) else defaults.without(names)
    announced = section.length
    ending = section.ending
    framing: Framing
    if line.method == "HEAD" or status in _BODILESS:
        framing = NONE
        if status == 204:  # RFC 9110 §8.6 forbids a content-length
            ending = b"\r\n\r\n"
        elif announced is None and length and status != 304:  # which has no body to measure (§8.6)
            ending = _length_line(length)
    elif length is not None:
        framing = length
        if announced is None:
            ending = _length_line(length)
        elif announced != length:
            raise ValueError(f"a body of {length} bytes, but content-length says {announced}")
    elif announced is not None:
        framing = announced
    elif line.version == "1.1":
        framing = CHUNKED
        ending = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    else:
        framing = CLOSE_DELIMITED
        persistent = False
    if section.close or not persistent:
        persistent = False
        default += b"\r\nconnection: close"
    elif line.version == "1.0":
        default += b"\r\nconnection: keep-alive"
    return b"".join((head, section.lines, default, ending)), framing, persistent


def encode_switch(protocol: bytes, headers: HeaderPairs, defaults: Defaults) -> bytes:
    """The head that ends HTTP on a connection: 101 (RFC 9110 §15.2.2 and §7.8).

    protocol: what is spoken from here on. Raises TypeError or ValueError.
    """
    section = _render(tuple((name, value) for name, value in headers))
    start = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: "
    return b"".join((start, protocol, section.lines, defaults.without(section.names), b"\r\n\r\n"))


def _length_line(length: int) -> bytes:
    return b"\r\ncontent-length: %d\r\n\r\n" % length


def _status_line(status: int) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"the status of a final response is 200 to 999, not {status!r}")
    return b"HTTP/1.1 %d " % status


def encode_body(framing: Framing, body: bytes, more_body: bool) -> tuple[bytes, Framing]:
    """A piece of a response body in its framing, and the framing of the rest.

    Raises ValueError when the body turns out longer or shorter than was announced.
    """
    if framing >= 0:
        framing -= len(body)
        if framing < 0:
            raise ValueError(f"a body {-framing} bytes longer than its content-length")
        if framing and not more_body:
            raise ValueError(f"a body {framing} bytes shorter than its content-length")
        return body, framing
    if framing == CHUNKED:
        last = b"" if more_body else b"0\r\n\r\n"
        return (b"%x\r\n%b\r\n%b" % (len(body), body, last) if body else last), framing
    return (body if framing == CLOSE_DELIMITED else b""), framing


def encode_refusal(status: int, reason: str, defaults: Defaults, method: str) -> bytes:
    """A whole response by the server itself, after which the connection closes.

    reason: for the body. method: of the request, as far as it is known.
    """
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    headers = [PLAIN_TEXT, *_REFUSALS.get(status, ())]
    line = RequestLine(method, "1.1", None, {}, "")
    head, framing, _ = encode_head(status, headers, defaults, line, False, len(body))
    return head + encode_body(framing, body, False)[0]
