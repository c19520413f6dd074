"""The access log: values, formats, filters, and refused requests."""

import asyncio
import base64
import json
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.helpers import (
    ACCESS_LINE,
    GET,
    HANDSHAKE,
    PATIENCE,
    START,
    Client,
    elapse,
    hello,
    in_loop,
    reply,
    upload,
)
from tinyasgi import Config, Server
from tinyasgi.config.kinds import OptionError
from tinyasgi.http import parsers
from tinyasgi.http import request as http_request
from tinyasgi.http.client import ClientInfo
from tinyasgi.http.memo import Memo
from tinyasgi.logs.access import default_line, exchange_filter, line_formatter, record_logger
from tinyasgi.logs.formatters import JSONFormatter
from tinyasgi.logs.writer import AccessLog, AccessLogFile
from tinyasgi.protocols import refusal
from tinyasgi.protocols.exchange import Exchange
from tinyasgi.protocols.hooks import Hooks
from tinyasgi.protocols.states import COMPLETE
from tinyasgi.testing import connect, serve


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[Any, ...]]]:
    """Return a function that returns the parsed access lines so far."""
    caplog.set_level(logging.INFO, "tinyasgi.access")

    def lines() -> list[tuple[Any, ...]]:
        records = [record for record in caplog.records if record.name == "tinyasgi.access"]
        assert all(record.levelno == logging.INFO for record in records)
        matches = [ACCESS_LINE.fullmatch(record.getMessage()) for record in records]
        assert all(matches), caplog.text
        return [match.groups() for match in matches if match]

    return lines


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the access lines so far."""
    caplog.set_level(logging.INFO, "tinyasgi.access")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "tinyasgi.access"]


def test_access_line(access: Any) -> None:
    with serve(hello) as server, Client(server) as client:
        client.response(b"GET /a%20b?c=%22&d HTTP/1.1\r\nHost: here\r\n\r\n")
        port = client.sock.getsockname()[1]
    ((peer, method, target, version, status, size, _, aborted),) = access()
    assert peer == f"127.0.0.1:{port}"
    assert (method, target, version) == ("GET", "/a%20b?c=%22&d", "1.1")
    assert (status, size, aborted) == ("200", "5", None)


@pytest.mark.parametrize("request_", ["HEAD / HTTP/1.1", "GET / HTTP/1.1", "GET / HTTP/1.0"])
def test_bytes_of_the_body_are_counted(request_: str, access: Any) -> None:
    async def app(scope, receive, send):
        await send(START)
        for _ in range(2):
            await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        await send({"type": "http.response.body", "body": bytes(3)})

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(request_.encode() + b"\r\nHost: here\r\nConnection: close\r\n\r\n")
        client.rest()
    ((*_, size, _, aborted),) = access()
    assert int(size) == (0 if request_.startswith("HEAD") else 23)
    assert aborted is None


def test_line_is_written_when_the_response_ends(access: Any) -> None:
    release = threading.Event()

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.to_thread(release.wait, PATIENCE)
        await send({"type": "http.response.body", "body": b"y"})

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        client.head()
        assert client.chunk() == b"x"
        assert access() == []
        release.set()
        assert list(client.chunks()) == [b"y"]
    ((*_, size, _, aborted),) = access()
    assert (size, aborted) == ("2", None)


def test_duration_is_that_of_the_response(access: Any) -> None:
    taken = 0.0

    async def app(scope, receive, send):
        nonlocal taken
        begun = time.perf_counter()
        await asyncio.sleep(0.05)  # uvloop may wake up a little earlier
        taken = time.perf_counter() - begun
        await reply(send)

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.response(GET)
    ((*_, duration, _),) = access()
    assert float(duration) >= round(taken * 1000, 1) > 0


@pytest.mark.parametrize("who", ["client", "app"])
def test_cut_response_is_marked(who: str, access: Any) -> None:
    left = threading.Event()

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async def failing(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": bytes(10), "more_body": True})
        raise ValueError

    with (
        serve(app if who == "client" else failing, lifespan="off") as server,
        Client(server) as client,
        server.expect(ValueError) if who == "app" else nullcontext(),
    ):
        client.send(GET)
        client.head()
        client.chunk()
        if who == "client":
            client.reset()
            assert left.wait(PATIENCE)
        else:
            client.rest()
    ((*_, status, size, _, aborted),) = access()
    assert (status, size, aborted) == ("200", "10", " aborted")


def test_client_that_leaves_before_the_response_is_marked(access: Any) -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        await receive()
        await receive()

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        assert entered.wait(PATIENCE)
        client.reset()
    ((*_, aborted),) = access()
    assert aborted == " aborted"


def test_failing_app_gives_500(access: Any) -> None:
    async def app(scope, receive, send):
        raise ValueError

    with serve(app, lifespan="off") as server, Client(server) as client, server.expect(ValueError):
        response = client.response(GET)
    ((*_, status, size, _, aborted),) = access()
    assert (status, size, aborted) == ("500", str(len(response.body)), None)


def test_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(hello, lifespan="off", access_log=False) as server, Client(server) as client:
        client.response(GET)
    assert caplog.text == ""


def test_app_may_spoil_its_scope(access: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        path = scope["path"]
        scope.clear()
        if path == "/fail":
            raise ValueError
        await reply(send, b"fine")

    with serve(app, lifespan="off") as server, Client(server) as client:
        assert client.response(GET).body == b"fine"
        with server.expect(ValueError):
            assert client.response(GET.replace(b"/ ", b"/fail ")).status == 500
        assert client.response(GET).body == b"fine"
    assert [line[1:3] for line in access()] == [("GET", "/"), ("GET", "/fail"), ("GET", "/")]
    assert caplog.text.count("Traceback") == 1
    assert "did not react" not in caplog.text


@in_loop
async def test_access_lines_are_written_together() -> None:
    flushes: list[Any] = []

    class Loop:
        def call_later(self, delay: float, callback: Any) -> None:
            flushes.append(callback)

    class Memory(AccessLogFile):
        writes = 0
        written = b""

        def write(self, lines: bytearray, timeout: float = 0.0) -> None:
            self.writes += 1
            self.written += lines
            lines.clear()

    stream = Memory(Config())
    log = AccessLog(default_line, stream, Loop())  # type: ignore[arg-type]
    async with connect(hello, Hooks(access=log)) as connection:
        await connection.feed(*[GET] * 100)
        assert stream.writes == 0
        (flush,) = flushes
        flush()
        assert stream.writes == 1
        flush()
        assert stream.writes == 1
        await connection.feed(GET)
        assert len(flushes) == 2
    text = stream.written.decode()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 100
    for line in text.splitlines():
        day, clock, rest = line.split(" ", 2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {clock}")
        assert ACCESS_LINE.fullmatch(rest)


@pytest.mark.parametrize("text", [None, "json", "%(s)s %(X)s"])
def test_client_that_leaves_before_there_is_a_status(text: str | None, lines: Any) -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    with serve(app, lifespan="off", access_log_format=text) as server, Client(server) as client:
        client.send(GET)
        assert entered.wait(PATIENCE)
        client.reset()
    (line,) = lines()
    if text == "json":
        assert (json.loads(line)["status"], json.loads(line)["aborted"]) == (499, True)
    else:
        assert "499 0 B" in line or line == "499 X"


# Formats.


REQUEST = (
    b'GET /a%20b?c=\\d HTTP/1.1\r\nHost: here\r\nUser-Agent: curl/8 "\xe4" \\\r\n'
    b"Referer: http://a/\r\nX-Twice: 1\r\nAuthorization: Basic YSBiOmM=\r\n\r\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(h)s %(l)s %(u)s", r"127\.0\.0\.1 - a%20b"),
        ("%(t)s", r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"),
        ("%(r)s", re.escape(r"GET /a%20b?c=\\d HTTP/1.1")),
        ("%(m)s %(U)s %(q)s %(H)s", re.escape(r"GET /a%20b c=\\d HTTP/1.1")),
        ("%(s)s %(b)s %(B)s", "200 5 5"),
        ("%(f)s %(a)s", r"http://a/ curl/8 \\\"\\xe4\\\" \\\\"),
        ("%(T)s %(M)s %(D)s %(L)s", r"\d+ \d+ \d+ \d+\.\d{6}"),
        ("%(p)s %(X)s", r"<\d+> \+"),
        ("%(id)s", "-"),
        ("%({X-Twice}i)s %({x-none}i)s", "1 -"),
        ("%({X-Thing}o)s %({x-none}o)s", r"a\\x09b -"),
        ("%({SOME_VARIABLE}e)s %({NO_VARIABLE}e)s", r"\\xe4\\u20ac -"),
        ("100%% %(s)d", "100% 200"),
        ('{"a":"%(a)s","s":%(s)s}', r'\{"a":"curl/8 \\"\\u00e4\\" \\\\","s":200\}'),
        (
            "common",
            r'127\.0\.0\.1 - a%20b \[\S+ \S+\] "GET /a%20b\?c=\\\\d HTTP/1\.1" 200 5',
        ),
        ("combined", r'.* 200 5 "http://a/" "curl/8 \\"\\xe4\\" \\\\"'),
        ("default", r'127\.0\.0\.1:\d+ "GET /a%20b\?c=\\d HTTP/1\.1" 200 5 B \d+\.\d ms'),
    ],
)
def test_format(text: str, expected: str, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope, receive, send):
        await reply(send, b"hello", 200, (b"X-Thing", b"a\tb"))

    monkeypatch.setenv("SOME_VARIABLE", "\xe4\u20ac")
    monkeypatch.delenv("NO_VARIABLE", raising=False)
    with serve(app, lifespan="off", access_log_format=text) as server, Client(server) as client:
        client.response(REQUEST)
    (found,) = lines()
    assert re.fullmatch(expected, found), found


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("%(zz)s", "unknown field %(zz)s"),
        ("%(H)s %(hh)s", "unknown field %(hh)s"),
        ("%({}i)s", "unknown field %({}i)s"),
        ("%({a}x)s", "unknown field %({a}x)s"),
        ("%({ä}i)s", "unknown field %({ä}i)s"),
        ("%h", "invalid field: '%h'"),
        ("%(h)", "invalid field: '%(h)'"),
        ("%(h)s 100%", "invalid field: '%'"),
        ("comon", "expected default, json, common, combined, or fields such as %(h)s"),
    ],
)
def test_wrong_format(text: str, cause: str) -> None:
    with pytest.raises(OptionError, match=re.escape(cause)):
        line_formatter(Config(access_log_format=text))
    with pytest.raises(OptionError):
        Server(hello, access_log_format=text, log_level="info")


@pytest.mark.parametrize("text", ["combined", "json", "%({x}i)s %({x}o)s %(id)s %(u)s"])
@pytest.mark.parametrize(
    "spoiled",
    [
        None,
        {},
        {"headers": None, "state": None},
        {"headers": [1], "state": {"request_id": 7}},
        {"headers": [("x", "y"), (b"authorization", 1)], "state": []},
    ],
)
def test_app_that_spoils_its_scope(spoiled: Any, text: str, lines: Any) -> None:
    async def app(scope, receive, send):
        scope.clear()
        scope.update(spoiled or {})
        await reply(send, b"hello")

    with serve(app, lifespan="off", access_log_format=text) as server, Client(server) as client:
        assert client.response(GET).body == b"hello"
        assert client.response(GET).body == b"hello"
    assert len(lines()) == 2


def test_line_of_a_websocket(lines: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tinyasgi.server")

    async def app(scope, receive, send):
        scope["state"]["request_id"] = 'a"b'
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x", b"y")]})
        await send({"type": "websocket.close"})

    request = (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    text = '%(m)s %(U)s %(s)s %({x}o)s "%(id)s"'
    with serve(app, lifespan="off", access_log_format=text) as server, Client(server) as client:
        client.send(request, b"\x88\x80mask")  # a Close frame
        client.rest()
        peer = f"127.0.0.1:{client.sock.getsockname()[1]}"
    assert lines() == [r'GET /ws 101 y "a\"b"']
    (opened,) = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert opened.getMessage() == f'{peer} "GET /ws HTTP/1.1" WebSocket open'


# Log injection.

TEXT = st.binary(max_size=60) | st.lists(
    st.sampled_from([b'"', b"\\", b" ", b"\\x", b"\x1b[2J", b"\x85", b"\n", b'" 200 5\n', b"a"])
).map(b"".join)

COMBINED_LINE = line_formatter(Config(access_log_format="combined"))
JSON_LINE = line_formatter(Config(access_log_format="json"))
OWN_LINE = line_formatter(Config(access_log_format='{"a":"%(a)s","x":"%({x}o)s","id":"%(id)s"}'))


@settings(max_examples=300, deadline=None)
@given(field=TEXT, user=TEXT, sent=TEXT, number=TEXT)
@example(field=b'\\" 200 5', user=b"a b", sent=b"\\", number=b'"')
def test_nothing_forges_a_line(field: bytes, user: bytes, sent: bytes, number: bytes) -> None:
    request = http_request.parse_request_line(b"GET /a?b=\\ HTTP/1.1", "")
    basic = b"Basic " + base64.b64encode(user + b":c")
    fields = [(b"user-agent", field), (b"referer", sent), (b"authorization", basic)]
    scope = {"headers": fields, "state": {"request_id": number.decode("latin-1") + "\u2028\ud800"}}
    exchange = Exchange(Stream(), scope, request, True)  # type: ignore[arg-type]
    exchange.started, exchange.client = 0.0, Stream.client
    exchange.response_headers, exchange.phase = [(b"x", sent)], COMPLETE
    quoted = r'"((?:[^"\\]|\\x[0-9a-f]{2}|\\["\\])*)"'
    combined = COMBINED_LINE(exchange)
    assert combined.isascii()
    assert combined.isprintable()
    row = re.fullmatch(rf"- - (\S+) \[[^\]]+\] {quoted} 499 - {quoted} {quoted}", combined)
    assert row
    decoded = [re.sub(r"\\(?:x(..)|(.))", _unescape, row[number]) for number in (2, 3, 4)]
    assert decoded[0] == "GET /a?b=\\ HTTP/1.1"
    assert decoded[1:] == [(sent or b"-").decode("latin-1"), (field or b"-").decode("latin-1")]
    found = json.loads(JSON_LINE(exchange))
    assert found["user_agent"] == field.decode("latin-1")
    assert found["referer"] == sent.decode("latin-1")
    text = OWN_LINE(exchange)
    assert text.isascii()
    assert json.loads(text)["x"] == (sent or b"-").decode("latin-1")


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else match[2]


class Stream:
    """A connection with the attributes that an access line needs."""

    client = ClientInfo({"client": None}, "local")


# Excluded paths.


def test_successes_that_are_left_out(access: Any) -> None:
    async def app(scope, receive, send):
        await reply(send, b"", int(scope["query_string"] or 200))

    options = {"access_log_exclude": ("/health", "/static/*", "*.ico"), "root_path": "/api"}
    with serve(app, lifespan="off", **options) as server, Client(server) as client:
        for target in (
            *("/health", "/api/health", "/health?206", "/static/a/b.css", "/x/favicon.ico"),
            *("/health?503", "/health?301", "/health/deep", "/healthy", "/static", "/a"),
        ):
            client.response(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    found = [target for _, _, target, *_ in access()]
    assert found == ["/health?503", "/health?301", "/health/deep", "/healthy", "/static", "/a"]


def test_success_is_left_out_behind_a_prefix_of_a_proxy(access: Any) -> None:
    options = {"access_log_exclude": ("/health",), "root_path": "/api"}
    with serve(hello, lifespan="off", **options) as server, Client(server) as client:
        for target in ("/health", "/p/health", "/p/healthy", "/api/health"):
            client.response(
                f"GET {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /p\r\n\r\n".encode()
            )
    assert [target for _, _, target, *_ in access()] == ["/p/healthy", "/api/health"]


def test_cut_success_is_not_left_out(access: Any) -> None:
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ValueError

    with (
        serve(app, lifespan="off", access_log_exclude=("*",)) as server,
        Client(server) as client,
        server.expect(ValueError),
    ):
        client.send(GET)
        client.rest()
    assert len(access()) == 1


# Log records, for users who have configured `tinyasgi.access`.


def test_record_has_the_keys_of_json(access: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serve(hello, lifespan="off") as server, Client(server) as client:
        client.response(GET)
    (record,) = [record for record in caplog.records if record.name == "tinyasgi.access"]
    assert (record.method, record.status, record.bytes) == ("GET", 200, 5)  # type: ignore[attr-defined]
    text = JSONFormatter().format(record)
    assert json.loads(text)["path"] == "/"


@in_loop
async def test_status_of_a_response_that_was_not_sent() -> None:
    """The status is an int in access lines and filters, whatever the app has sent."""

    async def app(scope, receive, send):
        await receive()
        for status in ("200", None, HTTPStatus.ACCEPTED):
            with suppress(ValueError):
                await send({"type": "http.response.start", "status": status})
        await receive()

    lines = []
    config = Config(access_log_exclude=["/"])
    access = exchange_filter(config, None, lambda exchange: lines.append(exchange.status))
    async with connect(app, Hooks(access=access)) as connection:
        await connection.feed(GET)
        await connection.reset()
    assert lines == [202]


# Refused requests.


REFUSED_REQUESTS = [
    (b"rubbish\r\n\r\n", '"rubbish" 400'),
    (b'\x16\x03\x01"\\ TLS\r\n\r\n', r'"\x16\x03\x01\"\\ TLS" 400'),
    (b"GET /no-host HTTP/1.1\r\n\r\n", '"GET /no-host HTTP/1.1" 400'),
    (b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n", '"GET / HTTP/1.1" 400'),
    (b"DELETE /a HTTP/9.9\r\n\r\n", '"DELETE /a HTTP/9.9" 505'),
    (b"HEAD /" + b"x" * 900, '"HEAD /' + "x" * 194 + '" 414'),
    (GET[:-2] + b"X: " + b"x" * 900 + b"\r\n\r\n", '"GET / HTTP/1.1" 431'),
    (GET[:-2] + b"X: 1\r\n" * 9 + b"\r\n", '"GET / HTTP/1.1" 431'),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", '"POST / HTTP/1.1" 413'),
    (GET[:-2] + b"Expect: 7\r\n\r\n", '"GET / HTTP/1.1" 417'),
    (HANDSHAKE.replace(b"13", b"12"), '"GET / HTTP/1.1" 426'),
]


@pytest.mark.parametrize(("request_", "expected"), REFUSED_REQUESTS)
def test_refused_request(request_: bytes, expected: str, lines: Any) -> None:
    limits = {"limit_head_size": 800, "limit_head_fields": 8, "limit_body_size": 10}
    with serve(hello, **limits) as server, Client(server) as client:
        client.send(request_)
        answer = client.rest()
        peer = "{}:{}".format(*client.sock.getsockname())
    size = len(answer.partition(b"\r\n\r\n")[2])
    (line,) = lines()
    assert re.fullmatch(re.escape(f"{peer} {expected} {size} B ") + r"0\.\d ms", line)


@in_loop
async def test_head_that_does_not_arrive(lines: Any) -> None:
    hooks = Hooks(access=record_logger(Config()))
    async with connect(hello, hooks, timeout_head=1) as connection:
        await connection.feed(b"GET /slow HTTP/1.1\r\nHost: he")
        await elapse(connection, 3)
    (line,) = lines()
    assert '"GET /slow HTTP/1.1" 408 ' in line
    assert "aborted" not in line


@in_loop
async def test_refused_request_has_the_client_and_the_fields_that_are_known() -> None:
    """A proxy may send requests of several clients on one connection."""
    config = Config(access_log_format="json")
    found = []
    head = b"X-Forwarded-For: 203.0.113.%d\r\nUser-Agent: curl\r\n\r\n"
    hooks = Hooks(access=lambda each: found.append(json.loads(line_formatter(config)(each))))
    async with connect(hello, hooks, limit_body_size=10) as connection:
        await connection.feed(GET[:-2] + head % 8)
        await connection.feed(upload(11)[:-2] + head % 9)
    async with connect(hello, hooks) as connection:
        await connection.feed(GET[:-2] + head % 8 + b"bad\r\n\r\n")
    keys = ("client", "method", "path", "version", "status", "user_agent", "aborted")
    assert [tuple(each[key] for key in keys) for each in found] == [
        ("203.0.113.8", "GET", "/", "1.1", 200, "curl", False),
        ("203.0.113.9", "POST", "/", "1.1", 413, "curl", False),
        ("203.0.113.8", "GET", "/", "1.1", 200, "curl", False),
        ("127.0.0.1", "bad", None, None, 400, None, False),
    ]


@settings(max_examples=300, deadline=None)
@given(head=TEXT)
@example(head=b'"\x1b[2J" 200\n" 200 5 B')
def test_no_refused_request_forges_a_line(head: bytes) -> None:
    parser = parsers.create_parser("h11")
    lines = Memo(lambda line: http_request.parse_request_line(line, ""), 8, longest=64)
    line, fields = refusal.read(head + b"\r\n\r\n", lines, parser)
    exchange = refusal.Refusal(Stream.client, line, fields, 400, 5)
    quoted = r'"((?:[^"\\]|\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|["\\]))*)"'
    assert re.fullmatch(rf"local {quoted} 400 5 B [\d.]+ ms", default_line(exchange))
    combined = COMBINED_LINE(exchange)
    assert combined.isascii()
    assert combined.isprintable()
    assert json.loads(line_formatter(Config(access_log_format="json"))(exchange))["status"] == 400


@pytest.mark.parametrize("kind", [list, tuple, iter])
@in_loop
async def test_response_fields_of_any_kind(kind: Any) -> None:
    """An iterator can be read only once."""

    async def app(scope, receive, send):
        fields = kind([(b"X-Kind", b"any")])
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body"})

    line = line_formatter(Config(access_log_format="%({x-kind}o)s"))
    found: list[str] = []
    hooks = Hooks(access=lambda exchange: found.append(line(exchange)))
    async with connect(app, hooks) as connection:
        assert b"x-kind: any" in await connection.feed(GET)
    assert found == ["any"]


@in_loop
async def test_logger_is_obeyed_at_any_time() -> None:
    """Level, `disabled`, filters and handlers of the logger take effect at any time."""

    class Lines(AccessLogFile):
        text = ""

        def write(self, lines: bytearray, timeout: float = 0.0) -> None:
            self.text += lines.decode()
            lines.clear()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    def hide(record: logging.LogRecord) -> bool:
        record.args = (record.getMessage().replace("secret", "*"),)
        return record.__dict__["path"] != "/never"

    async def ask(path: bytes) -> str:
        await connection.feed(GET.replace(b" / ", b" " + path + b" "))
        lines.flush()
        text, output.text = output.text, ""
        return text

    kept: list[str] = []
    logger, keep = logging.getLogger("tinyasgi.access"), Keep()
    config = Config(access_log_format="%(U)s")
    output = Lines(config)
    lines = AccessLog(
        line_formatter(config), output, asyncio.get_running_loop(), record_logger(config)
    )
    async with connect(hello, Hooks(access=lines)) as connection:
        try:
            assert await ask(b"/1") == "/1\n"
            logger.setLevel(logging.WARNING)
            assert await ask(b"/2") == ""
            logger.setLevel(logging.INFO)
            logger.disabled = True
            assert await ask(b"/3") == ""
            logger.disabled = False
            logger.addFilter(hide)
            assert await ask(b"/secret") == "/*\n"
            assert await ask(b"/never") == ""
            logger.removeFilter(hide)
            logger.addHandler(keep)
            assert await ask(b"/4") == ""
            assert kept == ["/4"]
            logger.removeHandler(keep)
            assert await ask(b"/5") == "/5\n"
        finally:
            logger.setLevel(logging.NOTSET)
            logger.disabled = False
            logger.removeFilter(hide)
            logger.removeHandler(keep)


@in_loop
async def test_logger_that_is_set_up_in_startup(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            caplog.set_level(logging.INFO, "tinyasgi.access")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await reply(send)

    def ask() -> None:
        with Client(server) as client:
            client.response(GET)

    async with Server(app, port=0) as server:
        await asyncio.to_thread(ask)
    assert [record.name for record in caplog.records].count("tinyasgi.access") == 1
