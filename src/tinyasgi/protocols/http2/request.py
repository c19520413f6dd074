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
)
from ...typing import Headers
from .. import refusal
from ..context import Context
from .fields import check, combine, malformed, split
from .frames import ConnectionFault, ErrorCode, StreamFault
from .hpack import Decoder, HPACKError, TooManyFields, read_string

#: Maximum size of a header block that is remembered, in bytes, and number of such blocks.
MAX_REMEMBERED, BLOCKS = 1024, 16

#: Indexed fields, and a path that is not added to the table. Most requests begin like this.
_PATH_LITERAL = re.compile(rb"([\x82-\xfe]*)[\x04\x14]", re.DOTALL)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")  # RFC 3986 §3.1


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
        """Decode a header block.

        Raises ConnectionFault or, for a malformed request, StreamFault.
        """
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
        """Decode a header block without an exchange: it may change the dynamic table.

        Return its fields, and whether these are all. Raises ConnectionFault.
        """
        version = self._decoder.version
        try:
            decoded = self._decoder.decode(block)
        except HPACKError as error:
            raise _compression_error(error) from None
        self._check_version(version)
        return decoded

    def read_trailers(self, block: bytes) -> None:
        """Validate a trailer section, which is dropped. Raises ConnectionFault or StreamFault."""
        fields, complete = self.skip(block)
        pseudo, headers = split(fields)
        if pseudo:
            raise malformed("pseudo-header in a trailer section")
        if not complete:
            raise malformed("trailer section too large")
        check(headers)
        combine(None, headers)

    def _check_version(self, version: int) -> bool:
        """Return whether the dynamic table is unchanged; otherwise forget all blocks."""
        if self._decoder.version == version:
            return True
        self._blocks.clear()
        self._templates.clear()
        return False

    def _make(self, fields: Headers, complete: bool) -> Request:
        """Return the request with these fields. Raises StreamFault.

        complete: False if fields beyond a limit were dropped.
        """
        pseudo, headers = split(fields)
        check(headers)
        if not complete:
            return self._refuse(pseudo, headers, self._too_large(fields))
        if pseudo.get(b":method") == b"CONNECT" and b":protocol" not in pseudo:
            if b":path" in pseudo or b":scheme" in pseudo or b":authority" not in pseudo:
                raise malformed("CONNECT needs :authority, without :scheme and :path")
            return self._refuse(pseudo, headers, BadRequest(501, "CONNECT is not implemented"))
        if not {b":method", b":scheme", b":path"} <= pseudo.keys():
            raise malformed("missing pseudo-header")
        if not _SCHEME.fullmatch(pseudo[b":scheme"]):
            raise malformed(f"invalid scheme: {pseudo[b':scheme'][:80]!r}")
        headers, values = combine(pseudo.get(b":authority"), headers)
        protocol = pseudo.get(b":protocol")
        method = b"GET" if protocol is not None else pseudo[b":method"]
        if protocol is not None and pseudo[b":method"] != b"CONNECT":
            raise malformed(":protocol without CONNECT")
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
            if protocol is not None and (protocol != b"websocket" or context.config.ws == "none"):
                refused = BadRequest(501, f"unsupported protocol: {protocol[:80]!r}")
            elif b"host" not in values:
                refused = BadRequest(400, "missing Host header")
        except BadRequest as error:
            if error.status == 400:
                raise malformed(error.reason) from None
            refused = error
        return Request(line, headers, framing, client, refused)

    def _too_large(self, fields: Headers) -> BadRequest:
        config = self._context.config
        if len(fields) >= config.limit_head_fields:
            return BadRequest(431, f"more than {config.limit_head_fields} headers")
        return BadRequest(431, f"headers exceed --limit-head-size ({config.limit_head_size})")

    def _refuse(self, pseudo: dict[bytes, bytes], headers: Headers, refused: BadRequest) -> Request:
        """Return a request to refuse, with its known values."""
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


def _find_line(lines: Memo[bytes, RequestLine], method: bytes, path: bytes) -> RequestLine:
    """Return the request line of a method and a path (RFC 9113 §8.3.1). Raises StreamFault."""
    text = method + b" " + path
    line = lines.get(text)
    if line is not None:
        return line
    if not TOKEN.fullmatch(method):
        raise malformed(f"invalid method: {method[:80]!r}")
    if not path.startswith(b"/") and path != b"*":  # no absolute form
        raise malformed(f"invalid path: {path[:80]!r}")
    try:
        return lines[text]
    except BadRequest as error:
        raise malformed(error.reason) from None


def _read_framing(values: dict[bytes, bytes], websocket: bool) -> Framing:
    """Return the framing of a request that has a body. Raises BadRequest."""
    length = values.get(b"content-length")
    return Framing(
        CHUNKED if length is None else parse_content_length(length),
        expects_continue=expects_continue(values.get(b"expect")),
        wants_websocket=websocket,
    )
