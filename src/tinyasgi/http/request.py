"""Request line, Host, framing and persistence of a request (RFC 9110, RFC 9112)."""

import re
from dataclasses import dataclass
from typing import Any

from ..typing import Headers
from .memo import Memo
from .parsers import TOKEN, BadRequest

#: Length of a body in the chunked transfer coding (RFC 9112 §7.1).
CHUNKED = -1

#: Empty lines before a request line, which a server ignores (RFC 9112 §2.2).
EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")

# Allowed bytes: those of RFC 3986 §3.3 and §3.4, and those that browsers do not encode
# (URL Standard, percent-encode sets). Invalid percent encodings are allowed; decoding keeps them.
_PATH_BYTES = (
    b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$&'()*+,;=:@%/[]^|"
)
_QUERY_BYTES = _PATH_BYTES + b"?`{}\\"

_HOST = re.compile(
    rb"(?:[-._~0-9A-Za-z!$&'()*+;=]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([/?].*)?", re.DOTALL)


def check_size(head: bytes | bytearray, limit: int) -> None:
    """Raise BadRequest if a head, complete or not, is longer than `limit` bytes."""
    if len(head) > limit:
        if b"\r\n" in head[:limit]:
            raise BadRequest(431, f"request line and headers exceed --limit-head-size ({limit})")
        raise BadRequest(414, f"request line exceeds --limit-head-size ({limit})")


def check_start(head: bytearray) -> None:
    """Raise BadRequest if these bytes can't begin a request line."""
    if not TOKEN.match(head, 0, 1) and head != b"\r":
        raise _bad_request_line(bytes(head))


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A parsed request line (RFC 9112 §3)."""

    method: str
    version: str
    host: bytes | None
    """Authority of an absolute-form target; None for the other forms."""
    scope: dict[str, Any]
    """ASGI scope. The connection sets the values that depend on the headers and the client."""
    text: str
    """The line itself, without control characters."""
    is_ordinary: bool = False
    """The version is 1.1, and the target does not have the absolute form."""

    @property
    def route(self) -> str:
        """Path without the root path."""
        path: str = self.scope["path"]
        return path.removeprefix(self.scope["root_path"])


def parse_request_line(line: bytes, root_path: str) -> RequestLine:
    """Parse a request line without its CRLF. Raises BadRequest.

    root_path: prepended to the path, unless the path already begins with it.
    """
    try:
        token, target, protocol = line.split(b" ")
        version = _VERSIONS[protocol]
    except (ValueError, KeyError):
        raise _bad_request_line(line) from None
    if not TOKEN.fullmatch(token):
        raise _bad_request_line(line)
    method = token.decode("ascii")
    return make_request_line(method, target, version, line.decode("latin-1"), root_path)


def make_request_line(
    method: str, target: bytes, version: str, text: str, root_path: str
) -> RequestLine:
    """Return a request line for any version of HTTP. Raises BadRequest for an invalid target."""
    raw_path, query, host = _split_target(method, target)
    path = raw_path.decode("ascii")
    if "%" in path:
        from urllib.parse import unquote  # lazy: the import takes 7 ms

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
    ordinary = version == "1.1" and host is None
    return RequestLine(method, version, host, scope, text, ordinary)


def _bad_request_line(line: bytes) -> BadRequest:
    if line.startswith(b"\x16\x03"):
        return BadRequest(400, "TLS ClientHello on a port without TLS")
    parts = line.split(b" ")
    if len(parts) == 3 and TOKEN.fullmatch(parts[0]) and _VERSION.fullmatch(parts[2]):
        return BadRequest(505, f"unsupported HTTP version {parts[2].decode()}")
    return BadRequest(400, f"invalid request line: {line[:80]!r}")


def _split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Return path, query and authority of a request target (RFC 9112 §3.2). Raises BadRequest.

    The authority is None unless the target has the absolute form.
    """
    host = None
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is not implemented")
    if match := _ABSOLUTE.fullmatch(target):
        host, target = match[1], match[2] or (b"*" if method == "OPTIONS" else b"/")
        if not valid_authorities[host]:
            raise BadRequest(400, f"invalid authority in the request target: {host[:80]!r}")
        if target.startswith(b"?"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    if not is_valid_path(path) or query.translate(None, _QUERY_BYTES):
        raise BadRequest(400, f"invalid bytes in the request target: {target[:80]!r}")
    if not path.startswith(b"/") and (path != b"*" or method != "OPTIONS" or target != b"*"):
        raise BadRequest(400, f"invalid request target: {target[:80]!r}")
    return path, query, host


def is_valid_path(path: bytes) -> bool:
    """Return whether all bytes are allowed in a path."""
    return not path.translate(None, _PATH_BYTES)


def _is_valid_authority(host: bytes) -> bool:
    """Return whether `host` has the form `uri-host [":" port]` (RFC 9110 §7.2) and is not empty.

    The grammar allows commas in names. They are rejected, because repeated Host headers are joined
    with a comma.
    """
    return _HOST.fullmatch(host) is not None


#: Whether a Host header or the authority of a target is valid: `valid_authorities[host]`.
valid_authorities = Memo(_is_valid_authority, 256, longest=256)

_FRAMING_HEADERS = frozenset(
    {b"host", b"transfer-encoding", b"content-length", b"connection", b"expect", b"upgrade"}
)


@dataclass(frozen=True, slots=True)
class Framing:
    """Properties of a request that follow from its headers."""

    length: int
    """Length of the body in bytes, or CHUNKED (RFC 9112 §6)."""
    persistent: bool = True
    """The client allows the connection to be kept alive (RFC 9112 §9.3)."""
    expects_continue: bool = False
    """The client waits for 100 (Continue) before it sends the body (RFC 9110 §10.1.1)."""
    wants_websocket: bool = False
    """The client asks to switch to WebSocket (RFC 9110 §7.8)."""


#: Framing, by HTTP version, of a request whose only header of `_FRAMING_HEADERS` is Host.
_NO_BODY = {"1.1": Framing(0), "1.0": Framing(0, persistent=False)}


def parse_framing(version: str, headers: Headers) -> Framing:
    """Return the framing of a request. Raises BadRequest.

    version: "1.0" or "1.1".
    """
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _FRAMING_HEADERS:  # repeated ones are combined (RFC 9110 §5.3)
            values[name] = values[name] + b", " + value if name in values else value
    host = values.get(b"host")
    if host is None:
        if version == "1.1":
            raise BadRequest(400, "missing Host header")
    elif not valid_authorities[host]:
        raise BadRequest(400, f"invalid Host header: {host[:80]!r}")
    elif len(values) == 1:
        return _NO_BODY[version]
    length = _body_length(version, values)
    options = _list_items(values.get(b"connection", b""))
    persistent = b"close" not in options and (version == "1.1" or b"keep-alive" in options)
    # HTTP/1.0 has no Upgrade. After a body, it is unclear where the new protocol begins.
    upgrade = b"upgrade" in options and version == "1.1" and not length
    websocket = upgrade and b"websocket" in _list_items(values.get(b"upgrade", b""))
    expectation = None if version == "1.0" else values.get(b"expect")
    return Framing(length, persistent, expects_continue(expectation), websocket)


def _body_length(version: str, values: dict[bytes, bytes]) -> int:
    coding = values.get(b"transfer-encoding")
    length = values.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "both Transfer-Encoding and Content-Length")
        return _check_coding(version, coding)
    return 0 if length is None else parse_content_length(length)


