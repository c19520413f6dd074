"""`receive` and `send`, and what becomes of an app that fails or outlives its client."""

import asyncio
from typing import Any

import pytest

from tests.support.helpers import GET, LOOPS, START, Client, in_loop, reply, until, upload
from tinyasgi import Server
from tinyasgi.errors import ClientDisconnected
from tinyasgi.testing import connect, serve

BODY = {"type": "http.response.body", "body": b"x"}
MORE = {**BODY, "more_body": True}


def traceback_count(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


# Messages.


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([BODY], "before 'http.response.start'"),
        ([START, START], "sent twice"),
        ([START, MORE, START], "sent twice"),
        ([START, BODY, BODY], "after the response was complete"),
        ([START, BODY, START], "after the response was complete"),
        ([{"type": "http.response.nonsense"}], "unsupported message type"),
        ([START, {"type": "websocket.accept"}], "unsupported message type"),
    ],
)
@in_loop
async def test_message_out_of_order(messages: Any, text: str) -> None:
    errors: list[Exception] = []

    async def app(scope, receive, send):
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except RuntimeError as error:
            errors.append(error)

    async with connect(app) as connection:
        await connection.feed(GET)
    (error,) = errors
    assert messages[-1]["type"] in str(error)
    assert text in str(error)


@pytest.mark.parametrize(
    ("status", "fields", "body", "error", "text"),
    [
        (200, [], "text", TypeError, "must be bytes, not str"),
        (200, [], None, TypeError, "must be bytes, not NoneType"),
        ("200", [], b"", ValueError, "'200'"),
        (99, [], b"", ValueError, "99"),
        (100, [], b"", ValueError, "100"),
        (1000, [], b"", ValueError, "1000"),
        (200, [("name", b"value")], b"", TypeError, "'name'"),
        (200, [(b"name", "value")], b"", TypeError, "'value'"),
        (200, [(b"name", 1)], b"", TypeError, "1"),
        (200, [(b"a name", b"value")], b"", ValueError, "a name"),
        (200, [(b"", b"value")], b"", ValueError, "token"),
        (200, [(b"name:", b"value")], b"", ValueError, "name:"),
        (200, [(b"name\r\n", b"value")], b"", ValueError, "name"),
        (200, [(b"name", b"value\r\nother: x")], b"", ValueError, "other"),
        (200, [(b"name", b"value\n")], b"", ValueError, "value"),
        (200, [(b"name", b"val\rue")], b"", ValueError, "ue"),
        (200, [(b"name", b"val\0ue")], b"", ValueError, "ue"),
        (200, [(b"content-length", b"+2")], b"xy", ValueError, "content-length"),
        (200, [(b"content-length", b"2")], b"x", ValueError, "content-length"),
        (200, [(b"content-length", b"2")], b"xyz", ValueError, "content-length"),
    ],
)
@in_loop
async def test_wrong_value(
    status: Any, fields: Any, body: Any, error: type[Exception], text: str, caplog: Any
) -> None:
    async def app(scope, receive, send):
        with pytest.raises(error, match=text.replace("+", "[+]")) as raised:
            await reply(send, body, status, *fields)
        raise raised.value

    async with connect(app) as connection:
        sent = await connection.feed(GET)
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"other: x" not in sent
    assert traceback_count(caplog) == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@in_loop
async def test_body_of_any_bytes(kind: Any) -> None:
    async def app(scope, receive, send):
        await reply(send, kind(b"abc"))

    async with connect(app) as connection:
        assert (await connection.feed(GET)).endswith(b"content-length: 3\r\n\r\nabc")


