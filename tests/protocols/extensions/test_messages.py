"""Early hints, trailers, and the time at which a head is sent."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.helpers import GET, HANDSHAKE, in_loop
from tinyasgi.protocols.connection import COMPRESSORS
from tinyasgi.protocols.stream import PATHSEND
from tinyasgi.testing import connect

START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"hello"}
PART = {**BODY, "more_body": True}
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
HINT_TEXT = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
ANNOUNCED = {**START, "trailers": True}
TRAILER = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
BARE = {"date_header": False, "server_header": False}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
WITH_TE = GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\n\r\n")
OLD = GET.replace(b"1.1", b"1.0")


class App:
    """Send messages; record the extensions and the errors."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.extensions: Any = None
        self.errors: list[Exception] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.extensions = set(scope["extensions"])
        for message in self._messages:
            if isinstance(message, asyncio.Event):
                await message.wait()
                continue
            try:
                await send(message)
            except Exception as error:
                self.errors.append(error)


async def answer(app: Any, request: bytes = GET, **options: Any) -> bytes:
    async with connect(app, **BARE, **options) as connection:
        return await connection.feed(request)


@in_loop
async def test_pathsend_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(START, BODY)
    for name in COMPRESSORS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    await answer(app)
    assert PATHSEND in app.extensions
    for name in COMPRESSORS:
        with monkeypatch.context() as context:
            context.setitem(sys.modules, name, sys)
            await answer(app)
        assert PATHSEND not in app.extensions


@in_loop
async def test_scope() -> None:
    app = App(START, BODY)
    every = {"early_hint", "trailers", "pathsend", "zerocopysend"}
    await answer(app, pathsend=True)
    assert app.extensions == {f"http.response.{name}" for name in every}
    await answer(app, pathsend=False)
    assert app.extensions == {f"http.response.{name}" for name in every - {"pathsend"}}
    await answer(app, OLD, pathsend=True)
    assert app.extensions == {"http.response.pathsend", "http.response.zerocopysend"}
    await answer(app, HANDSHAKE)
    assert app.extensions == {"websocket.http.response"}


# Early hints.


@pytest.mark.parametrize("messages", [(HINT, START, BODY), (START, HINT, BODY)])
@in_loop
async def test_hint(messages: Sequence[Any]) -> None:
    sent = await answer(App(*messages))
    assert sent == HINT_TEXT + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@in_loop
async def test_hints_before_a_slow_response() -> None:
    ready = asyncio.Event()
    async with connect(App(HINT, HINT, ready, START, BODY), **BARE) as connection:
        assert await connection.feed(GET) == HINT_TEXT * 2
        ready.set()
        await connection.settle()
        assert connection.sent.endswith(b"hello")


@pytest.mark.parametrize(
    ("request_", "messages"),
    [
        (OLD, (HINT, START, BODY)),
        (GET, (START, PART, HINT, BODY)),
        (GET, ({**HINT, "links": []}, START, BODY)),
    ],
    ids=["HTTP/1.0", "too late", "no links"],
)
@in_loop
async def test_no_hint(request_: bytes, messages: Sequence[Any]) -> None:
    app = App(*messages)
    assert b" 103 " not in await answer(app, request_)
    assert app.errors == []


@in_loop
async def test_hints_wait_for_a_slow_client() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        connection.protocol.pause_writing()
        for number in range(9):
            await send(HINT)
            sent.append(number)

    async with connect(app) as connection:
        await connection.feed(GET)
        assert sent == []
        connection.protocol.resume_writing()
        await connection.settle()
        assert len(sent) == 9


@pytest.mark.parametrize(
    ("links", "error"),
    [(["</a>"], TypeError), (b"</a>", TypeError), ([b"a\r\nb: c"], ValueError), (None, TypeError)],
)
@in_loop
async def test_bad_links(links: Any, error: type[Exception]) -> None:
    app = App({**HINT, "links": links}, START, BODY)
    sent = await answer(app)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"hello")
    assert [type(each) for each in app.errors] == [error]


@in_loop
async def test_misplaced_hints() -> None:
    app = App({"type": "http.response.early_hint"}, START, BODY, HINT)
    await answer(app)
    assert [type(each) for each in app.errors] == [KeyError, RuntimeError]


@in_loop
async def test_error_after_a_hint() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HINT)
        raise LookupError

    sent = await answer(app)
    assert sent.startswith(HINT_TEXT + b"HTTP/1.1 500 ")


@in_loop
async def test_hint_for_a_pipelined_request() -> None:
    sent = await answer(App(HINT, START, BODY), GET * 3)
    assert sent.count(HINT_TEXT) == sent.count(b"HTTP/1.1 200 OK") == 3
    assert sent.startswith(HINT_TEXT)
    assert sent.endswith(b"hello")


# Trailers.


@in_loop
async def test_trailers() -> None:
    more = {**TRAILER, "more_trailers": True}
    last = {**TRAILER, "headers": [(b"X-Time", b"2")]}
    app = App(ANNOUNCED, BODY, more, last)
    assert await answer(app, WITH_TE) == CHUNKED + b"0\r\nx-sum: 1\r\nx-time: 2\r\n\r\n"
    assert await answer(App(ANNOUNCED, PART, BODY, TRAILER), WITH_TE) == (
        CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
    )
    assert app.errors == []


@in_loop
async def test_trailers_keep_the_connection() -> None:
    sent = await answer(App(ANNOUNCED, BODY, TRAILER), WITH_TE * 2)
    assert sent == (CHUNKED + b"0\r\nx-sum: 1\r\n\r\n") * 2


