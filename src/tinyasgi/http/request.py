"""What a request must satisfy whatever parsed it (RFC 9110, RFC 9112)."""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..typing import Headers
from .memo import Memo
from .parsers import TOKEN, BadRequest

__all__ = [
    "CHUNKED",
    "EMPTY_LINES",
    "BodyFraming",
    "RequestLine",
    "authorities",
    "check_size",
    "check_start",
    "is_path",
    "parse_framing",
    "request_line",
    "with_host",
]

#: The length of a body whose end the chunked coding tells (RFC 9112 §7.1).
CHUNKED = -1

#: What a server ignores before a request line (RFC 9112 §2.2).
EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")

# RFC 3986 §3.3 and §3.4, and what browsers leave as it is (URL Standard, percent-encode sets).
# Percent signs are not judged: decoding keeps invalid sequences.
_PATH = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$&'()*+,;=:@%/[]^|"
_QUERY = _PATH + b"?`{}\\"

_HOST = re.compile(
    rb"(?:[-._~0-9A-Za-z!$&'()*+;=]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([/?].*)?", re.DOTALL)


def check_size(head: bytes | bytearray, limit: int) -> None:
    """Raises BadRequest for a head of more than `limit` bytes, or the beginning of one."""
    if len(head) > limit:
        if b"\r\n" in head[:limit]:
            raise BadRequest(431, f"a head of over {limit} bytes")
        raise BadRequest(414, f"a request line of over {limit} bytes")


def check_start(head: bytearray) -> None:
    """Raises BadRequest if no request line begins so."""
    if not TOKEN.match(head, 0, 1) and head != b"\r":
        raise _bad_request_line(bytes(head))


@dataclass(frozen=True, slots=True)
class RequestLine:
    """What a request line says (RFC 9112 §3)."""

    method: str
    version: str
    host: bytes | None
    """The authority of an absolute-form target."""
    scope: dict[str, Any]
    """An HTTP scope, but for what the connection and the headers add."""
    text: str
    """The line itself; nothing in it can break a line of a log."""

    @property
    def route(self) -> str:
        """The path below the root path."""
        path: str = self.scope["path"]
        return path.removeprefix(self.scope["root_path"])


def request_line(line: bytes, root_path: str) -> RequestLine:
    """Judges a request line, without its CRLF. Raises BadRequest.

    root_path: put before the path, unless the path begins with it already.
    """
    try:
        token, target, protocol = line.split(b" ")
        version = _VERSIONS[protocol]
    except (ValueError, KeyError):
        raise _bad_request_line(line) from None
    if not TOKEN.fullmatch(token):
        raise _bad_request_line(line)
    method = token.decode("ascii")
    raw_path, query, host = _split_target(method, target)
    path = raw_path.decode("ascii")
    if "%" in path:
        from urllib.parse import unquote  # not before it is needed: 7 ms at start

        path = unquote(path)
    if root_path and path != root_path and not path.startswith(root_path + "/") and path != "*":
        path = root_path + path
    scope = {
        "type": "http",
        "asgi": None,
        "http_version": version,
        "server": None,
        "client": None,
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": None,
        "state": None,
    }
    return RequestLine(method, version, host, scope, line.decode("ascii"))


def _bad_request_line(line: bytes) -> BadRequest:
    if line.startswith(b"\x16\x03"):
        return BadRequest(400, "a TLS hello on a port without TLS")
    parts = line.split(b" ")
    if len(parts) == 3 and TOKEN.fullmatch(parts[0]) and _VERSION.fullmatch(parts[2]):
        return BadRequest(505, f"version {parts[2].decode()} is not spoken here")
    return BadRequest(400, f"a malformed request line: {line[:80]!r}")


