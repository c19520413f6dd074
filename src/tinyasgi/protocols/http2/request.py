"""Requests of one connection: from header blocks to the values that an exchange needs."""

import re
from typing import NamedTuple

from ...http.client import ClientInfo
from ...http.memo import Memo
from ...http.parsers import TOKEN, BadRequest
from ...http.request import (
    CHUNKED,
    Framing,
    RequestLine,
    expects_continue,
    parse_content_length,
    replace_host,
    valid_authorities,
)
from ...typing import Headers
from .. import refusal
from ..context import Context
from .frames import ConnectionFault, ErrorCode, StreamFault
from .hpack import Decoder, HPACKError, TooManyFields, read_string
from .response import CONNECTION_HEADERS

#: Maximum size of a header block that is remembered, in bytes, and number of such blocks.
MAX_REMEMBERED, BLOCKS = 1024, 16

#: Indexed fields, and a path that enters no table. Clients send most requests like this.
_PATH_LITERAL = re.compile(rb"([\x82-\xfe]*)[\x04\x14]", re.DOTALL)
_NAME_BYTES = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_VALUE_BYTES = bytes({*range(256)} - {*range(9), *range(10, 32), 127})
_PSEUDO_HEADERS = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_SINGLE = frozenset({b"content-length", b"expect", b"host"})


class Request(NamedTuple):
    """A well-formed request without its body. Its list of headers must be copied."""

    line: RequestLine
    headers: Headers
    framing: Framing
    client: ClientInfo
    refused: BadRequest | None = None
    """The request must be answered with this error."""


class _Template(NamedTuple):
    """The meaning of a header block apart from its path."""

    method: bytes
    lines: Memo[bytes, RequestLine]
    headers: Headers
    framing: Framing
    client: ClientInfo
    room: int
    """Maximum length of the path in bytes."""


class RequestReader:
    """Reader of the requests of one connection, which remembers header blocks.

    A block that does not change the dynamic table has the same meaning until another one changes
    it. Most blocks of a client are the same, or differ only in their path.
    """

    __slots__ = ("_blocks", "_context", "_decoder", "_peer", "_templates")

    def __init__(self, context: Context, peer: ClientInfo) -> None:
        self._context = context
        self._peer = peer
        self._decoder = Decoder(context.config.limit_head_fields, context.http2.max_size)
        self._blocks: dict[bytes, Request] = {}
        self._templates: dict[bytes, _Template] = {}

    def read(self, block: bytes) -> Request:
        """Decode a header block. Raise ConnectionFault or, for a malformed request, StreamFault."""
        request = self._blocks.get(block)
        if request is not None:
            return request
        try:
            return self._read(block)
        except HPACKError as error:
            raise _compression_error(error) from None

    def _read(self, block: bytes) -> Request:
        key = b""
        if match := _PATH_LITERAL.match(block):
            try:
                path, end = read_string(block, match.end())
            except IndexError:
                raise HPACKError("incomplete header block") from None
            key = match[1] + b"\4" + block[end:]
            template = self._templates.get(key)
            if template is not None and len(path) <= template.room:
                line = _find_line(template.lines, template.method, path)
                return Request(line, template.headers, template.framing, template.client)
        version = self._decoder.version
        fields, complete = self._decoder.decode(block)
        unchanged = self._check_version(version)
        request = self._make(fields, complete)
        if unchanged and len(block) <= MAX_REMEMBERED and request.refused is None:
            self._remember(block, key, request)
        return request

    def _remember(self, block: bytes, key: bytes, request: Request) -> None:
        if not key:
            if len(self._blocks) >= BLOCKS:
                self._blocks.clear()
            self._blocks[block] = request
            return
        if len(self._templates) >= BLOCKS:
            self._templates.clear()
        line, headers, framing, client, _ = request
        shared = self._context.http2
        room = shared.max_size - sum([len(name) + len(value) + 64 for name, value in headers])
        self._templates[key] = _Template(
            line.method.encode(), shared.lines(client.root_path), headers, framing, client, room
        )

    def skip(self, block: bytes) -> tuple[Headers, bool]:
        """Decode a header block that begins no exchange, because it may change the table.

        Return its fields, and whether these are all. Raise ConnectionFault.
        """
        version = self._decoder.version
        try:
            decoded = self._decoder.decode(block)
        except HPACKError as error:
            raise _compression_error(error) from None
        self._check_version(version)
        return decoded

    def read_trailers(self, block: bytes) -> None:
        """Validate a trailer section, which is dropped. Raise ConnectionFault or StreamFault."""
        fields, complete = self.skip(block)
        pseudo, headers = _split(fields)
        if pseudo:
            raise _malformed("pseudo-header in a trailer section")
        if not complete:
            raise _malformed("trailer section too large")
        _check(headers)

    def _check_version(self, version: int) -> bool:
        """Return whether the dynamic table is unchanged; otherwise forget all blocks."""
        if self._decoder.version == version:
            return True
        self._blocks.clear()
        self._templates.clear()
        return False

    def _make(self, fields: Headers, complete: bool) -> Request:
        """Return the request with these fields. Raise StreamFault.

        complete: False if fields beyond a limit were dropped.
        """
        pseudo, headers = _split(fields)
        _check(headers)
        if not complete:
            return self._refuse(pseudo, headers, self._too_large(fields))
        if pseudo.get(b":method") == b"CONNECT" and b":protocol" not in pseudo:
            if b":path" in pseudo or b":scheme" in pseudo or b":authority" not in pseudo:
                raise _malformed("CONNECT needs :authority, without :scheme and :path")
            return self._refuse(pseudo, headers, BadRequest(501, "CONNECT is not implemented"))
        if not {b":method", b":scheme", b":path"} <= pseudo.keys():
            raise _malformed("missing pseudo-header")
        headers, values = _combine(pseudo.get(b":authority"), headers)
        protocol = pseudo.get(b":protocol")
        method = b"GET" if protocol is not None else pseudo[b":method"]
        if protocol is not None and pseudo[b":method"] != b"CONNECT":
            raise _malformed(":protocol without CONNECT")
        context = self._context
        client = context.client_info(headers, self._peer)
        if client.host is not None:
            headers = replace_host(headers, client.host)
        lines = context.http2.lines(client.root_path)
        line = _find_line(lines, method, pseudo[b":path"])
        refused = None
        framing = Framing(0)
        try:
            framing = _read_framing(values, protocol is not None)
            if protocol is not None:
                refused = BadRequest(501, f"unsupported protocol: {protocol[:80]!r}")
            elif b"host" not in values:
                refused = BadRequest(400, "missing Host header")
        except BadRequest as error:
            if error.status == 400:
                raise _malformed(error.reason) from None
            refused = error
        return Request(line, headers, framing, client, refused)

    def _too_large(self, fields: Headers) -> BadRequest:
        config = self._context.config
        if len(fields) >= config.limit_head_fields:
            return BadRequest(431, f"more than {config.limit_head_fields} headers")
        return BadRequest(431, f"headers exceed --limit-head-size ({config.limit_head_size})")

    def _refuse(self, pseudo: dict[bytes, bytes], headers: Headers, refused: BadRequest) -> Request:
        """Return a request to refuse, with as much as is known of it."""
        method = pseudo.get(b":method", b"")
        method = method if TOKEN.fullmatch(method) else b""
        target = pseudo.get(b":path") or pseudo.get(b":authority", b"")
        try:
            line = _find_line(self._context.http2.lines(None), method, target)
        except StreamFault:
            text = b" ".join((method, target, b"HTTP/2"))
            line = refusal.unknown_line(method.decode(), "2", text)
        client = self._context.client_info(headers, self._peer)
        return Request(line, headers, Framing(CHUNKED), client, refused)


