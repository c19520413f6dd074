"""A table of HTTP/1.1 cases: bytes of the client → requests in the app → bytes of the server.

`section` assigns rows to a section of an RFC. `served` and `refused` create the two common kinds of
rows. By default, the app of a row reads the whole body of a request and responds with OK. The
headers Date and Server are disabled, so all bytes of a response are known. Only the body of a
refusal, which contains the reason, is not compared.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]
Reads = bytes | tuple[bytes, ...]

# Steps of an app besides messages and exceptions.
READ = "reads the body of the request to its end"
LEFT = "waits until the client has left"
FOREVER = "waits"


def does(*steps: Any) -> App:
    """Return an app with these steps: it sends a dict, raises an exception, reads at READ."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if step is READ:
                while (await receive()).get("more_body"):
                    pass
            elif step is LEFT:
                while (await receive())["type"] != "http.disconnect":
                    pass
            elif step is FOREVER:
                await asyncio.Event().wait()
            elif isinstance(step, Exception):
                raise step
            else:
                await send(step)

    return app


def start(*fields: tuple[Any, Any], status: Any = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": fields}


def part(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


def last(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body}


def says(*bodies: bytes, status: Any = 200, fields: Sequence[tuple[Any, Any]] = ()) -> App:
    """Return an app that reads the request and responds with these pieces of body."""
    *parts, end = bodies
    return does(READ, start(*fields, status=status), *map(part, parts), last(end))


ANSWER = says(b"ok")


@dataclass
class Seen:
    """A request in the app."""

    method: str = "GET"
    path: str = "/"
    raw_path: bytes = b""  # empty: the encoded path
    query: bytes = b""
    _: KW_ONLY
    version: str = "1.1"
    headers: list[tuple[bytes, bytes]] | None = None  # None: not compared
    body: bytes | None = b""  # None: the app did not read to the end

    def __post_init__(self) -> None:
        self.raw_path = self.raw_path or self.path.encode()


@dataclass(frozen=True)
class Row:
    """One row.

    reads: bytes that may be cut anywhere, or a tuple of steps. The client sends a step when the
    server is idle. sends: the responses in order, as exact bytes. The last one may be the status of
    a refusal, after which the server closes the connection.
    """

    name: str
    reads: Reads
    sees: tuple[Seen, ...] = ()
    sends: tuple[bytes | int, ...] = ()
    _: KW_ONLY
    ends: str = "open"  # state of the connection at the end: "open", "closed" or "aborted"
    app: App = ANSWER
    options: Mapping[str, Any] = field(default_factory=dict)
    eof: bool = False  # the client half-closes the connection
    cut: bool = True  # False: the reads are not cut
    rfc: str = ""


def section(rfc: str, *rows: Row) -> list[Row]:
    """Assign rows to a section of an RFC, such as "9112 §2.2"."""
    return [replace(row, rfc=rfc) for row in rows]


def served(name: str, reads: Reads, *sees: Seen, **others: Any) -> Row:
    """Return a row of requests to which the app responds OK."""
    return Row(name, reads, sees, (OK,) * len(sees), **others)


def refused(name: str, reads: Reads, status: int, *sees: Seen, **others: Any) -> Row:
    """Return a row of a request that the server refuses.

    sees: the request in the app, if the error is in a later read than the head.
    """
    return Row(name, reads, sees, (status,), ends="closed", **others)


def refusals(
    prefix: str, status: int, make: Callable[[bytes], bytes], cases: dict[str, bytes], *sees: Seen
) -> list[Row]:
    """Return rows that differ in one place."""
    return [refused(f"{prefix}-{case}", make(it), status, *sees) for case, it in cases.items()]


def closing(name: str, reads: Reads, *sees: Seen, **others: Any) -> Row:
    """Return a row of requests. The last response has `connection: close`."""
    return Row(name, reads, sees, (*[OK] * (len(sees) - 1), OK_CLOSE), ends="closed", **others)


def responds(name: str, app: App, *sends: bytes, reads: Reads = b"", **others: Any) -> Row:
    """Return a row for the response of an app."""
    words = (reads or GET).split() if isinstance(reads, bytes) else reads[0].split()
    seen = Seen(words[0].decode(), version=words[2][-3:].decode())
    return Row(name, reads or GET, (seen,), sends, app=app, **others)


def fails(name: str, *fields: tuple[Any, Any]) -> Row:
    """Return a row for invalid response headers. The app gets an exception, the client a 500."""
    return responds(name, says(b"ok", fields=fields), ERROR)


# Requests.


def head(line: bytes, *fields: bytes) -> bytes:
    """Return a request head."""
    return b"\r\n".join([line, *fields, b"", b""])


def get(*fields: bytes) -> bytes:
    return head(b"GET / HTTP/1.1", b"Host: a", *fields)


def to(target: bytes, method: bytes = b"GET") -> bytes:
    return head(b"%b %b HTTP/1.1" % (method, target), b"Host: a")


def options(target: bytes) -> bytes:
    return to(target, b"OPTIONS")


def host(value: bytes) -> bytes:
    return head(b"GET / HTTP/1.1", b"Host: " + value)


def post(*fields: bytes) -> bytes:
    return head(b"POST / HTTP/1.1", b"Host: a", *fields)


def sized(body: bytes, *fields: bytes) -> bytes:
    return post(b"Content-Length: %d" % len(body), *fields) + body


def chunked(coded: bytes, *fields: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *fields) + coded


def old(*fields: bytes) -> bytes:
    return head(b"GET / HTTP/1.0", *fields)


def in_two(message: bytes) -> tuple[bytes, bytes]:
    """Return two reads: a head and a body."""
    end = message.index(b"\r\n\r\n") + 4
    return message[:end], message[end:]


GET = get()
HEAD = to(b"/", b"HEAD")
POST = sized(b"hello")
LAST = b"0\r\n\r\n"  # chunk
HELLO = b"5\r\nhello\r\n" + LAST
CHUNKED = chunked(HELLO)

POSTED = Seen("POST", body=b"hello")
BROKEN = Seen("POST", body=None)
OLD = Seen(version="1.0")

# Responses.


def reply(*fields: bytes, status: bytes = b"200 OK", body: bytes = b"") -> bytes:
    return head(b"HTTP/1.1 " + status, *fields) + body


def plus_close(response: bytes) -> bytes:
    return response.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)


OK = reply(b"content-length: 2", body=b"ok")
OK_CLOSE = plus_close(OK)
OK_KEEP = reply(b"content-length: 2", b"connection: keep-alive", body=b"ok")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TEXT = b"content-type: text/plain; charset=utf-8"
FAULT = b"Internal Server Error"
ERROR = reply(TEXT, b"content-length: 21", status=b"500 " + FAULT, body=FAULT)
STREAM = b"transfer-encoding: chunked"
A_B = b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
NO_CONTENT = reply(status=b"204 No Content")
NOT_MODIFIED = reply(status=b"304 Not Modified")

# Messages.

VERSIONS_505 = ["0.9", "1.2", "1.9", "2.0", "3.0", "9.9"]
VERSIONS_400 = {
    "lower-case": b"http/1.1",
    "mixed-case": b"Http/1.1",
    "no-dot": b"HTTP/11",
    "no-minor": b"HTTP/1",
    "no-minor-digit": b"HTTP/1.",
    "no-number": b"HTTP/",
    "two-digit-major": b"HTTP/01.1",
    "two-digit-minor": b"HTTP/1.10",
    "three-parts": b"HTTP/1.1.1",
    "comma": b"HTTP/1,1",
    "sign": b"HTTP/+1.1",
    "space": b"HTTP/1. 1",
    "space-after": b"HTTP/1.1 ",
    "tab-after": b"HTTP/1.1\t",
    "nul-after": b"HTTP/1.1\0",
    "other-protocol": b"ICE/1.0",
    "rtsp": b"RTSP/1.0",
}

MESSAGE = [
    *section(
        "9112 §2.1",
        served("one-request", GET, Seen(headers=[(b"host", b"a")])),
        served("one-request-with-body", POST, POSTED),
        Row("nothing-yet", b""),
        Row("head-not-there-yet", GET[:-1]),
    ),
    *section(
        "9112 §2.2",
        served("empty-line-first", b"\r\n" + GET, Seen()),
        served("empty-lines-first", b"\r\n" * 50 + GET, Seen()),
        served("empty-line-between", POST + b"\r\n" + GET, POSTED, Seen()),
        Row("empty-lines-only", b"\r\n" * 50),
        refused("lf-first", b"\n" + GET, 400),
        refused("lf-everywhere", GET.replace(b"\r\n", b"\n"), 400),
        refused("lf-ends-request-line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        refused("lf-ends-field-line", b"GET / HTTP/1.1\r\nA: b\nHost: a\r\n\r\n", 400),
        refused("lf-ends-last-field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        refused("lf-ends-head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        refused("lf-hides-a-field", get(b"A: b\nTransfer-Encoding: chunked"), 400),
        refused("cr-first", b"\r" + GET, 400),
        refused("cr-everywhere", GET.replace(b"\r\n", b"\r"), 400),
        refused("line-0.9-alone", b"GET /\r\n", 400),
        refused("version-2.0-line-alone", b"GET / HTTP/2.0\r\n", 505),
        refused("cr-cr-lf-first", b"\r\r\n" + GET, 400),
        refused("cr-ends-request-line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        refused("cr-ends-field-line", get(b"A: b\rC: d"), 400),
        refused("cr-in-field-value", get(b"A: b\rc"), 400),
        refused("cr-before-field-name", get(b"\rA: b"), 400),
        refused("cr-before-crlf", get(b"A: b\r"), 400),
        refused("cr-in-target", to(b"/a\rb"), 400),
        refused("space-before-first-field", head(b"GET / HTTP/1.1", b" Host: a"), 400),
        refused("tab-before-first-field", head(b"GET / HTTP/1.1", b"\tA: b", b"Host: a"), 400),
        refused("whitespace-line-before-fields", head(b"GET / HTTP/1.1", b" ", b"Host: a"), 400),
        refused("tls-hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160), 400),
        refused("nul-bytes", bytes(100), 400),
        refused("not-http", b"\x80\x81\x82\x83\r\n\r\n", 400),
        refused("json", b'{"a": 1}\r\n\r\n', 400),
    ),
    *section(
        "9112 §2.3",
        closing("version-1.0", old(), OLD),
        served("version-1.1", GET, Seen(version="1.1")),
        *refusals(
            "version",
            505,
            lambda version: head(b"GET / HTTP/" + version, b"Host: a"),
            {version: version.encode() for version in VERSIONS_505},
        ),
        *refusals(
            "version",
            400,
            lambda version: head(b"GET / " + version, b"Host: a"),
            VERSIONS_400,
        ),
        refused(
            "http2-preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            505,
            options={"http2": False},
        ),
    ),
]

# Request lines.

METHODS = ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY", "PROPFIND", "M-SEARCH", "SOURCE"]
METHODS += ["DESCRIBE", "PRI", "FOO", "get", "Get", "g", "0", "!#$%&'*+-.^_`|~", "X" * 200]
METHODS_400 = {
    "empty": b"",
    "space-before": b" GET",
    "tab-before": b"\tGET",
    "parenthesis": b"G(T",
    "colon": b"GET:",
    "quoted": b'"GET"',
    "nul": b"G\0T",
    "control": b"G\x01T",
    "del": b"G\x7fT",
    "non-ascii": b"G\xc9T",
}
LINES_400 = {
    "0.9": b"GET /",
    "0.9-with-space": b"GET / ",
    "method-alone": b"GET",
    "no-target": b"GET HTTP/1.1",
    "empty-target": b"GET  HTTP/1.1",
    "two-spaces-before-target": b"GET  / HTTP/1.1",
    "two-spaces-before-version": b"GET /  HTTP/1.1",
    "tabs-for-spaces": b"GET\t/\tHTTP/1.1",
    "tab-before-target": b"GET\t/ HTTP/1.1",
    "tab-before-version": b"GET /\tHTTP/1.1",
    "vertical-tab-before-version": b"GET /\x0bHTTP/1.1",
    "space-in-target": b"GET /a b HTTP/1.1",
    "none": b"A: b",
    "response": b"HTTP/1.1 200 OK",
}

REQUEST_LINE = [
    *section(
        "9110 §9.1",
        *[
            served(f"method-{method[:15]}", to(b"/a", method.encode()), Seen(method, "/a"))
            for method in METHODS
        ],
    ),
    *section(
        "9112 §3",
        *refusals("method", 400, lambda method: to(b"/", method), METHODS_400),
        *refusals("line", 400, lambda line: head(line, b"Host: a"), LINES_400),
    ),
]

# Targets.

TARGETS_400 = {
    "no-slash": b"a",
    "query-alone": b"?a",
    "dot": b".",
    "fragment": b"/a#b",
    "fragment-alone": b"#",
    "fragment-after-query": b"/a?b#c",
    "quote": b'/"',
    "quote-in-query": b'/?"',
    "angles": b"/<a>",
    "angles-in-query": b"/?<a>",
    "braces-in-path": b"/{a}",
    "backtick-in-path": b"/`",
    "backslash-in-path": b"/\\a",
    "backslash-first": b"\\a",
    "nul": b"/\0",
    "control": b"/\x01",
    "control-in-query": b"/?\x1f",
    "form-feed": b"/\x0c",
    "del": b"/\x7f",
    "latin-1": b"/\xe9",
    "utf-8": b"/\xc3\xa9",
    "utf-8-in-query": b"/?\xc3\xa9",
    "byte-ff": b"/\xff",
}
DECODED = {
    "space": (b"/a%20b", "/a b"),
    "lower-case": (b"/%c3%a9", "/\xe9"),
    "upper-case": (b"/%E2%82%AC", "/\u20ac"),
    "four-bytes": (b"/%F0%9F%98%80", "/\U0001f600"),
    "slash": (b"/a%2Fb", "/a/b"),
    "once-only": (b"/%2541", "/%41"),
    "question": (b"/a%3Fb", "/a?b"),
    "fragment": (b"/a%23b", "/a#b"),
    "nul": (b"/%00", "/\0"),
    "crlf": (b"/%0d%0a", "/\r\n"),
    "latin-1": (b"/%e9", "/\ufffd"),
    "overlong": (b"/%c0%af", "/\ufffd\ufffd"),
    "surrogate": (b"/%ed%a0%80", "/\ufffd\ufffd\ufffd"),
    "cut-short": (b"/%e2%82", "/\ufffd"),
    "not-hex": (b"/%zz", "/%zz"),
    "half": (b"/%4", "/%4"),
    "alone": (b"/%", "/%"),
    "doubled": (b"/%%41", "/%A"),
    "mixed": (b"/%zz%41%", "/%zzA%"),
}
ABSOLUTE_400 = {
    "nothing": b"http://",
    "empty-host": b"http:///a",
    "one-slash": b"http:/a",
    "userinfo": b"http://u@b/",
    "password": b"http://u:p@b/",
    "comma": b"http://b,c/",
    "bad-port": b"http://b:http/",
    "fragment": b"http://b/#c",
    "fragment-without-path": b"http://b#c",
    "backslash": b"http://b\\c/",
    "non-ascii": b"http://\xe9/",
    "ftp": b"ftp://b/",
    "no-authority": b"javascript:a",
}

TARGET = [
    *section(
        "9112 §3.2.1",
        served("target-path", to(b"/a/b.c"), Seen("GET", "/a/b.c")),
        served("target-query", to(b"/a?b=c&d"), Seen("GET", "/a", query=b"b=c&d")),
        served("target-empty-query", to(b"/a?"), Seen("GET", "/a")),
        served("target-question-in-query", to(b"/a?b?c/d"), Seen("GET", "/a", query=b"b?c/d")),
        served("target-two-slashes", to(b"//a"), Seen("GET", "//a")),
        served("target-two-slashes-port", to(b"//b:80/c"), Seen("GET", "//b:80/c")),
        served("target-slashes-only", to(b"///"), Seen("GET", "///")),
        served("target-dots-kept", to(b"/a/../b/./c"), Seen("GET", "/a/../b/./c")),
        served("target-url-in-path", to(b"/http://b/"), Seen("GET", "/http://b/")),
        served("target-sub-delims", to(b"/-._~!$&'()*+,;=:@"), Seen("GET", "/-._~!$&'()*+,;=:@")),
        served("target-raw-in-path", to(b"/[a]^|"), Seen("GET", "/[a]^|")),
        served("target-raw-in-query", to(b"/?[]^|`{}\\"), Seen(query=b"[]^|`{}\\")),
        served("target-2000-bytes", to(b"/" + b"a" * 2000), Seen("GET", "/" + "a" * 2000)),
        *refusals("target", 400, to, TARGETS_400),
    ),
    *section(
        "9110 §4.2.3",
        *[
            served(f"percent-{case}", to(target), Seen("GET", path, target))
            for case, (target, path) in DECODED.items()
        ],
        served("percent-in-query", to(b"/?a=%20%zz%e9"), Seen(query=b"a=%20%zz%e9")),
    ),
    *section(
        "9112 §3.2.2",
        served("absolute", to(b"http://b/c?d"), Seen("GET", "/c", query=b"d")),
        served(
            "absolute-replaces-host",
            head(b"GET http://b:80/ HTTP/1.1", b"A: 1", b"Host: a", b"C: 2"),
            Seen(headers=[(b"host", b"b:80"), (b"a", b"1"), (b"c", b"2")]),
        ),
        closing(
            "absolute-adds-host-in-1.0",
            head(b"GET http://b/ HTTP/1.0"),
            Seen(version="1.0", headers=[(b"host", b"b")]),
        ),
        served("absolute-without-path", to(b"http://b"), Seen()),
        served("absolute-without-path-with-query", to(b"http://b?c"), Seen(query=b"c")),
        served("absolute-upper-case", to(b"HTTP://B/C"), Seen("GET", "/C")),
        served("absolute-https", to(b"https://b/"), Seen()),
        served("absolute-ipv6", to(b"http://[::1]:80/"), Seen(headers=[(b"host", b"[::1]:80")])),
        served("absolute-two-slashes", to(b"http://b//c"), Seen("GET", "//c")),
        served("absolute-percent", to(b"http://b/%41"), Seen("GET", "/A", b"/%41")),
        served("absolute-post", to(b"http://b/", b"POST"), Seen("POST")),
        refused("absolute-without-host-field", head(b"GET http://b/ HTTP/1.1"), 400),
        refused("absolute-bad-host-field", head(b"GET http://b/ HTTP/1.1", b"Host: a/"), 400),
        *refusals("absolute", 400, to, ABSOLUTE_400),
    ),
    *section(
        "9112 §3.2.3",
        refused("connect", head(b"CONNECT a:80 HTTP/1.1", b"Host: a:80"), 501),
        refused("connect-path", to(b"/", b"CONNECT"), 501),
        refused("connect-lower-case", head(b"connect a:80 HTTP/1.1", b"Host: a:80"), 400),
        refused("authority-for-get", to(b"a:80"), 400),
        refused("authority-for-options", options(b"a:80"), 400),
    ),
    *section(
        "9112 §3.2.4",
        served("asterisk", options(b"*"), Seen("OPTIONS", "*")),
        served("asterisk-absolute", options(b"http://b"), Seen("OPTIONS", "*")),
        served("options-path", options(b"/a"), Seen("OPTIONS", "/a")),
        served("options-absolute-path", options(b"http://b/"), Seen("OPTIONS")),
        served("asterisk-in-path", to(b"/*"), Seen("GET", "/*")),
        refused("asterisk-get", to(b"*"), 400),
        refused("asterisk-query", options(b"*?a"), 400),
        refused("asterisk-path", options(b"*/a"), 400),
        refused("asterisk-twice", options(b"**"), 400),
    ),
]

# Host.

HOSTS = {
    "name": b"example.org",
    "upper-case": b"EXAMPLE.org",
    "port": b"example.org:8000",
    "empty-port": b"example.org:",
    "ipv4": b"127.0.0.1:80",
    "ipv6": b"[::1]",
    "ipv6-port": b"[2001:db8::1]:8000",
    "ipv6-ipv4": b"[::ffff:127.0.0.1]",
    "underscore": b"a_b",
    "dot-at-end": b"example.org.",
    "percent": b"ex%61mple",
    "sub-delims": b"a!$&'()*+;=b",
}
HOSTS_400 = {
    "empty": b"",
    "comma": b"a,b",
    "list": b"a, a",
    "userinfo": b"user@a",
    "password": b"user:secret@a",
    "path": b"a/b",
    "slash": b"a/",
    "query": b"a?b",
    "fragment": b"a#b",
    "scheme": b"http://a",
    "space": b"a b",
    "tab": b"a\tb",
    "port-alone": b":80",
    "port-word": b"a:http",
    "port-sign": b"a:+80",
    "port-6-digits": b"a:000080",
    "port-twice": b"a:80:80",
    "ipv6-bare": b"::1",
    "ipv6-open": b"[::1",
    "ipv6-letters": b"[::g]",
    "ipv6-empty": b"[]",
    "ipv6-tail": b"[::1]a",
    "percent": b"a%2",
    "backslash": b"a\\b",
    "quote": b'"a"',
    "angles": b"<a>",
    "non-ascii": b"\xc3\xa9",
}

HOST = [
    *section(
        "9110 §7.2",
        *[
            served(f"host-{case}", host(value), Seen(headers=[(b"host", value)]))
            for case, value in HOSTS.items()
        ],
        *refusals("host-bad", 400, host, HOSTS_400),
    ),
    *section(
        "9112 §3.2",
        refused("host-missing", head(b"GET / HTTP/1.1"), 400),
        refused("host-missing-among-others", head(b"GET / HTTP/1.1", b"A: b", b"XHost: a"), 400),
        refused("host-twice", get(b"Host: b"), 400),
        refused("host-twice-the-same", get(b"Host: a"), 400),
        refused("host-twice-other-case", get(b"HOST: a"), 400),
        refused("host-twice-one-empty", get(b"Host:"), 400),
        refused("host-twice-in-1.0", old(b"Host: a", b"Host: b"), 400),
        refused("host-bad-in-1.0", old(b"Host: a/b"), 400),
        closing("host-in-1.0", old(b"Host: a"), Seen(version="1.0", headers=[(b"host", b"a")])),
        closing("host-missing-in-1.0", old(), Seen(version="1.0", headers=[])),
    ),
]

# Headers.

VALUES = {
    "value": (b"A: b", b"b"),
    "no-space": (b"A:b", b"b"),
    "spaces-around": (b"A:   b   ", b"b"),
    "tabs-around": (b"A:\t b \t", b"b"),
    "spaces-within": (b"A: b  c\td", b"b  c\td"),
    "empty": (b"A:", b""),
    "spaces-only": (b"A:  \t ", b""),
    "colon-in-value": (b"A: b:c: d", b"b:c: d"),
    "colon-first-in-value": (b"A::b", b":b"),
    "quoted": (b'A: "b, c"', b'"b, c"'),
    "punctuation": (b"A: !~(){}[]<>@\\^|`", b"!~(){}[]<>@\\^|`"),
    "obs-text": (b"A: \x80\xe9\xff", b"\x80\xe9\xff"),
    "obs-text-at-the-ends": (b"A: \xa0b\x85", b"\xa0b\x85"),
    "lower-case": (b"a: B", b"B"),
    "long": (b"A: " + b"b" * 3000, b"b" * 3000),
}
NAMES_400 = {
    "empty": b": b",
    "missing-colon": b"A",
    "missing-colon-two-words": b"A b",
    "space-before-colon": b"A : b",
    "tab-before-colon": b"A\t: b",
    "space-within": b"A B: c",
    "parenthesis": b"A(b): c",
    "slash": b"A/b: c",
    "equals": b"A=b: c",
    "comma": b"A,b: c",
    "at": b"A@: c",
    "brackets": b"[A]: c",
    "braces": b"{A}: c",
    "quote": b'"A": c',
    "backslash": b"A\\: c",
    "non-ascii": b"\xc3\xa9: c",
    "nul": b"A\0: c",
    "control": b"A\x01: c",
    "del": b"A\x7f: c",
    "vertical-tab": b"A\x0b: c",
    "non-breaking-space": b"A\xa0: c",
}
FOLDS = {
    "space": b"A: b\r\n c",
    "tab": b"A: b\r\n\tc",
    "nothing": b"A: b\r\n ",
    "empty-value": b"A:\r\n b",
    "coding": b"Transfer-Encoding:\r\n chunked",
    "coding-within": b"Transfer-Encoding: chun\r\n ked",
    "length": b"Content-Length:\r\n 5",
    "into-a-field": b"A: b\r\n Content-Length: 5",
}

FIELDS = [
    *section(
        "9112 §5",
        *[
            served(f"field-{case}", get(line), Seen(headers=[(b"host", b"a"), (b"a", value)]))
            for case, (line, value) in VALUES.items()
        ],
        served(
            "field-order",
            head(b"GET / HTTP/1.1", b"B: 1", b"HOST: a", b"A: 2", b"b: 3", b"B: 1"),
            Seen(headers=[(b"b", b"1"), (b"host", b"a"), (b"a", b"2"), (b"b", b"3"), (b"b", b"1")]),
        ),
        served(
            "field-name-token",
            get(b"!#$%&'*+-.^_`|~09AZaz: b"),
            Seen(headers=[(b"host", b"a"), (b"!#$%&'*+-.^_`|~09azaz", b"b")]),
        ),
        served(
            "field-name-underscore",
            get(b"X_A: 1", b"X-A: 2"),
            Seen(headers=[(b"host", b"a"), (b"x_a", b"1"), (b"x-a", b"2")]),
        ),
        served("field-hop-by-hop", get(b"Connection: a", b"Keep-Alive: b", b"TE: c"), Seen()),
        *refusals("field-name", 400, get, NAMES_400),
        refused("host-space-before-colon", head(b"GET / HTTP/1.1", b"Host : a"), 400),
        refused("length-space-before-colon", post(b"Content-Length : 5") + b"hello", 400),
        refused("coding-space-before-colon", post(b"Transfer-Encoding : chunked") + HELLO, 400),
    ),
    *section(
        "9112 §5.2",
        *refusals("fold", 400, lambda lines: post(lines) + HELLO, FOLDS),
        refused("fold-host", host(b"\r\n a"), 400),
    ),
    *section(
        "9110 §5.5",
        *[
            refused(f"field-byte-{byte:02x}", get(b"A: b%cc" % byte), 400)
            for byte in (*range(9), *range(10, 32), 127)
        ],
        refused("field-nul-alone", get(b"A: \0"), 400),
        refused("field-control-last", get(b"A: b\x0b"), 400),
        refused("field-control-last-del", get(b"A: b\x7f"), 400),
        refused("field-escape-sequence", get(b"A: \x1b[31m"), 400),
    ),
]

# Framing of request bodies.

CODINGS = {
    "mixed-case": b"Transfer-Encoding: cHuNkEd",
    "upper-case": b"TRANSFER-ENCODING: CHUNKED",
    "tab-before": b"Transfer-Encoding:\tchunked",
    "spaces-around": b"Transfer-Encoding:   chunked\t ",
    "no-space": b"Transfer-Encoding:chunked",
}
CODINGS_501 = {
    "gzip-chunked": b"gzip, chunked",
    "gzip-chunked-tight": b"gzip,chunked",
    "two-then-chunked": b"deflate,\tgzip , CHUNKED",
}
CODINGS_400 = {
    "gzip": b"gzip",
    "identity": b"identity",
    "chunked-twice": b"chunked, chunked",
    "chunked-gzip": b"chunked, gzip",
    "chunked-identity": b"chunked, identity",
    "chunked-gzip-chunked": b"chunked, gzip, chunked",
    "xchunked": b"xchunked",
    "chunkedx": b"chunkedx",
    "chunk": b"chunk",
    "parameter": b"chunked;q=1",
    "quoted": b'"chunked"',
    "space-within": b"chun ked",
    "space-for-comma": b"gzip chunked",
    "tab-for-comma": b"chunked\tchunked",
    "comma-before": b", chunked",
    "comma-after": b"chunked,",
    "empty": b"",
    "vertical-tab": b"\x0bchunked",
    "form-feed": b"chunked\x0c",
    "nul": b"chunked\0",
    "obs-text": b"\xa0chunked",
}
LENGTHS_400 = {
    "plus": b"+5",
    "minus": b"-5",
    "minus-zero": b"-0",
    "hex": b"0x5",
    "float": b"5.0",
    "exponent": b"5e0",
    "underscore": b"1_0",
    "space-within": b"5 5",
    "list": b"5, 5",
    "list-tight": b"5,5",
    "list-differing": b"5, 6",
    "list-empty-element": b"5,",
    "empty": b"",
    "word": b"five",
    "quoted": b'"5"',
    "64-bits": b"18446744073709551616",
    "40-digits": b"9" * 40,
    "5000-digits": b"9" * 5000,
    "arabic-digit": "\u0665".encode(),
    "superscript": b"\xb2",
    "vertical-tab": b"\x0b5",
}
BINARY = bytes(range(256))

FRAMING = [
    *section(
        "9112 §6.1",
        served("coding-chunked", CHUNKED, POSTED),
        *[served(f"coding-{case}", post(it) + HELLO, POSTED) for case, it in CODINGS.items()],
        served("coding-get", get(b"Transfer-Encoding: chunked") + HELLO, Seen(body=b"hello")),
        *refusals("coding", 501, lambda it: post(b"Transfer-Encoding: " + it), CODINGS_501),
        *refusals("coding", 400, lambda it: post(b"Transfer-Encoding: " + it) + HELLO, CODINGS_400),
        refused("coding-repeated", chunked(HELLO, b"Transfer-Encoding: chunked"), 400),
        refused("coding-repeated-gzip", chunked(HELLO, b"Transfer-Encoding: gzip"), 400),
        refused("coding-repeated-identity", chunked(HELLO, b"Transfer-Encoding: identity"), 400),
        refused("coding-repeated-empty", chunked(HELLO, b"Transfer-Encoding:"), 400),
        refused(
            "coding-repeated-gzip-first",
            post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked") + HELLO,
            501,
        ),
        refused("coding-in-1.0", old(b"Transfer-Encoding: chunked") + HELLO, 400),
        refused(
            "coding-in-1.0-kept-alive",
            old(b"Transfer-Encoding: chunked", b"Connection: keep-alive") + HELLO,
            400,
        ),
        refused("coding-unknown-in-1.0", old(b"Transfer-Encoding: gzip"), 400),
    ),
    *section(
        "9112 §6.2",
        served("length", sized(b"hello"), POSTED),
        served("length-zero", sized(b""), Seen("POST")),
        served("length-absent", post(), Seen("POST")),
        served("length-get", get(b"Content-Length: 5") + b"hello", Seen(body=b"hello")),
        served("length-leading-zeros", post(b"Content-Length: 0005") + b"hello", POSTED),
        served("length-zeros", post(b"Content-Length: 000"), Seen("POST")),
        served("length-spaces-around", post(b"Content-Length:  5\t ") + b"hello", POSTED),
        served("length-binary-body", sized(BINARY), Seen("POST", body=BINARY)),
        served("length-request-for-body", sized(GET), Seen("POST", body=GET)),
        served("length-then-request", POST + GET, POSTED, Seen()),
        served("length-name-with-underscore", get(b"Content_Length: 5"), Seen()),
        Row("length-not-there-yet", POST[:-1], (BROKEN,)),
        *refusals("length", 400, lambda it: post(b"Content-Length: " + it) + b"hello", LENGTHS_400),
        refused("length-twice", sized(b"hello", b"Content-Length: 6"), 400),
        refused("length-twice-the-same", sized(b"hello", b"Content-Length: 5"), 400),
        refused("length-twice-zero", sized(b"", b"Content-Length: 0"), 400),
        refused("length-twice-one-empty", sized(b"hello", b"Content-Length:"), 400),
        refused("length-bad-in-1.0", old(b"Content-Length: +5"), 400),
        refused("length-bad-get", get(b"Content-Length: x"), 400),
    ),
    *section(
        "9112 §6.3",
        refused("coding-then-length", chunked(HELLO, b"Content-Length: 5"), 400),
        refused("length-then-coding", sized(b"", b"Transfer-Encoding: chunked") + HELLO, 400),
        refused("length-and-identity", sized(b"", b"Transfer-Encoding: identity"), 400),
        refused("length-and-empty-coding", sized(b"", b"Transfer-Encoding:"), 400),
        refused("length-and-coding-hide-a-request", chunked(GET, b"Content-Length: 0"), 400),
        refused("length-and-coding-in-1.0", old(b"Content-Length: 5", b"Transfer-Encoding:"), 400),
        served("neither-length-nor-coding", post() + GET, Seen("POST"), Seen()),
    ),
]

CHUNK_LINES = {
    "upper-case": b"A",
    "lower-case": b"a",
    "leading-zeros": b"000a",
    "16-digits": b"000000000000000a",
    "extension": b"a;name",
    "extension-value": b"a;name=value",
    "extension-quoted": b'a;name="a ;\\" value"',
    "extension-spaces": b"a ; name = value",
    "extension-obs-text": b'a;b="\xe9"',
    "extension-1000-bytes": b"a;b=" + b"c" * 1000,
    "extensions": b"a;b=c;d;e=f",
}
CHUNK_LINES_400 = {
    "empty": b"",
    "plus": b"+a",
    "minus": b"-a",
    "0x": b"0xa",
    "underscore": b"0_a",
    "not-hex": b"g",
    "space-before": b" a",
    "space-after": b"a ",
    "tab-after": b"a\t",
    "space-within": b"0 a",
    "17-digits": b"0000000000000000a",
    "overflow": b"10000000000000000a",
    "comma": b"a,b",
    "nul": b"a\0",
    "extension-empty": b"a;",
    "extension-no-value": b"a;b=",
    "extension-no-name": b"a;=b",
    "extension-space-in-value": b"a;b=c d",
    "extension-open-quote": b'a;b="c',
    "extension-after-quote": b'a;b="c"d',
    "extension-control": b"a;b=\x01",
    "extension-control-quoted": b'a;b="\x01"',
    "extension-1100-bytes": b"a;b=" + b"c" * 1100,
    "cr-last": b"a\r",
    "cr-in-extension": b"a;b\rc",
    "lf-in-extension": b"a;b\nc",
    "lf-in-quotes": b'a;b="\n"',
}
CHUNKS_400 = {
    "line-lf": b"5\nhello\r\n0\r\n\r\n",
    "line-cr": b"5\rhello\r\n0\r\n\r\n",
    "line-endless": b"0" * 5000,
    "extension-endless": b"5;" + b"a" * 5000,
    "data-lf": b"5\r\nhello\n0\r\n\r\n",
    "data-cr": b"5\r\nhello\r0\r\n\r\n",
    "data-lf-cr": b"5\r\nhello\n\r0\r\n\r\n",
    "data-without-crlf": b"5\r\nhello0\r\n\r\n",
    "data-two-more": b"5\r\nhello!!0\r\n\r\n",
    "data-longer": b"5\r\nhello!\r\n0\r\n\r\n",
    "data-shorter": b"5\r\nhell\r\n0\r\n\r\n",
    "data-crlf-twice": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    "last-lf": b"0\n\r\n",
    "last-crlf-lf": b"0\r\n\n",
    "last-missing": b"5\r\nhello\r\nGET / HTTP/1.1\r\n\r\n",
}
TRAILERS = {
    "one": b"A: b\r\n",
    "two": b"A: b\r\nC: d\r\n",
    "empty-value": b"A:\r\n",
    "obs-text": b"A: \xe9\r\n",
    "many": b"A: b\r\n" * 500,
    "host": b"Host: b\r\n",
    "close": b"Connection: close\r\n",
    "upgrade": b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    "length": b"Content-Length: 5\r\n",
    "length-bad": b"Content-Length: x\r\n",
    "length-twice": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "coding": b"Transfer-Encoding: chunked\r\n",
    "coding-bad": b"Transfer-Encoding: x\r\n",
    "length-and-coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
}
TRAILERS_400 = {
    "no-colon": b"A\r\n",
    "space-before-colon": b"A : b\r\n",
    "name": b"A(: b\r\n",
    "empty-name": b": b\r\n",
    "fold": b"A: b\r\n c\r\n",
    "space-first": b" A: b\r\n",
    "lf": b"A: b\nC: d\r\n",
    "cr": b"A: b\rC: d\r\n",
    "nul": b"A: \0\r\n",
    "control": b"A: \x01\r\n",
    "request": b"GET / HTTP/1.1\r\nHost: a\r\n",
}

TEN = Seen("POST", body=b"0123456789")
HELLO_POSTED = Seen("POST", body=HELLO)

CHUNKS = [
    *section(
        "9112 §7.1",
        served("chunks", chunked(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), POSTED),
        served(
            "chunks-of-one-byte", chunked(b"1\r\na\r\n" * 5 + LAST), Seen("POST", body=b"aaaaa")
        ),
        served("chunk-last-alone", chunked(b"0\r\n\r\n"), Seen("POST")),
        served("chunk-last-zeros", chunked(b"0000\r\n\r\n"), Seen("POST")),
        served("chunk-last-extension", chunked(b"0;a=b\r\n\r\n"), Seen("POST")),
        served("chunk-of-crlf", chunked(b"2\r\n\r\n\r\n0\r\n\r\n"), Seen("POST", body=b"\r\n")),
        served("chunk-of-chunks", chunked(b"f\r\n" + HELLO + b"\r\n" + LAST), HELLO_POSTED),
        served("chunks-then-request", CHUNKED + GET, POSTED, Seen()),
        *[
            served(f"chunk-{case}", chunked(line + b"\r\n0123456789\r\n" + LAST), TEN)
            for case, line in CHUNK_LINES.items()
        ],
        *refusals(
            "chunk",
            400,
            lambda line: chunked(line + b"\r\n0123456789\r\n" + LAST),
            CHUNK_LINES_400,
            BROKEN,
        ),
        *refusals("chunk", 400, chunked, CHUNKS_400, BROKEN),
        Row("chunk-not-there-yet", chunked(b"5\r\nhell"), (BROKEN,)),
        Row("chunk-last-not-there-yet", chunked(HELLO[:-2]), (BROKEN,)),
        Row("chunk-largest", chunked(b"f" * 16 + b"\r\nhello"), (BROKEN,)),
    ),
    *section(
        "9112 §7.1.2",
        *[
            served(f"trailer-{case}", chunked(HELLO[:-2] + lines + b"\r\n") + GET, POSTED, Seen())
            for case, lines in TRAILERS.items()
        ],
        served(
            "trailer-dropped",
            chunked(b"0\r\nB: c\r\n\r\n", b"Trailer: B"),
            Seen(
                "POST",
                headers=[(b"host", b"a"), (b"transfer-encoding", b"chunked"), (b"trailer", b"B")],
            ),
        ),
        Row("trailer-not-there-yet", chunked(b"0\r\nA: b\r\n"), (BROKEN,)),
        *refusals(
            "trailer-bad", 400, lambda lines: chunked(b"0\r\n%b\r\n" % lines), TRAILERS_400, BROKEN
        ),
        refused("trailer-too-many", chunked(b"0\r\n" + b"A: b\r\n" * 3000), 431, BROKEN),
        refused("trailer-too-long", chunked(b"0\r\nA: " + b"b" * 20000), 431, BROKEN),
    ),
]

# 100 (Continue).

EXPECTS = post(b"Content-Length: 5", b"Expect: 100-continue")
EXPECTS_IN_CHUNKS = chunked(b"", b"Expect: 100-continue")
EXPECTS_OTHER_CASE = post(b"Content-Length: 5", b"EXPECT: 100-CONTINUE")
EXPECTS_IN_1_0 = head(b"POST / HTTP/1.0", b"Content-Length: 5", b"Expect: 100-continue")

EXPECT = section(
    "9110 §10.1.1",
    Row("continue", (EXPECTS, b"hello"), (POSTED,), (CONTINUE, OK)),
    Row("continue-once", (EXPECTS, b"he", b"llo", GET), (POSTED, Seen()), (CONTINUE, OK, OK)),
    Row("continue-other-case", (EXPECTS_OTHER_CASE, b"hello"), (POSTED,), (CONTINUE, OK)),
    Row("continue-chunked", (EXPECTS_IN_CHUNKS, HELLO), (POSTED,), (CONTINUE, OK)),
    Row("continue-body-never-comes", (EXPECTS,), (BROKEN,), (CONTINUE,)),
    Row("continue-after", (GET + EXPECTS, b"hello"), (Seen(), POSTED), (OK, CONTINUE, OK)),
    served("continue-body-came-along", EXPECTS + b"hello", POSTED, cut=False),
    served("continue-body-began-to-come", (EXPECTS + b"he", b"llo"), POSTED, cut=False),
    served("continue-without-a-body", get(b"Expect: 100-continue"), Seen()),
    served("continue-length-zero", sized(b"", b"Expect: 100-continue"), Seen("POST")),
    closing("continue-not-read", EXPECTS, BROKEN, app=does(start(), last(b"ok"))),
    closing("continue-not-read-chunked", EXPECTS_IN_CHUNKS, BROKEN, app=does(start(), last(b"ok"))),
    Row(
        "continue-read-after-the-head",
        (EXPECTS, b"hello"),
        (POSTED,),
        (reply(STREAM, b"connection: close", body=A_B),),
        app=does(start(), part(b"a"), READ, last(b"b")),
        ends="closed",
    ),
    Row(
        "continue-app-fails",
        EXPECTS,
        (BROKEN,),
        (plus_close(ERROR),),
        app=does(ValueError()),
        ends="closed",
    ),
    refused("continue-too-large", EXPECTS, 413, options={"limit_body_size": 4}),
    refused("expect-other", get(b"Expect: tea"), 417),
    refused("expect-two", post(b"Content-Length: 5", b"Expect: 100-continue, tea"), 417),
    refused("expect-200-ok", get(b"Expect: 200-ok"), 417),
    closing(
        "continue-in-1.0",
        (EXPECTS_IN_1_0, b"hello"),
        Seen("POST", version="1.0", body=b"hello"),
    ),
    closing("expect-other-in-1.0", old(b"Expect: tea"), OLD),
)

# Connections.

KEEP_ALIVE = old(b"Connection: keep-alive")
POST_1_0 = head(b"POST / HTTP/1.0", b"Content-Length: 5") + b"hello"
UNTIL_LEFT = does(READ, LEFT, start(), last(b"ok"))
DEAF = does(start(), last(b"ok"))  # does not read the request
UNREAD = Seen("POST", body=None)
NOT_ASKED = Seen(body=None)
KIB_64 = b"a" * 65536

CONNECTION = [
    *section(
        "9112 §9.3",
        served("persistent", GET * 3, Seen(), Seen(), Seen()),
        served("persistent-keep-alive", get(b"Connection: keep-alive") + GET, Seen(), Seen()),
        closing("close", get(b"Connection: close"), Seen()),
        closing("close-other-case", get(b"CONNECTION: Close"), Seen()),
        closing("close-in-a-list", get(b"Connection: a,close , b"), Seen()),
        closing("close-in-a-second-field", get(b"Connection: a", b"Connection: close"), Seen()),
        closing("close-and-keep-alive", get(b"Connection: keep-alive, close"), Seen()),
        closing("close-after-a-request", GET + get(b"Connection: close"), Seen(), Seen()),
        closing("close-then-a-request", get(b"Connection: close") + GET, Seen()),
        closing("close-then-garbage", get(b"Connection: close") + b"\0", Seen()),
        closing("close-with-body", sized(b"hello", b"Connection: close"), POSTED),
        served("close-as-part-of-a-word", get(b"Connection: closed, un-close"), Seen()),
        closing("1.0", old(), OLD),
        closing("1.0-then-a-request", old() + old(), OLD),
        closing("1.0-keep-alive-and-close", old(b"Connection: keep-alive, close"), OLD),
        closing("1.0-keep-alive-field", old(b"Keep-Alive: timeout=5"), OLD),
        closing("1.0-with-body", POST_1_0, Seen("POST", version="1.0", body=b"hello")),
        Row("1.0-kept-alive", old(b"Connection: Keep-Alive"), (OLD,), (OK_KEEP,)),
        Row("1.0-kept-alive-then-1.1", KEEP_ALIVE + GET, (OLD, Seen()), (OK_KEEP, OK)),
        Row("body-longer-than-its-length", POST + b"!", (POSTED,), (OK,)),
        Row("body-longer-then-a-request", POST + b"(" + GET, (POSTED,), (OK, 400), ends="closed"),
        served("unread-body-dropped", POST + GET, UNREAD, NOT_ASKED, app=DEAF),
        served("unread-chunks-dropped", CHUNKED + GET, UNREAD, NOT_ASKED, app=DEAF),
        served(
            "unread-body-of-192-kib-dropped",
            (post(b"Content-Length: 196608"), *[KIB_64] * 3, GET),
            UNREAD,
            NOT_ASKED,
            app=DEAF,
        ),
        served(
            "unread-body-too-long",
            (post(b"Content-Length: 458752"), *[KIB_64] * 7, GET),
            UNREAD,
            app=DEAF,
            ends="closed",
        ),
        served(
            "unread-chunks-too-long",
            (chunked(b""), *[b"10000\r\n%b\r\n" % KIB_64] * 7, LAST, GET),
            UNREAD,
            app=DEAF,
            ends="closed",
        ),
        served("unread-chunks-bad", (chunked(b""), b"x\r\n", GET), UNREAD, app=DEAF, ends="closed"),
        closing("unread-body-and-close", sized(b"hello", b"Connection: close"), UNREAD, app=DEAF),
        Row("unread-body-app-fails", POST * 2, (UNREAD,) * 2, (ERROR,) * 2, app=does(ValueError())),
    ),
    *section(
        "9112 §9.3.2",
        served(
            "pipeline",
            to(b"/1") + to(b"/2", b"PUT") + POST + CHUNKED + to(b"/5"),
            Seen("GET", "/1"),
            Seen("PUT", "/2"),
            POSTED,
            POSTED,
            Seen("GET", "/5"),
        ),
        served("pipeline-of-40", GET * 40, *[Seen()] * 40),
        served("pipeline-of-40-bodies", POST * 40, *[POSTED] * 40),
        served("pipeline-half-of-the-second", GET + GET[:20], Seen()),
        Row("pipeline-head", HEAD + GET, (Seen("HEAD"), Seen()), (reply(b"content-length: 2"), OK)),
        Row(
            "pipeline-of-streams",
            GET * 3,
            (Seen(),) * 3,
            (reply(STREAM, body=A_B),) * 3,
            app=says(b"a", b"b"),
        ),
        Row(
            "pipeline-after-a-failure",
            GET * 3,
            (NOT_ASKED,) * 3,
            (ERROR,) * 3,
            app=does(ValueError()),
        ),
        *[
            Row(f"pipeline-then-{case}", GET + reads, (Seen(),), (OK, status), ends="closed")
            for case, reads, status in (
                ("garbage", b"\0\r\n\r\n" + GET, 400),
                ("no-host", head(b"GET / HTTP/1.1") + GET, 400),
                ("http-2.0", head(b"GET / HTTP/2.0") + GET, 505),
                ("connect", to(b"b:80", b"CONNECT") + GET, 501),
                ("bad-length", post(b"Content-Length: x") + GET, 400),
            )
        ],
        Row(
            "pipeline-then-bad-chunk",
            POST + chunked(b"x\r\n") + GET,
            (POSTED, BROKEN),
            (OK, 400),
            ends="closed",
        ),
    ),
    *section(
        "9112 §9.6",
        closing("half-close", GET, Seen(), app=UNTIL_LEFT, eof=True),
        closing("half-close-with-body", POST, POSTED, app=UNTIL_LEFT, eof=True),
        served("half-close-after-a-pipeline", GET * 2, Seen(), Seen(), eof=True, ends="closed"),
        responds(
            "half-close-stream",
            does(READ, LEFT, start(), part(b"a"), last(b"b")),
            plus_close(reply(STREAM, body=A_B)),
            eof=True,
            ends="closed",
        ),
        served("half-close-after-the-answer", GET, Seen(), eof=True, ends="closed"),
        Row("half-close-at-once", b"", eof=True, ends="closed"),
        Row("half-close-in-a-head", GET[:-1], eof=True, ends="closed"),
        Row("half-close-in-a-body", POST[:-1], (BROKEN,), eof=True, ends="closed"),
        Row("half-close-in-a-chunk", chunked(b"5\r\nhe"), (BROKEN,), eof=True, ends="closed"),
    ),
]

# Ignored upgrades: the request is served as HTTP/1.1.

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

UPGRADE = section(
    "9110 §7.8",
    served("upgrade-h2c", get(*H2C), Seen()),
    served("upgrade-h2c-three-times", get(*H2C) * 3, Seen(), Seen(), Seen()),
    served("upgrade-length", sized(b"hello", *H2C) + GET, POSTED, Seen()),
    served("upgrade-length-in-two-reads", in_two(sized(b"hello", *H2C) + GET), POSTED, Seen()),
    served("upgrade-chunked", chunked(HELLO, *H2C) + GET, POSTED, Seen()),
    served("upgrade-chunked-in-two-reads", in_two(chunked(HELLO, *H2C) + GET), POSTED, Seen()),
    served("upgrade-websocket", get(*WEBSOCKET) + GET, Seen(), Seen(), options={"ws": "none"}),
    served("upgrade-websocket-post", sized(b"hello", *WEBSOCKET) + GET, POSTED, Seen()),
    served(
        "upgrade-websocket-with-a-body",
        get(b"Content-Length: 5", *WEBSOCKET) + b"hello" + GET,
        Seen(body=b"hello"),
        Seen(),
    ),
    closing("upgrade-websocket-in-1.0", old(*WEBSOCKET), OLD),
    served("upgrade-websocket-without-connection", get(*WEBSOCKET[1:]) + GET, Seen(), Seen()),
    refused("upgrade-websocket-bad-key", get(*WEBSOCKET[:3], b"Sec-WebSocket-Key: no"), 400),
    served("upgrade-unknown", get(b"Connection: upgrade", b"Upgrade: tea") + GET, Seen(), Seen()),
    served("upgrade-without-connection", get(b"Upgrade: h2c") + GET, Seen(), Seen()),
    served("upgrade-without-protocol", get(b"Connection: upgrade") + GET, Seen(), Seen()),
    closing("upgrade-in-1.0", old(*H2C), OLD),
    closing("upgrade-and-close", get(*H2C, b"Connection: close") + GET, Seen()),
    refused("upgrade-bad-length", post(*H2C, b"Content-Length: x"), 400),
    refused("upgrade-length-and-coding", chunked(HELLO, *H2C, b"Content-Length: 5"), 400),
    Row(
        "upgrade-with-continue",
        (post(*H2C, b"Content-Length: 5", b"Expect: 100-continue"), b"hello"),
        (POSTED,),
        (CONTINUE, OK),
    ),
)

# Limits.

SMALL_HEAD = {"limit_head_size": 256}
FILL = b"b" * (256 - len(get(b"A: ")))
LARGE_HEAD = get(b"A: " + FILL)
FEW_FIELDS = {"limit_head_fields": 3}
SMALL_BODY = {"limit_body_size": 5}
LARGEST = 2**64 - 1
ONE_REQUEST = {"limit_concurrency": 1}

LIMITS = [
    *section(
        "9110 §15.5.15",
        refused("414", to(b"/" + b"a" * 300), 414, options=SMALL_HEAD),
        refused("414-endless", b"GET /" + b"a" * 300, 414, options=SMALL_HEAD),
        refused("414-endless-method", b"A" * 300, 414, options=SMALL_HEAD),
        refused("414-by-default", b"GET /" + b"a" * 65536, 414),
    ),
    *section(
        "6585 §5",
        served("head-of-the-largest-size", LARGE_HEAD * 2, Seen(), Seen(), options=SMALL_HEAD),
        refused("431", get(b"A: b" + FILL), 431, options=SMALL_HEAD),
        refused("431-endless", get(b"A: b" + FILL)[:-4] + FILL, 431, options=SMALL_HEAD),
        refused("431-many-small", get(*[b"A: b"] * 50), 431, options=SMALL_HEAD),
        served("fields-of-the-largest-number", get(b"A: 1", b"B: 2"), Seen(), options=FEW_FIELDS),
        refused("431-fields", get(b"A: 1", b"B: 2", b"C: 3"), 431, options=FEW_FIELDS),
        refused("431-fields-of-one-name", get(*[b"A: 1"] * 3), 431, options=FEW_FIELDS),
        served("100-fields-by-default", get(*[b"A: b"] * 99), Seen()),
        refused("431-fields-by-default", get(*[b"A: b"] * 100), 431),
    ),
    *section(
        "9110 §15.5.14",
        served("body-of-the-largest-size", POST, POSTED, options=SMALL_BODY),
        served("chunks-of-the-largest-size", CHUNKED, POSTED, options=SMALL_BODY),
        refused("413", sized(b"hello!"), 413, options=SMALL_BODY),
        refused("413-before-the-body", post(b"Content-Length: 6"), 413, options=SMALL_BODY),
        refused("413-largest", post(b"Content-Length: %d" % LARGEST), 413, options=SMALL_BODY),
        refused("413-chunk", chunked(b"6\r\n"), 413, BROKEN, options=SMALL_BODY),
        refused("413-chunks", chunked(b"3\r\nhel\r\n3\r\n"), 413, BROKEN, options=SMALL_BODY),
        refused("413-large-chunk", chunked(b"%x\r\n" % LARGEST), 413, BROKEN, options=SMALL_BODY),
    ),
    *section(
        "9110 §15.6.4",
        served(
            "work-after-the-response",
            (GET, GET),
            Seen(),
            Seen(),
            app=does(READ, start(), last(b"ok"), FOREVER),
            options=ONE_REQUEST,
        ),
        served("one-request-at-a-time", (GET, GET), Seen(), Seen(), options=ONE_REQUEST),
        served("one-request-at-a-time-pipelined", GET * 3, *[Seen()] * 3, options=ONE_REQUEST),
    ),
]

# Responses.

LENGTH_2 = (b"content-length", b"2")
LENGTH_3 = (b"content-length", b"3")
CLOSE = (b"Connection", b"close")
STAY = (b"Connection", b"keep-alive")
CODING = (b"Transfer-Encoding", b"chunked")

NAMES_500 = {
    "empty": b"",
    "space": b"a b",
    "space-after": b"a ",
    "colon": b"a:",
    "crlf": b"a\r\nb",
    "lf": b"a\n",
    "nul": b"a\0",
    "non-ascii": b"\xe9",
    "parenthesis": b"a(",
    "text": "a",
    "none": None,
}
VALUES_500 = {
    "crlf": b"b\r\nc: d",
    "crlf-crlf": b"b\r\n\r\n<html>",
    "lf": b"b\nc",
    "lf-first": b"\nb",
    "lf-last": b"b\n",
    "lf-cr": b"b\n\rc",
    "cr": b"b\rc",
    "cr-first": b"\rb",
    "cr-last": b"b\r",
    "nul": b"b\0",
    "text": "b",
    "none": None,
    "number": 1,
}
LENGTHS_500 = {
    "too-long": b"3",
    "too-short": b"1",
    "plus": b"+2",
    "minus": b"-2",
    "list": b"2, 2",
    "empty": b"",
    "word": b"two",
    "space-before": b" 2",
    "crlf": b"2\r\n",
    "text": "2",
    "number": 2,
}

RESPONSE = [
    *section(
        "9112 §4",
        responds("status-404", says(b"ok", status=404), OK.replace(b"200 OK", b"404 Not Found")),
        responds("status-unknown", says(b"ok", status=299), OK.replace(b"200 OK", b"299 ")),
        responds("status-999", says(b"ok", status=999), OK.replace(b"200 OK", b"999 ")),
        *[
            responds(f"status-bad-{status}", says(b"ok", status=status), ERROR)
            for status in (0, 99, 100, 101, 103, 199, 1000, -200, "200", None)
        ],
    ),
    *section(
        "9110 §5.1",
        responds(
            "response-fields",
            says(b"ok", fields=[(b"Set-Cookie", b"a"), (b"B", b""), (b"SET-COOKIE", b"\xe9")]),
            reply(b"set-cookie: a", b"b: ", b"set-cookie: \xe9", b"content-length: 2", body=b"ok"),
        ),
        *[fails(f"response-name-{case}", (name, b"b")) for case, name in NAMES_500.items()],
        *[fails(f"response-value-{case}", (b"a", it)) for case, it in VALUES_500.items()],
        fails("response-crlf-over-two-fields", (b"a", b"b\r"), (b"c", b"\nd")),
        fails("response-crlf-in-connection", (b"connection", b"a\r\nb: c")),
    ),
    *section(
        "9110 §6.6.1",
        responds(
            "response-date-of-the-app",
            says(b"ok", fields=[(b"Date", b"Tue, 15 Nov 1994 08:12:31 GMT")]),
            reply(b"date: Tue, 15 Nov 1994 08:12:31 GMT", b"content-length: 2", body=b"ok"),
            options={"date_header": True},
        ),
    ),
    *section(
        "9110 §10.2.4",
        responds(
            "response-server-of-the-app",
            says(b"ok", fields=[(b"SERVER", b"tea")]),
            reply(b"server: tea", b"content-length: 2", body=b"ok"),
            options={"server_header": True},
        ),
        responds(
            "response-default-fields",
            says(b"ok", fields=[(b"a", b"app")]),
            reply(b"a: app", b"b: option", b"content-length: 2", body=b"ok"),
            options={"header": (("A", "option"), ("B", "option"))},
        ),
        responds(
            "response-default-fields-repeated",
            says(b"ok"),
            reply(b"link: </a>", b"link: </b>", b"content-length: 2", body=b"ok"),
            options={"header": (("Link", "</a>"), ("link", "</b>"))},
        ),
        responds(
            "response-default-fields-repeated-of-the-app",
            says(b"ok", fields=[(b"link", b"</app>")]),
            reply(b"link: </app>", b"content-length: 2", body=b"ok"),
            options={"header": (("Link", "</a>"), ("link", "</b>"))},
        ),
        responds(
            "response-default-fields-server-and-date",
            says(b"ok"),
            reply(b"server: tea", b"date: today", b"content-length: 2", body=b"ok"),
            options={
                "header": (("Server", "tea"), ("Date", "today")),
                "server_header": True,
                "date_header": True,
            },
        ),
    ),
    *section(
        "9112 §6.1",
        responds("response-coding-dropped", says(b"ok", fields=[CODING]), OK),
        responds("response-coding-and-length", says(b"ok", fields=[CODING, LENGTH_2]), OK),
        responds("response-coding-gzip", says(b"ok", fields=[(CODING[0], b"gzip, chunked")]), OK),
        responds(
            "response-coding-of-a-stream",
            says(b"a", b"b", fields=[CODING]),
            reply(STREAM, body=A_B),
        ),
        responds(
            "response-coding-in-1.0",
            says(b"a", b"b", fields=[CODING]),
            reply(b"connection: close", body=b"ab"),
            reads=KEEP_ALIVE,
            ends="closed",
        ),
    ),
    *section(
        "9112 §6.2",
        responds("response-length", says(b"ok"), OK),
        responds("response-length-zero", says(b""), reply(b"content-length: 0")),
        responds("response-length-of-the-app", says(b"ok", fields=[LENGTH_2]), OK),
        responds("response-length-zeros", says(b"ok", fields=[(b"Content-Length", b"002")]), OK),
        responds("response-length-twice", says(b"ok", fields=[LENGTH_2, LENGTH_2]), OK),
        responds("response-length-stream", says(b"o", b"", b"k", fields=[LENGTH_2]), OK),
        responds("response-length-stream-ends-empty", says(b"ok", b"", fields=[LENGTH_2]), OK),
        responds(
            "response-length-stream-in-1.0",
            says(b"o", b"k", fields=[LENGTH_2]),
            OK_KEEP,
            reads=KEEP_ALIVE,
        ),
        *[
            fails(f"response-length-{case}", (b"content-length", it))
            for case, it in LENGTHS_500.items()
        ],
        fails("response-length-differing", LENGTH_2, LENGTH_3),
        responds(
            "response-stream-too-short",
            says(b"o", b"k", fields=[LENGTH_3]),
            reply(b"content-length: 3", body=b"o"),
            ends="aborted",
        ),
        responds(
            "response-stream-too-long",
            says(b"o", b"kk", fields=[LENGTH_2]),
            reply(b"content-length: 2", body=b"o"),
            ends="aborted",
        ),
        responds(
            "response-stream-too-long-later",
            says(b"ok", b"!", fields=[LENGTH_2]),
            OK,
            ends="aborted",
        ),
        responds("response-stream-too-long-at-once", says(b"okk", b"", fields=[LENGTH_2]), ERROR),
        responds(
            "response-stream-cut-off",
            does(READ, start(LENGTH_2), part(b"o")),
            reply(b"content-length: 2", body=b"o"),
            ends="aborted",
        ),
    ),
    *section(
        "9112 §7.1",
        responds(
            "response-chunks",
            says(b"a", b"0123456789abcdef", b""),
            reply(STREAM, body=b"1\r\na\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"),
        ),
        responds(
            "response-chunks-empty-pieces", says(b"", b"a", b"", b"b"), reply(STREAM, body=A_B)
        ),
        responds("response-chunks-of-nothing", says(b"", b""), reply(STREAM, body=LAST)),
        responds(
            "response-chunks-close",
            says(b"a", b"b"),
            plus_close(reply(STREAM, body=A_B)),
            reads=get(b"Connection: close"),
            ends="closed",
        ),
        responds(
            "response-chunks-cut-off",
            does(READ, start(), part(b"a")),
            reply(STREAM, body=A_B[:6]),
            ends="aborted",
        ),
        responds(
            "response-chunks-app-fails",
            does(READ, start(), part(b"a"), ValueError()),
            reply(STREAM, body=A_B[:6]),
            ends="aborted",
        ),
    ),
    *section(
        "9112 §6.3",
        responds(
            "response-close-delimited",
            says(b"a", b"b"),
            reply(b"connection: close", body=b"ab"),
            reads=old(),
            ends="closed",
        ),
        responds(
            "response-close-delimited-though-kept-alive",
            says(b"a", b"b"),
            reply(b"connection: close", body=b"ab"),
            reads=KEEP_ALIVE,
            ends="closed",
        ),
        responds(
            "response-close-delimited-cut-off",
            does(READ, start(), part(b"a")),
            reply(b"connection: close", body=b"a"),
            reads=old(),
            ends="aborted",
        ),
    ),
    *section(
        "9110 §9.3.2",
        responds("head", says(b"ok"), reply(b"content-length: 2"), reads=HEAD),
        responds("head-empty", says(b""), reply(), reads=HEAD),
        responds("head-stream", says(b"a", b"b"), reply(), reads=HEAD),
        responds(
            "head-length-kept",
            says(b"", fields=[(b"content-length", b"1000")]),
            reply(b"content-length: 1000"),
            reads=HEAD,
        ),
        responds(
            "head-stream-longer-than-its-length",
            says(b"abc", b"d", fields=[LENGTH_2]),
            reply(b"content-length: 2"),
            reads=HEAD,
        ),
        responds("head-coding-dropped", says(b"", fields=[CODING]), reply(), reads=HEAD),
        responds(
            "head-in-1.0",
            says(b"a", b"b"),
            reply(b"connection: keep-alive"),
            reads=head(b"HEAD / HTTP/1.0", b"Connection: keep-alive"),
        ),
        responds("head-app-fails", does(READ, ValueError()), ERROR[: -len(FAULT)], reads=HEAD),
        responds("head-lower-case", says(b"ok"), OK, reads=to(b"/", b"head")),
        refused("head-without-host", head(b"HEAD / HTTP/1.1"), 400),
        refused("head-too-new", head(b"HEAD / HTTP/2.0"), 505),
        refused(
            "head-bad-chunk",
            head(b"HEAD / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked") + b"x\r\n",
            400,
            Seen("HEAD", body=None),
        ),
    ),
    *section(
        "9110 §15.3.5",
        responds("204", says(b"", status=204), NO_CONTENT),
        responds("204-body-dropped", says(b"ok", status=204), NO_CONTENT),
        responds("204-stream-dropped", says(b"o", b"k", status=204), NO_CONTENT),
        responds("204-length-dropped", says(b"ok", status=204, fields=[LENGTH_2]), NO_CONTENT),
        responds(
            "204-in-1.0",
            says(b"", status=204),
            reply(b"connection: keep-alive", status=b"204 No Content"),
            reads=KEEP_ALIVE,
        ),
        responds(
            "204-close",
            says(b"", status=204),
            plus_close(NO_CONTENT),
            reads=get(b"Connection: close"),
            ends="closed",
        ),
        Row("204-then", GET * 2, (Seen(),) * 2, (NO_CONTENT,) * 2, app=says(b"ok", status=204)),
    ),
    *section(
        "9110 §15.3.6",
        responds(
            "205",
            says(b"", status=205),
            reply(b"content-length: 0", status=b"205 Reset Content"),
        ),
    ),
    *section(
        "9110 §15.4.5",
        responds("304", says(b"", status=304), NOT_MODIFIED),
        responds("304-stream-dropped", says(b"o", b"k", status=304), NOT_MODIFIED),
        responds(
            "304-length-kept",
            says(b"", status=304, fields=[(b"content-length", b"1000")]),
            reply(b"content-length: 1000", status=b"304 Not Modified"),
        ),
        Row(
            "304-body-dropped",
            GET * 2,
            (Seen(),) * 2,
            (NOT_MODIFIED,) * 2,
            app=says(b"ok", status=304),
        ),
    ),
    *section(
        "9110 §15.6.1",
        responds("app-fails", does(READ, ValueError()), ERROR),
        responds("app-returns-at-once", does(READ), ERROR),
        responds("app-fails-after-the-start", does(READ, start(), ValueError()), ERROR),
        responds("app-sends-only-the-start", does(READ, start()), ERROR),
        responds("app-sends-the-body-first", does(READ, last(b"ok")), ERROR),
        responds("app-sends-two-starts", does(READ, start(), start()), ERROR),
        responds("app-sends-another-message", does(READ, {"type": "http.response.tea"}), ERROR),
        responds("app-sends-text", does(READ, start(), last("ok")), ERROR),  # type: ignore[arg-type]
        responds("app-fails-afterwards", does(READ, start(), last(b"ok"), ValueError()), OK),
        responds("app-sends-too-much", does(READ, start(), last(b"ok"), last(b"ok")), OK),
        responds(
            "app-fails-and-close",
            does(READ, ValueError()),
            plus_close(ERROR),
            reads=get(b"Connection: close"),
            ends="closed",
        ),
    ),
    *section(
        "9110 §7.6.1",
        responds("response-close", says(b"ok", fields=[CLOSE]), OK_CLOSE, ends="closed"),
        responds(
            "response-close-in-a-list",
            says(b"ok", fields=[(b"connection", b"a, Close")]),
            reply(b"connection: a", b"connection: close", b"content-length: 2", body=b"ok"),
            ends="closed",
        ),
        responds(
            "response-close-stream",
            says(b"a", b"b", fields=[CLOSE]),
            plus_close(reply(STREAM, body=A_B)),
            ends="closed",
        ),
        closing("response-close-then-a-request", GET * 2, Seen(), app=says(b"ok", fields=[CLOSE])),
        responds("response-keep-alive", says(b"ok", fields=[STAY]), OK),
        responds(
            "response-keep-alive-though-closed",
            says(b"ok", fields=[STAY]),
            OK_CLOSE,
            reads=get(b"Connection: close"),
            ends="closed",
        ),
        responds(
            "response-keep-alive-in-1.0",
            says(b"ok", fields=[STAY]),
            OK_KEEP,
            reads=KEEP_ALIVE,
        ),
    ),
]

ROWS = [
    *MESSAGE,
    *REQUEST_LINE,
    *TARGET,
    *HOST,
    *FIELDS,
    *FRAMING,
    *CHUNKS,
    *EXPECT,
    *CONNECTION,
    *UPGRADE,
    *LIMITS,
    *RESPONSE,
]
