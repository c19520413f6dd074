"""What a request must satisfy whatever parsed it (RFC 9110, RFC 9112)."""

import re
from functools import lru_cache

from .parsers import TOKEN, BadRequest
from .typing import Fields

__all__ = ["CHUNKED", "EMPTY_LINES", "authority", "combined", "content", "expects_continue"]
__all__ += ["persistent", "request_line", "split_target", "unfinished_head", "with_host"]
__all__ += ["with_root_path"]

#: The length of a body whose end the chunked coding tells (RFC 9112 §7.1).
CHUNKED = -1

#: What a server ignores before a request line (RFC 9112 §2.2).
EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_BARE_LF = re.compile(rb"(?<!\r)\n")

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


def unfinished_head(data: bytes, seen: int, limit: int) -> None:
    """What can be said of a head before its end has arrived.

    seen: bytes of it that were judged before. limit: most bytes of a head. Raises BadRequest.
    """
    if len(data) > limit:
        if b"\r\n" in data[:limit]:
            raise BadRequest(431, f"a head of over {limit} bytes")
        raise BadRequest(414, f"a request line of over {limit} bytes")
    if _BARE_LF.search(data, max(seen - 1, 0)):
        raise BadRequest(400, f"a bare LF as line end: {data[:80]!r}")
    if data and not TOKEN.match(data) and data != b"\r":
        raise _bad_request_line(data)


def request_line(line: bytes) -> tuple[str, bytes, str]:
    """Method, target and version ("1.1" or "1.0") of a request line (RFC 9112 §3).

    line: without its CRLF. Raises BadRequest.
    """
    try:
        method, target, version = line.split(b" ")
        return _method(method), target, _VERSIONS[version]
    except (ValueError, KeyError):
        raise _bad_request_line(line) from None


def _bad_request_line(line: bytes) -> BadRequest:
    if line.startswith(b"\x16\x03"):
        return BadRequest(400, "a TLS hello on a port without TLS")
    parts = line.split(b" ")
    if len(parts) == 3 and TOKEN.fullmatch(parts[0]) and _VERSION.fullmatch(parts[2]):
        return BadRequest(505, f"version {parts[2].decode()} is not spoken here")
    return BadRequest(400, f"a malformed request line: {line[:80]!r}")


@lru_cache(maxsize=64)
def _method(token: bytes) -> str:
    if not TOKEN.fullmatch(token):
        raise ValueError
    return token.decode("ascii")


def split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query and authority (None but in absolute-form) of a request target (RFC 9112 §3.2).

    Raises BadRequest.
    """
    host = None
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is not implemented")
    if match := _ABSOLUTE.fullmatch(target):
        host, target = match[1], match[2] or b"/"
        if not authority(host):
            raise BadRequest(400, f"an invalid authority in the target: {host[:80]!r}")
        if target.startswith(b"?"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    if path.translate(None, _PATH) or query.translate(None, _QUERY):
        raise BadRequest(400, f"bytes that no target may have: {target[:80]!r}")
    if not path.startswith(b"/") and (path != b"*" or method != "OPTIONS" or target != b"*"):
        raise BadRequest(400, f"a target in no known form: {target[:80]!r}")
    return path, query, host


@lru_cache(maxsize=256)
def authority(host: bytes) -> bool:
    """Whether this is `uri-host [":" port]`, not empty (RFC 9110 §7.2).

    A comma, which the grammar allows in names, is refused: no name has one, a joined list has.
    """
    return _HOST.fullmatch(host) is not None


def combined(fields: Fields) -> dict[bytes, bytes]:
    """Field values by name, those of a repeated name joined by commas (RFC 9110 §5.3)."""
    values = dict(fields)
    if len(values) != len(fields):
        values.clear()
        for name, value in fields:
            values[name] = values[name] + b", " + value if name in values else value
    return values


def content(version: str, values: dict[bytes, bytes]) -> int:
    """The length of a request's body in bytes, or CHUNKED (RFC 9112 §6).

    values: as `combined` makes them; Host is checked as well (§3.2). Raises BadRequest.
    """
    host = values.get(b"host")
    if host is None:
        if version == "1.1":
            raise BadRequest(400, "no Host field")
    elif not authority(host):
        raise BadRequest(400, f"an invalid Host: {host[:80]!r}")
    coding = values.get(b"transfer-encoding")
    length = values.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "both Transfer-Encoding and Content-Length")
        return _coding(version, coding.lower())
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 30 or int(length) >> 64:
        raise BadRequest(400, f"an invalid Content-Length: {length[:80]!r}")
    return int(length)


def _coding(version: str, coding: bytes) -> int:
    if version == "1.0":
        raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
    if coding == b"chunked":
        return CHUNKED
    *others, last = [item.strip() for item in coding.split(b",")]
    if last != b"chunked" or b"chunked" in others or b"" in others:
        raise BadRequest(400, f"Transfer-Encoding does not end in one chunked: {coding[:80]!r}")
    raise BadRequest(501, f"a transfer coding that is not implemented: {coding[:80]!r}")


def persistent(version: str, values: dict[bytes, bytes]) -> bool:
    """Whether the client lets the connection carry another exchange (RFC 9112 §9.3)."""
    options = values.get(b"connection")
    if options is None:
        return version == "1.1"
    tokens = [token.strip() for token in options.lower().split(b",")]
    return b"close" not in tokens and (version == "1.1" or b"keep-alive" in tokens)


def expects_continue(version: str, values: dict[bytes, bytes]) -> bool:
    """Whether the client waits for 100 (Continue) before it sends the body (RFC 9110 §10.1.1).

    Raises BadRequest 417 for any other expectation.
    """
    expectation = values.get(b"expect")
    if expectation is None or version == "1.0":
        return False
    if expectation.lower() != b"100-continue":
        raise BadRequest(417, f"an expectation that cannot be met: {expectation[:80]!r}")
    return True


def with_host(fields: Fields, host: bytes) -> Fields:
    """Fields with the authority of an absolute-form target for Host (RFC 9112 §3.2.2)."""
    return [(b"host", host), *[field for field in fields if field[0] != b"host"]]


def with_root_path(root_path: str, path: str) -> str:
    """A path below `root_path`, whether or not a proxy has taken that prefix off.

    root_path: without a slash at its end.
    """
    if path == root_path or path.startswith(root_path + "/") or path == "*":
        return path
    return root_path + path