def _compression_error(error: HPACKError) -> ConnectionFault:
    too_many = isinstance(error, TooManyFields)
    code = ErrorCode.ENHANCE_YOUR_CALM if too_many else ErrorCode.COMPRESSION_ERROR
    return ConnectionFault(code, str(error))


def _malformed(reason: str) -> StreamFault:
    """Return the error for a malformed message (RFC 9113 §8.1.1)."""
    return StreamFault(ErrorCode.PROTOCOL_ERROR, reason)


def _find_line(lines: Memo[bytes, RequestLine], method: bytes, path: bytes) -> RequestLine:
    """Return the request line of a method and a path (RFC 9113 §8.3.1). Raise StreamFault."""
    text = method + b" " + path
    line = lines.get(text)
    if line is not None:
        return line
    if not TOKEN.fullmatch(method):
        raise _malformed(f"invalid method: {method[:80]!r}")
    if not path.startswith(b"/") and path != b"*":  # no absolute form
        raise _malformed(f"invalid path: {path[:80]!r}")
    try:
        return lines[text]
    except BadRequest as error:
        raise _malformed(error.reason) from None


def _split(fields: Headers) -> tuple[dict[bytes, bytes], Headers]:
    """Separate pseudo-headers from the headers after them (RFC 9113 §8.3). Raise StreamFault."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _PSEUDO_HEADERS:
            raise _malformed(f"unknown pseudo-header: {name[:80]!r}")
        if name in pseudo:
            raise _malformed(f"repeated pseudo-header: {name.decode()}")
        pseudo[name] = value
    return pseudo, fields[len(pseudo) :]


def _check(headers: Headers) -> None:
    """Validate the bytes of names and values (RFC 9113 §8.2.1). Raise StreamFault."""
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _NAME_BYTES):
        raise _malformed("invalid header name")
    values = b"\n".join([value for _, value in headers])
    if values.translate(None, _VALUE_BYTES) != b"\n" * (len(headers) - 1):
        raise _malformed("control byte in a header value")
    for value in values.split(b"\n") if b" " in values or b"\t" in values else ():
        if value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
            raise _malformed("whitespace around a header value")


def _combine(authority: bytes | None, headers: Headers) -> tuple[Headers, dict[bytes, bytes]]:
    """Return the headers as in HTTP/1.1, and those with a meaning for the server.

    Host comes from :authority; cookies are joined (RFC 9113 §8.2.3, §8.3.1). Raise StreamFault.
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
                raise _malformed(f"repeated header: {name.decode()}")
            values[name] = value
            if name == b"host":
                continue
        elif name in CONNECTION_HEADERS or (name == b"te" and value.lower() != b"trailers"):
            raise _malformed(f"header not allowed in HTTP/2: {name.decode()}")
        combined.append(field)
    if len(cookies) > 1:
        joined = b"cookie", b"; ".join(cookies)
        combined = [joined if field[0] == b"cookie" else field for field in combined]
    host = values.get(b"host", authority)
    if host is not None:
        if not valid_authorities[host]:
            raise _malformed(f"invalid authority: {host[:80]!r}")
        if authority is not None and authority.lower() != host.lower():
            raise _malformed(":authority and Host differ")
        values[b"host"] = host
        combined.insert(0, (b"host", host))
    return combined, values


def _read_framing(values: dict[bytes, bytes], websocket: bool) -> Framing:
    """Return the framing of a request that has a body. Raise BadRequest."""
    length = values.get(b"content-length")
    return Framing(
        CHUNKED if length is None else parse_content_length(length),
        expects_continue=expects_continue(values.get(b"expect")),
        wants_websocket=websocket,
    )