@in_loop
async def test_body_of_wrong_type_while_streaming(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await send(START)
        await send(MORE)
        await send({"type": "http.response.body", "body": "text"})

    async with connect(app) as connection:
        sent = await connection.feed(GET)
        assert connection.aborted
    assert sent.endswith(b"\r\n\r\n1\r\nx\r\n")
    assert traceback_count(caplog) == 1


@pytest.mark.parametrize("more", [True, False], ids=["longer", "shorter"])
@in_loop
async def test_streamed_body_of_wrong_length(more: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        length = b"1" if more else b"3"
        await send({**START, "headers": [(b"content-length", length)]})
        await send(MORE)
        await send({**BODY, "more_body": more})

    async with connect(app) as connection:
        sent = await connection.feed(GET)
        assert connection.aborted
    assert sent.endswith(b"\r\n\r\nx")
    assert traceback_count(caplog) == 1
    assert "content-length" in caplog.text


# The request's body.


@in_loop
async def test_body_in_pieces() -> None:
    messages = []

    async def app(scope, receive, send):
        for _ in range(5):
            messages.append(await receive())
            if len(messages) == 3:
                await reply(send)

    async with connect(app) as connection:
        await connection.feed(upload(4) + b"a", b"bc", b"d")
    assert [message["type"] for message in messages] == ["http.request"] * 3 + [
        "http.disconnect"
    ] * 2
    assert [message.get("body") for message in messages[:3]] == [b"a", b"bc", b"d"]
    assert [message.get("more_body") for message in messages[:3]] == [True, True, False]


@in_loop
async def test_request_without_body() -> None:
    messages = []

    async def app(scope, receive, send):
        messages.append(await receive())
        await reply(send)

    async with connect(app) as connection:
        await connection.feed(GET)
    assert messages == [{"type": "http.request", "body": b"", "more_body": False}]


@in_loop
async def test_several_tasks_receive() -> None:
    messages = []

    async def listen(receive):
        messages.append(await receive())

    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(listen(receive))

    async with connect(app) as connection:
        await connection.feed(upload(1))
        assert messages == []
        await connection.feed(b"x")
        assert messages == [{"type": "http.request", "body": b"x", "more_body": False}]
        await connection.reset()
    assert messages[1:] == [{"type": "http.disconnect"}] * 2


@in_loop
async def test_cancelled_receive_loses_nothing() -> None:
    messages = []

    async def app(scope, receive, send):
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        task.cancel()
        messages.append(await receive())
        await reply(send)

    async with connect(app) as connection:
        await connection.feed(upload(1), b"x")
    assert [message["body"] for message in messages] == [b"x"]


# The end of a response, or of the client.


@pytest.mark.parametrize("request_", [GET, upload(5) + b"begin"], ids=["whole", "body not read"])
@in_loop
async def test_disconnect_after_response(request_: bytes) -> None:
    messages = []

    async def app(scope, receive, send):
        await reply(send)
        messages.extend([await receive(), await receive()])

    async with connect(app) as connection:
        await connection.feed(request_)
    assert messages == [{"type": "http.disconnect"}] * 2


@in_loop
async def test_waiting_receive_is_woken_by_the_end_of_the_response() -> None:
    messages = []

    async def app(scope, receive, send):
        await receive()
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await reply(send)
        messages.append(await waiting)

    async with connect(app) as connection:
        await connection.feed(GET)
    assert messages == [{"type": "http.disconnect"}]


@in_loop
async def test_disconnect_after_the_client_left() -> None:
    messages = []

    async def app(scope, receive, send):
        await receive()
        messages.extend([await receive(), await receive()])

    async with connect(app) as connection:
        await connection.feed(GET)
        assert messages == []
        await connection.reset()
    assert messages == [{"type": "http.disconnect"}] * 2


def test_half_close_is_reported_and_answered() -> None:
    async def app(scope, receive, send):
        await receive()
        message = await receive()
        await reply(send, message["type"].encode())

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        client.half_close()
        assert client.response().body == b"http.disconnect"
        assert client.rest() == b""


def test_return_after_half_close_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """It may be a close as well: an app that was told of it owes no response."""

    async def app(scope, receive, send):
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(GET)
        client.half_close()
        client.rest()
    assert caplog.text == ""


def test_half_close_within_the_request_body_ends_the_request() -> None:
    messages = []

    async def app(scope, receive, send):
        messages.extend([await receive(), await receive()])

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.send(upload(10) + b"begin")
        client.half_close()
        assert client.rest() == b""
    assert [message["type"] for message in messages] == ["http.request", "http.disconnect"]


def fail_plainly(error: Exception) -> None:
    raise error


def fail_from(error: Exception) -> None:
    raise RuntimeError("can't go on") from error


def fail_within(error: Exception) -> None:
    try:
        raise error
    finally:
        raise RuntimeError("can't go on")


def fail_in_group(error: Exception) -> None:
    raise ExceptionGroup("tasks", [error])


def fail_in_groups(error: Exception) -> None:
    try:
        raise ExceptionGroup("tasks", [error, ExceptionGroup("more", [ClientDisconnected()])])
    except ExceptionGroup as group:
        raise RuntimeError("can't go on") from group


def fail_in_clean_up(error: Exception) -> None:
    try:
        raise error
    finally:
        undefined  # type: ignore[name-defined]  # noqa: B018, F821


def fail_with_another(error: Exception) -> None:
    raise ExceptionGroup("tasks", [error, ValueError("a real fault")])


def fail_in_a_cycle(error: Exception) -> None:
    fault = ValueError("a real fault")
    fault.__cause__ = ExceptionGroup("tasks", [fault, error])
    raise fault


@pytest.mark.parametrize(
    "fail", [fail_within, fail_in_clean_up, fail_with_another, fail_in_a_cycle]
)
@in_loop
async def test_faults_besides_a_disconnect_are_reported(
    fail: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope, receive, send):
        await receive()
        await receive()
        try:
            await reply(send)
        except ClientDisconnected as error:
            fail(error)

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
    assert traceback_count(caplog) == 1


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["nothing", "a piece"])
@in_loop
async def test_error_response_after_the_client_left(
    piece: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As frameworks send it when a stream fails: the app learns that nobody waits for it."""
    raised = []

    async def app(scope, receive, send):
        await send(START)
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await reply(send, b"it failed", 500)
        except Exception as error:
            raised.append(type(error))
            raise

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.eof()
    assert raised == [ClientDisconnected]
    assert caplog.text == ""


@pytest.mark.parametrize("fail", [fail_plainly, fail_from, fail_in_group, fail_in_groups])
@in_loop
async def test_send_after_the_client_left(fail: Any, caplog: pytest.LogCaptureFixture) -> None:
    raised = []

    async def app(scope, receive, send):
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        try:
            await reply(send)
        except OSError as error:
            raised.append(error)
            fail(error)

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
    assert [type(error) for error in raised] == [ClientDisconnected]
    assert caplog.text == ""


@pytest.mark.parametrize("piece", [b"", b"x", bytes(100_000)])
@in_loop
async def test_send_after_another_task_was_told(piece: bytes) -> None:
    """It raises, but not before that task can have cancelled it."""
    sent = []

    async def app(scope, receive, send):
        async def stream():
            await send(START)
            while True:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                sent.append(told.is_set())
                if len(sent) == 1:
                    await left.wait()

        told, streaming = asyncio.Event(), asyncio.create_task(stream())
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        told.set()
        with pytest.raises(ClientDisconnected):
            await streaming
        with pytest.raises(ClientDisconnected):
            await send(MORE)

    left = asyncio.Event()
    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
        left.set()
        await until(lambda: not connection.context.running)
    assert 5 < sent.count(True) < 5000


@in_loop
async def test_send_after_a_task_has_ceased_to_listen() -> None:
    """As with `request.is_disconnected()`, which looks and waits for nothing."""

    async def app(scope, receive, send):
        async def stream():
            await left.wait()
            await send(START)

        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
        with pytest.raises(ClientDisconnected):
            await asyncio.create_task(stream())

    left = asyncio.Event()
    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
        left.set()
        await until(lambda: not connection.context.running)


@in_loop
async def test_other_errors_after_the_client_left_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope, receive, send):
        await receive()
        await receive()
        raise ValueError("a real fault")

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
    assert traceback_count(caplog) == 1
    assert "a real fault" in caplog.text


@in_loop
async def test_blocked_send_is_woken_when_the_client_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcome = []

    async def app(scope, receive, send):
        await send(START)
        connection.protocol.pause_writing()
        try:
            await send(MORE)
        except ClientDisconnected as error:
            outcome.append(error)
            raise

    async with connect(app) as connection:
        await connection.feed(GET)
        assert connection.context.running
        await connection.reset()
        assert not connection.context.running
    assert len(outcome) == 1
    assert caplog.text == ""


# Apps that fail.


@in_loop
async def test_error_before_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        raise ValueError("broken")

    async with connect(app) as connection:
        sent = await connection.feed(GET)
        assert sent.startswith(b"HTTP/1.1 500 ")
        assert b"broken" not in sent
        # The connection is sound.
        again = await connection.feed(GET)
        assert again.count(b"HTTP/1.1 500 ") == 2
    assert traceback_count(caplog) == 2
    assert caplog.text.count("ValueError: broken") == 2


@in_loop
async def test_error_after_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await send({**START, "headers": [(b"secret", b"x")]})
        raise ValueError("broken")

    async with connect(app) as connection:
        sent = await connection.feed(GET)
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in sent
    assert traceback_count(caplog) == 1


@in_loop
async def test_error_within_the_body(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await send(START)
        await send(MORE)
        raise ValueError("broken")

    async with connect(app) as connection:
        sent = await connection.feed(GET)
        assert connection.aborted
    assert sent.endswith(b"\r\n1\r\nx\r\n")
    assert traceback_count(caplog) == 1


@in_loop
async def test_error_after_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await reply(send, b"fine")
        raise ValueError("broken")

    async with connect(app) as connection:
        sent = await connection.feed(GET, GET)
        assert not connection.closed
    assert sent.count(b"\r\n\r\nfine") == 2
    assert sent.count(b" 200 OK") == 2
    assert traceback_count(caplog) == 2


@pytest.mark.parametrize(
    ("messages", "ending", "aborted"),
    [
        ([], b"", False),
        ([START], b"", False),
        ([START, MORE], b"1\r\nx\r\n", True),
    ],
    ids=["nothing", "start", "part of the body"],
)
@in_loop
async def test_return_without_whole_response(
    messages: Any, ending: bytes, aborted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    async with connect(app) as connection:
        sent = await connection.feed(GET)
        assert connection.aborted == aborted
    assert aborted or sent.startswith(b"HTTP/1.1 500 ")
    assert sent.endswith(ending)
    assert "returned" in caplog.text


@in_loop
async def test_return_after_the_client_left_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        await receive()
        await receive()

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
    assert caplog.text == ""


@in_loop
async def test_app_cancels_itself(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send):
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with connect(app) as connection:
        assert (await connection.feed(GET)).startswith(b"HTTP/1.1 500 ")
    assert traceback_count(caplog) == 1


class Panic(BaseException):
    """As pyo3 raises it for a panic of Rust."""


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, Panic])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_base_exception_ends_one_request_only(
    loop: Any, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope, receive, send):
        if scope["path"] == "/early":
            raise error(7)
        await reply(send, b"hello")
        if scope["path"] == "/late":
            raise error(8)

    def talk(port: int) -> None:
        with Client(port) as client:
            for _ in range(2):
                assert client.response(GET.replace(b"/ ", b"/early ")).status == 500
                assert client.response(GET.replace(b"/ ", b"/late ")).body == b"hello"
            assert client.response(GET).body == b"hello"

    errors: list[BaseException] = []
    async with Server(
        app, port=0, lifespan="off", on_error=lambda _, e: errors.append(e)
    ) as server:
        await asyncio.to_thread(talk, server.port)
    assert [each.args for each in errors] == [(7,), (8,)] * 2
    assert traceback_count(caplog) == 4


@in_loop
async def test_timeout_after_the_response_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A TimeoutError comes from a CancelledError, but nobody has cancelled the app."""

    async def app(scope, receive, send):
        await reply(send, b"hello")
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async with connect(app) as connection:
        await connection.feed(GET)
        while connection.context.running:
            await asyncio.sleep(0)
    assert caplog.text.count("\nTimeoutError") == 1


def test_error_in_a_cycle_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Task groups are taken apart by middleware, and leave a member that comes from its group."""

    async def app(scope, receive, send):
        error = ZeroDivisionError()
        error.__context__ = ExceptionGroup("of a task group", [error])
        await reply(send, b"hello")
        raise error

    with (
        serve(app, lifespan="off") as server,
        Client(server) as client,
        server.expect(ZeroDivisionError),
    ):
        assert client.response(GET).body == b"hello"
    assert traceback_count(caplog) == 1