def parse_content_length(length: bytes) -> int:
    """Parse the value of Content-Length (RFC 9110 §8.6). Raises BadRequest."""
    if not length.isdigit() or len(length) > 30 or int(length) >> 64:
        raise BadRequest(400, f"invalid Content-Length: {length[:80]!r}")
    return int(length)


def _check_coding(version: str, coding: bytes) -> int:
    """Return CHUNKED if `chunked` is the only transfer coding; otherwise raise BadRequest."""
    if version == "1.0":
        raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")
    *others, last = _list_items(coding)
    if last == b"chunked" and not others:
        return CHUNKED
    if last != b"chunked" or b"chunked" in others or b"" in others:
        reason = 'Transfer-Encoding must end with a single "chunked"'
        raise BadRequest(400, f"{reason}: {coding[:80]!r}")
    raise BadRequest(501, f"unsupported transfer coding: {coding[:80]!r}")


def _list_items(value: bytes) -> list[bytes]:
    """Return the items of a comma-separated list in lower case (RFC 9110 §5.6.1)."""
    return [item.strip() for item in value.lower().split(b",")]


def expects_continue(expectation: bytes | None) -> bool:
    """Return whether the client waits for 100 (Continue) (RFC 9110 §10.1.1). Raises BadRequest.

    expectation: value of Expect, or None.
    """
    if expectation is None:
        return False
    if expectation.lower() != b"100-continue":
        raise BadRequest(417, f"unsupported expectation: {expectation[:80]!r}")
    return True


def replace_host(headers: Headers, host: bytes) -> Headers:
    """Return a copy of the headers with another Host (RFC 9112 §3.2.2)."""
    return [(b"host", host), *[field for field in headers if field[0] != b"host"]]
