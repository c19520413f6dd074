"""WebSocket exchanges in memory: scope, messages and errors of the app."""

import asyncio
import logging
from typing import Any

import pytest

from tests.support.helpers import elapse, in_loop
from tinyasgi.errors import ClientDisconnected
from tinyasgi.protocols.hooks import Hooks
from tinyasgi.protocols.websocket.frames import BINARY, TEXT, encode, encode_close
from tinyasgi.testing import connect

from .helpers import ACCEPT, HANDSHAKE, echo, handshake, masked, opened

CLOSE = {"type": "websocket.close"}
DENIAL = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"a", b"b")]}
BYE = masked(0x88, b"\x03\xe8bye")


def sends(*messages: Any) -> Any:
    """Return an app that sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


@in_loop
async def test_scope() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send(ACCEPT)
        await receive()

    async with opened(app, b"Sec-WebSocket-Protocol: chat, x", root_path="/api"):
        [scope] = scopes
    assert scope.pop("headers")[-1] == (b"sec-websocket-protocol", b"chat, x")
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/api/chat",
        "raw_path": b"/chat",
        "query_string": b"a=b",
        "root_path": "/api",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "subprotocols": ["chat", "x"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


@in_loop
async def test_messages() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message)
            await send({"type": "websocket.send", "text": "té"})
            await send({"type": "websocket.send", "text": None, "bytes": bytearray(b"b")})

    async with opened(app) as peer:
        answer = await peer.send(masked(0x81, "é".encode()), masked(0x82, b"x"))
        assert answer == (encode(TEXT, "té".encode()) + encode(BINARY, b"b")) * 2
    assert seen == [
        {"type": "websocket.receive", "text": "é"},
        {"type": "websocket.receive", "bytes": b"x"},
    ]


@in_loop
async def test_accept_with_subprotocol_and_headers() -> None:
    accept = {**ACCEPT, "subprotocol": "x", "headers": [(b"Set-Cookie", b"a=b")]}
    async with connect(sends(accept)) as connection:
        head = await connection.feed(handshake(b"Sec-WebSocket-Protocol: chat, x"))
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"sec-websocket-protocol: x" in lines
    assert b"set-cookie: a=b" in lines
    assert lines.count(b"connection: upgrade") == lines.count(b"upgrade: websocket") == 1
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines


@pytest.mark.parametrize(
    "accept",
    [
        {**ACCEPT, "subprotocol": "other"},
        {**ACCEPT, "headers": [(b"sec-websocket-accept", b"x")]},
        {**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]},
    ],
)
@in_loop
async def test_accept_with_wrong_values(accept: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(sends(accept)) as connection:
        assert (await connection.feed(HANDSHAKE)).startswith(b"HTTP/1.1 500 ")
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("message", [CLOSE, None])
@in_loop
async def test_rejected_by_the_app(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By `websocket.close` or by returning. The connection stays open for HTTP."""
    async with connect(sends(*filter(None, [message]))) as connection:
        answer = await connection.feed(HANDSHAKE)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert answer.endswith(b"\r\n\r\nForbidden\n")
        assert (await connection.feed(HANDSHAKE)).count(b"HTTP/1.1 403 ") == 2
    assert not caplog.records


@in_loop
async def test_denial_response() -> None:
    body = {"type": "websocket.http.response.body", "body": b"who?"}
    async with connect(sends(DENIAL, body)) as connection:
        answer = await connection.feed(HANDSHAKE)
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\na: b\r\n")
        assert answer.endswith(b"content-length: 4\r\n\r\nwho?")