@pytest.mark.parametrize("te", [b"", b"TE: deflate\r\n", b"TE: trailersx\r\n"])
@in_loop
async def test_trailers_that_the_client_does_not_want(te: bytes) -> None:
    request = GET[:-2] + te + b"\r\n"
    app = App(ANNOUNCED, BODY, TRAILER)
    assert await answer(app, request) == CHUNKED + b"0\r\n\r\n"
    assert app.errors == []


@in_loop
async def test_trailers_without_room() -> None:
    length = {**ANNOUNCED, "headers": [(b"content-length", b"5")]}
    for start, request, ending in [
        (length, WITH_TE, b"\r\n\r\nhello"),
        (ANNOUNCED, WITH_TE.replace(b"1.1", b"1.0"), b"\r\n\r\nhello"),
        (ANNOUNCED, WITH_TE.replace(b"GET", b"HEAD"), b"\r\n\r\n"),
        ({**ANNOUNCED, "status": 204}, WITH_TE, b"\r\n\r\n"),
        ({**ANNOUNCED, "status": 304}, WITH_TE, b"\r\n\r\n"),
    ]:
        app = App(start, BODY, TRAILER)
        sent = await answer(app, request)
        assert sent.endswith(ending)
        assert b"x-sum" not in sent
        assert app.errors == []


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([(b"content-length", b"5")], ValueError),
        ([(b"Transfer-Encoding", b"chunked")], ValueError),
        ([(b"host", b"a")], ValueError),
        ([(b"set-cookie", b"a=b")], ValueError),
        ([(b"trailer", b"x")], ValueError),
        ([(b"If-Match", b"x")], ValueError),
        ([(b":status", b"200")], ValueError),
        ([(b"x", b"a\r\nb: c")], ValueError),
        ([("x", "a")], TypeError),
        (5, TypeError),
    ],
)
@in_loop
async def test_bad_trailers(headers: Any, error: type[Exception]) -> None:
    app = App(ANNOUNCED, BODY, {**TRAILER, "headers": headers}, TRAILER)
    assert await answer(app, WITH_TE) == CHUNKED + b"0\r\nx-sum: 1\r\n\r\n"
    assert [type(each) for each in app.errors] == [error]


@pytest.mark.parametrize(
    "messages",
    [
        (TRAILER, START, BODY),
        (START, TRAILER, BODY),
        (ANNOUNCED, TRAILER, BODY, TRAILER),
        (START, BODY, TRAILER),
        (ANNOUNCED, BODY, BODY, TRAILER),
        (ANNOUNCED, BODY, TRAILER, TRAILER),
    ],
)
@in_loop
async def test_misplaced_trailers(messages: Sequence[Any]) -> None:
    app = App(*messages)
    sent = await answer(app)
    assert sent.count(b"hello") == 1
    assert [type(each) for each in app.errors] == [RuntimeError]


@in_loop
async def test_announced_trailers_that_are_not_sent() -> None:
    async with connect(App(ANNOUNCED, BODY), **BARE) as connection:
        assert await connection.feed(WITH_TE) == CHUNKED
        assert connection.aborted


@in_loop
async def test_trailers_after_a_half_close() -> None:
    """An empty end of the body does not end a response that trailers follow."""
    ready = asyncio.Event()
    empty = {**BODY, "body": b""}
    async with connect(App(ANNOUNCED, PART, ready, empty, TRAILER), **BARE) as connection:
        await connection.feed(WITH_TE)
        await connection.eof()
        ready.set()
        await connection.settle()
        assert connection.sent == CHUNKED + b"0\r\nx-sum: 1\r\n\r\n"


# The head of a slow response.


@pytest.mark.parametrize("first", [(), (True,)], ids=["first step", "later step"])
@in_loop
async def test_head_before_the_body(first: Sequence[Any]) -> None:
    begin, ready = asyncio.Event(), asyncio.Event()
    steps = [begin] if first else []
    async with connect(App(*steps, START, ready, BODY), **BARE) as connection:
        assert await connection.feed(GET) == (b"" if first else CHUNKED[:47])
        begin.set()
        await connection.settle()
        assert connection.sent == CHUNKED[:47]
        ready.set()
        await connection.settle()
        assert connection.sent == CHUNKED + b"0\r\n\r\n"


@in_loop
async def test_head_sent_by_another_task() -> None:
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(App(START, ready, BODY)(scope, receive, send))

    async with connect(app, **BARE) as connection:
        assert await connection.feed(GET) == CHUNKED[:47]
        ready.set()
        await connection.settle()
        assert connection.sent == CHUNKED + b"0\r\n\r\n"


@in_loop
async def test_head_with_an_error_waits() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"3")]})
        try:
            await send(BODY)
        finally:
            await asyncio.sleep(0)

    assert (await answer(app)).startswith(b"HTTP/1.1 500 ")
    app_ = App({**START, "headers": [("text", "text")]}, asyncio.Event())
    async with connect(app_, **BARE) as connection:
        assert await connection.feed(GET) == b""


@pytest.mark.parametrize("wrong", [{**HINT, "links": [""]}, {**START, "status": "?"}])
@in_loop
async def test_head_after_an_error(wrong: Any) -> None:
    """An error before `http.response.start` says nothing about the head."""
    app = App(wrong, START, asyncio.Event())
    async with connect(app, **BARE) as connection:
        assert await connection.feed(GET) == CHUNKED[:47]
        assert len(app.errors) == 1


@in_loop
async def test_cancel_while_the_app_waits() -> None:
    """An exception that is thrown into the app reaches it."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
        await send(START)
        await send(BODY)

    async with connect(app, **BARE) as connection:
        await connection.feed(GET)
        (exchange,) = connection.context.running
        for _ in range(2):
            assert exchange.task is not None
            exchange.task.cancel()
            await connection.settle()
        assert seen == ["cancelled"] * 2
        assert connection.sent.endswith(b"hello")
