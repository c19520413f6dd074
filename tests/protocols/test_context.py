"""Tasks and their contexts, the clock, and the limits that connections share."""

import asyncio
import contextvars
import gc
import logging
import queue
import random
import threading
import weakref
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.support.helpers import (
    GET,
    HANDSHAKE,
    LOOPS,
    PATIENCE,
    Client,
    elapse,
    hello,
    in_loop,
    quick_loop,
    reply,
    until,
    upload,
)
from tinyasgi import Server
from tinyasgi.errors import ClientDisconnected
from tinyasgi.protocols.context import SLICE
from tinyasgi.protocols.exchange import is_disconnect
from tinyasgi.protocols.hooks import Hooks
from tinyasgi.testing import connect, serve

# Tasks and their contexts.

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
started: contextvars.ContextVar[str] = contextvars.ContextVar("started", default="unset")


def test_context_variables() -> None:
    """What lifespan sets is seen by all requests; what one of them sets, by no other."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            started.set("yes")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        more = True
        while more:
            more = (await receive())["more_body"]
        seen.append((started.get(), variable.get()))
        variable.set(scope["path"])
        started.set("spoilt")
        await reply(send)

    large = upload(200_000) + bytes(200_000)
    with serve(app) as server, Client(server) as client:
        client.send(GET + GET + large + GET)
        for _ in range(4):
            assert client.response().status == 200
        assert client.response(large).status == 200
    assert seen == [("yes", "unset")] * 5


def test_state_is_copied() -> None:
    states = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["number"] = 1
            scope["state"]["list"] = []
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scope["state"]["number"] += 1
        scope["state"]["list"].append(scope["path"])
        states.append(scope["state"])
        await reply(send)

    with serve(app) as server, Client(server) as client:
        client.response(GET)
        client.response(GET)
    assert states == [{"number": 2, "list": ["/", "/"]}] * 2
    assert states[0] is not states[1]


@in_loop
async def test_task_is_a_plain_one() -> None:
    async def app(scope, receive, send):
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
        inner = asyncio.create_task(receive())
        await asyncio.sleep(0)
        inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inner
        assert asyncio.current_task() is task
        await reply(send, b"plain")

    async with connect(app) as connection:
        await connection.feed(GET)
        await until(lambda: connection.sent)
        assert connection.sent.endswith(b"plain")


@in_loop
async def test_each_request_has_its_own_task() -> None:
    tasks = []

    async def app(scope, receive, send):
        tasks.append(asyncio.current_task())
        await reply(send)

    async with connect(app) as connection:
        await connection.feed(GET + GET, GET)
    assert len(set(tasks)) == 3


@pytest.mark.parametrize("leave", [Client.reset, Client.close, Client.half_close])
def test_cancel_on_disconnect(leave: Any, caplog: pytest.LogCaptureFixture) -> None:
    outcome = []

    async def app(scope, receive, send):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    caplog.set_level(logging.INFO, "tinyasgi.server")
    entered = threading.Event()
    with serve(app, lifespan="off", cancel_on_disconnect=True) as server:
        client = Client(server)
        client.send(GET)
        assert entered.wait(PATIENCE)
        leave(client)
        client.close()
    assert outcome == ["cancelled"]
    assert caplog.text == ""


BAD_CHUNK = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n", b"no size\r\n"


@pytest.mark.parametrize(
    ("fault", "started"),
    [
        ("body late", False),
        ("body late", True),
        ("body malformed", False),
        ("body malformed", True),
        ("response not read", True),
        ("broken", True),
    ],
)
@in_loop
async def test_cancel_on_disconnect_when_the_server_gives_up_on_the_client(
    fault: str, started: bool
) -> None:
    outcome = []
    hold = asyncio.Event()

    async def app(scope, receive, send):
        try:
            if started:
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            if fault == "broken":
                await hold.wait()
                with suppress(ClientDisconnected):
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            else:
                await receive()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    options = {"timeout_body": 2, "timeout_write": 2, "cancel_on_disconnect": True}
    async with connect(app, **options) as connection:
        if fault == "body malformed":
            await connection.feed(*BAD_CHUNK)
        elif fault == "body late":
            await connection.feed(upload(10))
            await elapse(connection, 5)
        elif fault == "response not read":
            connection.get_write_buffer_size = lambda: 100
            await connection.feed(GET)
            await elapse(connection, 5)
        else:
            await connection.feed(GET)
            connection._lost = True  # the loop has noticed, and the protocol not yet
            hold.set()
            await connection.settle()
            connection._lost = False
        assert outcome == ["cancelled"]


@in_loop
async def test_no_cancel_on_disconnect_by_default() -> None:
    outcome = []
    release = asyncio.Event()

    async def app(scope, receive, send):
        await release.wait()
        outcome.append("ran to its end")

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.reset()
        release.set()
        await connection.settle()
    assert outcome == ["ran to its end"]


@in_loop
async def test_cancel_on_disconnect_spares_background_work() -> None:
    """The response is complete: the client had every right to leave."""
    outcome = []
    release = asyncio.Event()

    async def app(scope, receive, send):
        await reply(send)
        await release.wait()
        outcome.append("done")

    async with connect(app, cancel_on_disconnect=True) as connection:
        await connection.feed(GET)
        await connection.reset()
        release.set()
        await connection.settle()
    assert outcome == ["done"]


def test_background_work_does_not_block_the_connection() -> None:
    working, done = [], []

    async def app(scope, receive, send):
        if scope["path"] == "/finish":
            for event in working:
                event.set()
            await reply(send)
            return
        working.append(asyncio.Event())
        await reply(send)
        await working[-1].wait()
        done.append(scope["path"])

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.response(GET)
        client.response(GET)
        assert (len(working), done) == (2, [])
        client.response(GET.replace(b"/ ", b"/finish "))
    assert done == ["/", "/"]


# The clock.


@pytest.mark.parametrize("base", LOOPS)
def test_idle_server_has_no_timer(base: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Server(hello, port=0) as server:
            assert loop.timers == 0
            client = await asyncio.to_thread(Client, server)
            await asyncio.to_thread(client.response, GET)
            assert loop.timers > 0
            client.close()
            await until(lambda: loop.timers == 0)
            # and it starts again with the next one
            client = await asyncio.to_thread(Client, server)
            await asyncio.to_thread(client.response, GET)
            assert loop.timers > 0
            client.close()

    with asyncio.Runner(loop_factory=quick_loop(base, 10)) as runner:
        runner.run(main())


@pytest.mark.parametrize("base", LOOPS)
def test_clock_is_wired_up(base: Any) -> None:
    """The same over sockets, in a loop where seconds fly."""

    def talk(port: int) -> tuple[bytes, bytes]:
        with Client(port) as silent, Client(port) as slow:
            slow.send(GET[:-5])
            return silent.rest(), slow.rest()

    async def main() -> tuple[bytes, bytes]:
        async with Server(hello, port=0) as server:
            return await asyncio.to_thread(talk, server.port)

    with asyncio.Runner(loop_factory=quick_loop(base)) as runner:
        silent, slow = runner.run(main())
    assert silent == b""
    assert slow.startswith(b"HTTP/1.1 408 ")


# Limits.


class Gate:
    """An app whose requests below /hold wait until they are let go."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.arrival = threading.Semaphore(0)
        self.waiting: dict[str, asyncio.Future[None]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        path = scope["path"]
        self.entered.append(path)
        if path.startswith("/hold"):
            self.waiting[path] = asyncio.get_running_loop().create_future()
            self.arrival.release()
            await self.waiting[path]
        await reply(send, path.encode())

    def wait(self) -> None:
        assert self.arrival.acquire(timeout=PATIENCE)

    def release(self, path: str) -> None:
        future = self.waiting.pop(path)
        future.get_loop().call_soon_threadsafe(future.set_result, None)


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode()


@in_loop
async def test_many_connections_are_judged_a_few_in_a_turn() -> None:
    turn, judged = 0, []

    class Idle:
        def check_timeouts(self, ticks: int) -> None:
            judged.append((turn, self))

    async with connect(hello) as connection:
        context = connection.context
        assert context._timer is not None
        context._timer.cancel()  # no tick of its own
        many = {Idle() for _ in range(1000)}
        context.connections = many.copy()  # type: ignore[assignment]
        context._check_timeouts(list(context.connections))
        gone = set(list(many.difference(one for _, one in judged))[:100])
        context.connections.difference_update(gone)
        while len(judged) < 900:
            turn += 1
            await asyncio.sleep(0)
        turns = [number for number, _ in judged]
        assert max(map(turns.count, turns)) <= SLICE
        assert {one for _, one in judged} == many - gone
        context.connections = {connection.protocol}


def test_limit_connections() -> None:
    app = Gate()
    with serve(app, limit_connections=2) as server, ExitStack() as stack:
        first, second, third, fourth = (stack.enter_context(Client(server)) for _ in range(4))
        first.response(get("/1"))
        second.response(get("/2"))
        third.send(get("/3"))
        fourth.send(get("/4"))
        for number in range(20):  # two are served, idle or not
            first.response(get(f"/1/{number}"))
            second.response(get(f"/2/{number}"))
        assert not {"/3", "/4"} & set(app.entered)
        first.close()
        assert third.response().body == b"/3"
        second.response(get("/2"))
        assert "/4" not in app.entered
        second.reset()
        assert fourth.response().body == b"/4"


def test_stop_with_a_connection_that_waits() -> None:
    app = Gate()
    with ExitStack() as stack:
        with serve(app, limit_connections=1) as server:
            first, second = (stack.enter_context(Client(server)) for _ in range(2))
            second.send(get("/2"))
            for _ in range(20):
                first.response(get("/1"))
        first.close()
        with suppress(ConnectionError):
            assert second.rest() == b""
    assert "/2" not in app.entered


def test_limit_concurrency(caplog: pytest.LogCaptureFixture) -> None:
    app = Gate()
    with serve(app, limit_concurrency=2) as server, ExitStack() as stack:
        idle = [stack.enter_context(Client(server)) for _ in range(5)]
        for client in idle:
            assert client.response(get("/")).status == 200
        first, second, third = (stack.enter_context(Client(server)) for _ in range(3))
        first.send(get("/hold/1"))
        app.wait()
        second.send(get("/hold/2"))
        app.wait()
        refused = third.response(get("/"))
        assert refused.status == 503
        assert int(refused.fields["retry-after"]) > 0
        app.release("/hold/1")
        assert first.response().body == b"/hold/1"
        # A connection that was not refused goes on.
        assert idle[0].response(get("/again")).body == b"/again"
        app.release("/hold/2")
        assert second.response().status == 200
    assert "503" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_work_after_the_response_is_no_concurrency(loop: Any) -> None:
    release = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/unread":
            await receive()
            await receive()  # the client leaves
        else:
            await reply(send, b"hello")
        await release.wait()

    async with Server(app, port=0, lifespan="off", limit_concurrency=1) as server:
        context = server._context

        def ask() -> None:
            with Client(server) as client:
                for _ in range(3):
                    assert client.response(GET).status == 200

        def leave() -> None:
            with Client(server) as client:
                client.send(GET.replace(b"/ ", b"/unread "))
                client.half_close()
                client.rest()

        await asyncio.to_thread(ask)
        assert len(context.running) == 3
        leaving = asyncio.create_task(asyncio.to_thread(leave))
        await until(lambda: len(context.running) == 4)
        assert context.unanswered == 1
        release.set()
        await leaving
        await until(lambda: not context.running)
        assert context.unanswered == 0


@in_loop
async def test_request_counts_until_its_app_has_ended_when_its_client_leaves() -> None:
    """Else a client could start any number of them."""
    release = asyncio.Event()

    async def app(scope, receive, send):
        await release.wait()

    async with connect(app, limit_concurrency=1) as connection:
        context = connection.context
        await connection.feed(GET)
        await connection.reset()
        assert context.unanswered == 1
        release.set()
        await until(lambda: not context.running)
        assert context.unanswered == 0


@pytest.mark.parametrize("jitter", [0, 3])
def test_limit_max_requests(jitter: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "randint", lambda low, high: high)
    bounds = {"limit_max_requests": 3, "limit_max_requests_jitter": jitter}
    with serve(hello, **bounds) as server, Client(server) as client:
        for _ in range(3 + jitter - 1):
            assert "connection" not in client.response(GET).fields
        client.response(GET)
        assert client.rest() == b""
        with pytest.raises(OSError):
            Client(server.port).response(GET)


def test_limit_max_requests_finishes_what_is_running() -> None:
    app = Gate()
    with (
        serve(app, limit_max_requests=2) as server,
        Client(server) as slow,
        Client(server) as client,
    ):
        slow.send(get("/hold"))
        app.wait()
        assert client.response(get("/")).status == 200
        assert client.rest() == b""
        app.release("/hold")
        response = slow.response()
        assert response.body == b"/hold"
        assert response.fields["connection"] == "close"


@pytest.mark.parametrize("kind", ["malformed body", "stop"])
@in_loop
async def test_request_is_cancelled_before_its_task_begins(kind: str) -> None:
    """Its app runs up to its first wait, as with Python 3.12, where a task begins at once."""
    ended = []

    async def app(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(kind)

    async with connect(app, cancel_on_disconnect=True) as connection:
        context = connection.context
        head = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.protocol.data_received(head)
        if kind == "stop":
            for exchange in list(context.running):
                exchange.cancel()
        else:
            connection.protocol.data_received(b"nonsense\r\n")
        await until(lambda: not context.running)
        assert context.unanswered == 0
    assert ended == [kind]


def test_disconnect_that_is_in_a_group_twice() -> None:
    error = ClientDisconnected()
    later = ValueError()
    later.__cause__ = error
    assert is_disconnect(ExceptionGroup("", [error, error, later, later]), set())
    assert not is_disconnect(ExceptionGroup("", [error, later, ValueError()]), set())


@in_loop
async def test_exception_of_an_app_with_a_property_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failure(Exception):
        @property
        def code(self) -> int:
            raise SystemExit(3)

    async def app(scope, receive, send):
        raise Failure

    async with connect(app) as connection:
        assert (await connection.feed(GET)).startswith(b"HTTP/1.1 500 ")
    assert "Failure" in caplog.text


# Observers.


def raising(*_: object) -> None:
    raise ZeroDivisionError("an observer")


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_observers_that_raise_affect_nothing(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The access hook and `on_error`, for responses that are complete and some that are not."""

    def fail(what: str, error: BaseException) -> None:
        raise OverflowError("on_error")

    async def app(scope, receive, send):
        if scope["path"] == "/":
            await reply(send, b"hello")
        elif scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await receive()
            await receive()
        else:
            raise LookupError

    async with Server(
        app, port=0, lifespan="off", access=raising, on_error=fail, limit_concurrency=1
    ) as server:
        context = server._context

        def talk() -> None:
            with Client(server) as client:
                for _ in range(3):
                    assert client.response(GET).body == b"hello"
                assert client.response(GET.replace(b"/ ", b"/fail ")).status == 500
                client.send(GET.replace(b"/ ", b"/stream "))
                assert client.head()[0] == 200
                client.reset()

        for _ in range(2):
            await asyncio.to_thread(talk)
            await until(lambda: not context.running)
    assert not context.connections
    assert caplog.text.count("raised an exception, further ones are not logged") == 2
    assert caplog.text.count("ZeroDivisionError: an observer") == 1
    assert caplog.text.count("OverflowError: on_error") == 1


@in_loop
async def test_access_hook_that_raises_after_a_websocket() -> None:
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with connect(app, Hooks(access=raising)) as connection:
        await connection.feed(HANDSHAKE)
        await connection.feed(b"\x88\x80\0\0\0\0")
        await connection.reset()
        await until(lambda: not connection.context.running)
        assert not connection.context.connections


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, asyncio.CancelledError])
@in_loop
async def test_filter_of_the_server_log_that_raises(
    kind: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    """Faults of peers and of the app are logged where a connection is read or an app ends."""

    def fail(record: logging.LogRecord) -> bool:
        raise kind("a filter")

    async def app(scope, receive, send):
        raise LookupError("the app")

    logger = logging.getLogger("tinyasgi.server")
    logger.addFilter(fail)
    try:
        async with connect(app) as connection:
            assert (await connection.feed(GET)).startswith(b"HTTP/1.1 500 ")
            assert not connection.context.running
            sent = await connection.feed(b"nonsense\r\n\r\n")
            assert b"HTTP/1.1 400 " in sent
    finally:
        logger.removeFilter(fail)
    errors = capfd.readouterr().err
    assert "logging failed: GET / HTTP/1.1: exception in the app" in errors
    assert errors.count(f"{kind.__name__}: a filter") == 2


@in_loop
async def test_clock_goes_on_when_it_is_observed_badly() -> None:
    async with connect(hello, Hooks(on_tick=raising)) as connection:
        context = connection.context
        context._tick()
        assert context.ticks == 1
        assert context._timer is not None


# Context variables.


class Value:
    """Something that an app sets a context variable to."""


VALUE: contextvars.ContextVar[Value | None] = contextvars.ContextVar("VALUE", default=None)


@pytest.mark.parametrize(
    "requests",
    [[GET, GET], [GET * 3], [upload(300_000) + bytes(100_000), bytes(200_000)]],
    ids=["one after the other", "pipelined", "a body in parts"],
)
@pytest.mark.parametrize("options", [{}, {"limit_connections": 1}], ids=["plain", "limited"])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_variables_of_a_request_are_gone_with_it(
    loop: Any, options: Any, requests: list[bytes]
) -> None:
    """Neither this connection keeps them, nor the next one: no memory, no ids in other lines."""
    values: list[weakref.ref[Value]] = []
    parts: queue.SimpleQueue[None] = queue.SimpleQueue()
    found: list[Value | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        value = Value()
        values.append(weakref.ref(value))
        VALUE.set(value)
        del value
        parts.put(None)
        while (await receive())["more_body"]:
            parts.put(None)
        await reply(send, b"hello")

    def record(record: logging.LogRecord) -> bool:
        found.append(VALUE.get())
        return True

    def talk(port: int) -> None:
        with Client(port) as client:
            for request in requests:
                client.send(request)
                parts.get(timeout=PATIENCE)
            for _ in range(max(1, b"".join(requests).count(b"GET"))):
                assert client.response().body == b"hello"
            answered.set()
            assert gone.wait(PATIENCE)
            client.send(b"rubbish\r\n\r\n")
            assert client.response().status == 400
        with Client(port) as client:
            assert client.response(b"rubbish\r\n\r\n").status == 400

    answered, gone = threading.Event(), threading.Event()
    logger = logging.getLogger("tinyasgi.server")
    logger.addFilter(record)
    try:
        async with Server(app, port=0, lifespan="off", **options) as server:
            talking = asyncio.create_task(asyncio.to_thread(talk, server.port))
            await until(answered.is_set)
            await until(lambda: gc.collect() >= 0 and not any(ref() for ref in values))
            gone.set()
            await talking
    finally:
        logger.removeFilter(record)
    assert len(found) >= 2
    assert {*found} == {None}