@in_loop
async def test_streamed_denial_response() -> None:
    pieces = [
        {"type": "websocket.http.response.body", "body": b"one", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"two"},
    ]
    async with connect(sends(DENIAL, *pieces)) as connection:
        answer = await connection.feed(HANDSHAKE + HANDSHAKE)
        assert answer.count(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n") == 2


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([{"type": "websocket.send", "text": "x"}], "before websocket.accept"),
        ([ACCEPT, ACCEPT], "after websocket.accept"),
        ([ACCEPT, DENIAL], "after websocket.accept"),
        ([ACCEPT, {"type": "http.response.start", "status": 200}], "after websocket.accept"),
        ([DENIAL, ACCEPT], "after websocket.http.response.start"),
        ([DENIAL, CLOSE], "after websocket.http.response.start"),
        ([{"type": "http.response.start", "status": 200}], "before websocket.accept"),
        ([CLOSE, ACCEPT], "after websocket.close"),
        ([ACCEPT, CLOSE, CLOSE], "after websocket.close"),
        ([ACCEPT, CLOSE, {"type": "websocket.send", "text": "x"}], "after websocket.close"),
    ],
)
@in_loop
async def test_message_out_of_order(messages: Any, where: str) -> None:
    errors: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except RuntimeError as error:
            errors.append(error)

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
    assert str(errors[0]) == f"{messages[-1]['type']!r} was sent {where}"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({}, ValueError),
        ({"text": None, "bytes": None}, ValueError),
        ({"text": "x", "bytes": b"x"}, ValueError),
        ({"bytes": "x"}, TypeError),
        ({"text": "\ud800"}, UnicodeEncodeError),
    ],
)
@in_loop
async def test_wrong_value(
    message: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(sends(ACCEPT, {"type": "websocket.send", **message})) as peer:
        assert peer.take() == encode_close(1011)
    assert error.__name__ in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@in_loop
async def test_base_exception_closes_one_websocket_only(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        raise error(7)

    async with opened(app) as peer:
        assert peer.take() == encode_close(1011)
        assert not peer.connection.context.running
    assert caplog.text.count(f"{error.__name__}: 7") == 1


@pytest.mark.parametrize(
    ("close", "sent"),
    [
        ({}, encode_close(1000)),
        ({"code": None, "reason": None}, encode_close(1000)),
        ({"code": 4001, "reason": "é"}, encode_close(4001, "é")),
        ({"code": 1005}, encode_close(1005)),
        ({"code": 1006}, encode_close(1011)),
        ({"reason": "r" * 124}, encode_close(1011)),
    ],
)
@in_loop
async def test_close_by_the_app(close: Any, sent: bytes) -> None:
    async with opened(sends(ACCEPT, {**CLOSE, **close})) as peer:
        assert peer.take() == sent
        assert not peer.connection.closed
        await peer.send(masked(0x81, b"too late") + masked(0x88, sent[2:4]))
        assert peer.connection.closed


@in_loop
async def test_return_closes() -> None:
    async with opened(sends(ACCEPT)) as peer:
        assert peer.take() == encode_close(1000)


@in_loop
async def test_error_closes(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        raise OSError("of the app")

    async with opened(app) as peer:
        assert peer.take() == encode_close(1011)
    assert "OSError: of the app" in caplog.text
    assert caplog.records[0].message == "GET /chat?a=b HTTP/1.1: exception in the app"


@in_loop
async def test_error_before_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise OSError("of the app")

    async with connect(app) as connection:
        assert (await connection.feed(HANDSHAKE)).startswith(b"HTTP/1.1 500 ")
    assert "OSError: of the app" in caplog.text


async def disconnect(app_waits: Any, leave: Any, **options: Any) -> list[Any]:
    """Return the messages of two `receive` calls after a disconnect."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await app_waits()
        seen.extend([await receive(), await receive()])

    async with opened(app, **options) as peer:
        await leave(peer)
    return seen


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        (BYE, 1000, "bye"),
        (masked(0x88), 1005, ""),
        (masked(0x88, b"\x0f\xa0"), 4000, ""),
        (masked(0x81, b"\xff"), 1007, "invalid UTF-8 in a text message"),
        (masked(0x83), 1002, "unknown opcode 3"),
        (None, 1006, ""),
    ],
)
@in_loop
async def test_disconnect(frame: bytes | None, code: int, reason: str) -> None:
    async def leave(peer: Any) -> None:
        if frame is None:
            await peer.connection.reset()
        else:
            await peer.send(frame)

    async def wait() -> None:
        pass

    message = {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert await disconnect(wait, leave) == [message, message]


@in_loop
async def test_messages_before_a_disconnect_are_received() -> None:
    seen = []
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await ready.wait()
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
            await send({"type": "websocket.send", "text": message["text"]})
        seen.append(message["code"])

    async with opened(app) as peer:
        assert await peer.send(masked(0x81, b"one"), masked(0x81, b"two") + BYE) == b""
        ready.set()
        answers = encode(TEXT, b"one") + encode(TEXT, b"two")
        assert await peer.send() == answers + encode_close(1000)
    assert seen == ["one", "two", 1000]


@in_loop
async def test_last_message_is_answered_before_an_error() -> None:
    async with opened(echo) as peer:
        answer = await peer.send(masked(0x81, b"good") + masked(0x83))
        assert answer.startswith(encode(TEXT, b"good") + b"\x88")
        assert peer.connection.closed


@pytest.mark.parametrize("frame", [BYE, masked(0x83), None])
@in_loop
async def test_send_after_a_disconnect(
    frame: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        for message in ({"type": "websocket.send", "text": "x"}, CLOSE):
            try:
                await send(message)
            except ClientDisconnected as error:
                errors.append(error)
        raise errors[0]

    caplog.set_level(logging.ERROR)
    async with opened(app) as peer:
        if frame is None:
            await peer.connection.reset()
        else:
            await peer.send(frame)
    assert len(errors) == 2
    assert isinstance(errors[0], OSError)
    assert not caplog.records


@in_loop
async def test_disconnect_during_the_handshake() -> None:
    seen = []
    accept = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send(ACCEPT)
        accept.set()

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
        await connection.eof()
        await accept.wait()
        assert connection.sent == b""
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@in_loop
async def test_receive_after_a_rejection() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(CLOSE)
        seen.append(await receive())

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@in_loop
async def test_several_tasks_receive() -> None:
    texts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def take() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                texts.append(message["text"])

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(take())

    async with opened(app) as peer:
        for number in range(10):
            await peer.say(str(number))
        await peer.send(BYE)
    assert texts == [str(number) for number in range(10)]


@in_loop
async def test_cancelled_receive_loses_no_message() -> None:
    seen = []
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        for _ in range(100):
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            task.cancel()
        ready.set()
        seen.append(await receive())

    async with opened(app) as peer:
        await ready.wait()
        await peer.say("hello")
    assert seen == [{"type": "websocket.receive", "text": "hello"}]


@pytest.mark.parametrize("cancel", [True, False])
@in_loop
async def test_cancel_on_disconnect(cancel: bool) -> None:
    ends: list[str] = []
    forever = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await forever.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")

    async with opened(app, cancel_on_disconnect=cancel) as peer:
        await peer.send(BYE)
        assert ends == (["cancelled"] if cancel else [])
        forever.set()
        await peer.send()
    assert ends == (["cancelled"] if cancel else ["done"])


@pytest.mark.parametrize("cancel", [True, False])
@in_loop
async def test_cancel_on_disconnect_with_a_close_frame_after_the_handshake(
    cancel: bool,
) -> None:
    """With eager tasks, the app may be in its first step while its task is created."""
    ends: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send(ACCEPT)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")

    async with connect(app, cancel_on_disconnect=cancel) as connection:
        assert (await connection.feed(HANDSHAKE + BYE)).endswith(encode_close(1000))
    assert ends == (["cancelled"] if cancel else ["done"])


@pytest.mark.parametrize("fault", ["protocol", "silence", "not read"])
@in_loop
async def test_cancel_on_disconnect_after_an_error_of_the_client(fault: str) -> None:
    ends: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    options = {"ws_ping_interval": 2, "ws_ping_timeout": 2, "timeout_write": 2}
    async with opened(app, cancel_on_disconnect=True, **options) as peer:
        if fault == "protocol":
            await peer.send(masked(0x83))
        elif fault == "not read":
            peer.connection.get_write_buffer_size = lambda: 100  # type: ignore[method-assign]
        if fault != "protocol":
            await elapse(peer.connection, 10)
        assert ends == ["cancelled"]


@in_loop
async def test_ws_none_serves_plain_http() -> None:
    types = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        types.append(scope["type"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with connect(app, ws="none") as connection:
        assert (await connection.feed(HANDSHAKE)).startswith(b"HTTP/1.1 204 ")
    assert types == ["http"]


@pytest.mark.parametrize(
    ("change", "status", "also"),
    [
        (
            (b"Version: 13", b"Version: 8"),
            426,
            [b"sec-websocket-version: 13", b"upgrade: websocket"],
        ),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), 426, [b"connection: upgrade"]),
        ((b"dGhl", b"----"), 400, []),
        ((b"Sec-WebSocket-Key", b"X-Key"), 400, []),
    ],
)
@in_loop
async def test_invalid_handshake(
    change: tuple[bytes, bytes], status: int, also: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(echo) as connection:
        answer = await connection.feed(HANDSHAKE.replace(*change))
        assert connection.closed
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert {b"connection: close", *also} <= set(lines)
    assert caplog.records[0].message.startswith(f"127.0.0.1:50000: {status}: ")


@in_loop
async def test_access_line() -> None:
    over = []

    def access(exchange: Any) -> None:
        over.append((exchange.status, exchange.sent, exchange.phase.name, exchange.client.name))

    async with connect(echo, Hooks(access=access)) as connection:
        await connection.feed(HANDSHAKE, masked(0x81, b"hello"), masked(0x82, b"12345"))
        assert over == []
        await connection.feed(BYE)
    assert over == [(101, 10, "COMPLETE", "127.0.0.1:50000")]