def _split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query and authority (None but in absolute-form) of a request target (RFC 9112 §3.2).

    Raises BadRequest.
    """
    host = None
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is not implemented")
    if match := _ABSOLUTE.fullmatch(target):
        host, target = match[1], match[2] or (b"*" if method == "OPTIONS" else b"/")
        if not authorities[host]:
            raise BadRequest(400, f"an invalid authority in the target: {host[:80]!r}")
        if target.startswith(b"?"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    if not is_path(path) or query.translate(None, _QUERY):
        raise BadRequest(400, f"bytes that no target may have: {target[:80]!r}")
    if not path.startswith(b"/") and (path != b"*" or method != "OPTIONS" or target != b"*"):
        raise BadRequest(400, f"a target in no known form: {target[:80]!r}")
    return path, query, host


def is_path(path: bytes) -> bool:
    """Whether there is nothing in it that a path may not have."""
    return not path.translate(None, _PATH)


def _is_authority(host: bytes) -> bool:
    """Whether this is `uri-host [":" port]`, not empty (RFC 9110 §7.2).

    A comma, which the grammar allows in names, is refused: no name has one, a joined list has.
    """
    return _HOST.fullmatch(host) is not None


authorities = Memo(_is_authority, 256, longest=256)

_JUDGED = frozenset(
    {b"host", b"transfer-encoding", b"content-length", b"connection", b"expect", b"upgrade"}
)
#: What the headers of a request say of it, as `parse_framing` returns it.
BodyFraming: TypeAlias = tuple[int, bool, bool, bool]
#: The same for a request that has no such field but Host.
_PLAIN = {"1.1": (0, True, False, False), "1.0": (0, False, False, False)}


def parse_framing(version: str, headers: Headers) -> BodyFraming:
    """What the headers of a request say of its framing. Raises BadRequest.

    Returns the length of the body in bytes, or CHUNKED (RFC 9112 §6); whether the client lets the
    connection persist (§9.3); whether it waits for 100 (Continue) (RFC 9110 §10.1.1); whether it
    wants to go on with WebSocket instead (§7.8).
    """
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _JUDGED:  # repeated ones combine (RFC 9110 §5.3)
            values[name] = values[name] + b", " + value if name in values else value
    host = values.get(b"host")
    if host is None:
        if version == "1.1":
            raise BadRequest(400, "no Host field")
    elif not authorities[host]:
        raise BadRequest(400, f"an invalid Host: {host[:80]!r}")
    elif len(values) == 1:
        return _PLAIN[version]
    length = _length(version, values)
    options = _items(values.get(b"connection", b""))
    persistent = b"close" not in options and (version == "1.1" or b"keep-alive" in options)
    # HTTP/1.0 has no Upgrade. With a body it stays a request: what of it is a frame?
    upgrade = b"upgrade" in options and version == "1.1" and not length
    websocket = upgrade and b"websocket" in _items(values.get(b"upgrade", b""))
    return length, persistent, _waits(version, values), websocket


def _length(version: str, values: dict[bytes, bytes]) -> int:
    coding = values.get(b"transfer-encoding")
    length = values.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "both Transfer-Encoding and Content-Length")
        return _coding(version, coding)
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 30 or int(length) >> 64:
        raise BadRequest(400, f"an invalid Content-Length: {length[:80]!r}")
    return int(length)


def _coding(version: str, coding: bytes) -> int:
    if version == "1.0":
        raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
    *others, last = _items(coding)
    if last == b"chunked" and not others:
        return CHUNKED
    if last != b"chunked" or b"chunked" in others or b"" in others:
        raise BadRequest(400, f"Transfer-Encoding does not end in one chunked: {coding[:80]!r}")
    raise BadRequest(501, f"a transfer coding that is not implemented: {coding[:80]!r}")


def _items(value: bytes) -> list[bytes]:
    """The items of a list, lower-case (RFC 9110 §5.6.1)."""
    return [item.strip() for item in value.lower().split(b",")]


def _waits(version: str, values: dict[bytes, bytes]) -> bool:
    expectation = values.get(b"expect")
    if expectation is None or version == "1.0":
        return False
    if expectation.lower() != b"100-continue":
        raise BadRequest(417, f"an expectation that cannot be met: {expectation[:80]!r}")
    return True


def with_host(headers: Headers, host: bytes) -> Headers:
    """Headers with the authority of an absolute-form target for Host (RFC 9112 §3.2.2)."""
    return [(b"host", host), *[field for field in headers if field[0] != b"host"]]
