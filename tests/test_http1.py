"""A connection through its life: losses, flow control, deadlines and limits.

What it reads and writes is the matter of `tests/conformance`.
"""

import asyncio
import gc
import hashlib
import logging
import random
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from helpers import (
    GET,
    LOOPS,
    PATIENCE,
    Certificates,
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
from tinyasgi.exchange import Exchange
from tinyasgi.http1 import HTTP1Connection
from tinyasgi.testing import MemoryConnection, connect, serve

START = {"type": "http.response.start", "status": 200}


# Losses (DEMAND 10).


async def everything(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body, waits for the end of the client, or streams for ever."""
    if scope["path"] == "/wait":
        await receive()
        assert (await receive())["type"] == "http.disconnect"
    elif scope["path"] == "/stream":
        await send(START)
        while True:
            await send({"type": "http.response.body", "body": bytes(20_000), "more_body": True})
            await asyncio.sleep(0)
    else:
        while (await receive()).get("more_body"):
            pass
        await reply(send, b"hello")


def finish(client: Client) -> None:
    assert client.response(GET).status == 200
    client.close()


def reset(client: Client) -> None:
    assert client.response(GET).status == 200
    client.reset()


def half_a_head(client: Client) -> None:
    client.send(GET[:-5])
    client.reset()


def half_a_body(client: Client) -> None:
    client.send(upload(10) + b"begin")
    client.close()


def nothing_at_all(client: Client) -> None:
    client.close()


def finish_while_the_app_waits(client: Client) -> None:
    client.send(GET.replace(b"/ ", b"/wait "))
    client.close()


def reset_while_the_app_waits(client: Client) -> None:
    client.send(GET.replace(b"/ ", b"/wait "))
    client.reset()


def reset_within_the_response(client: Client) -> None:
    client.send(GET.replace(b"/ ", b"/stream "))
    client.head()
    client.reset()


def finish_within_the_response(client: Client) -> None:
    client.send(GET.replace(b"/ ", b"/stream "))
    client.head()
    client.close()


def pipeline_and_reset(client: Client) -> None:
    client.send(GET * 3)
    client.head()
    client.reset()


LEAVE = [finish, reset, half_a_head, half_a_body, nothing_at_all, finish_while_the_app_waits]
LEAVE += [reset_while_the_app_waits, reset_within_the_response, finish_within_the_response]
LEAVE += [pipeline_and_reset]


def leave_in_rounds(port: int) -> None:
    for _ in range(10):
        for leave in LEAVE:
            clients = [Client(port) for _ in range(20)]
            for client in clients:
                leave(client)


def alive() -> Counter[str]:
    return Counter(
        type(thing).__name__
        for thing in gc.get_objects()
        if isinstance(thing, HTTP1Connection | Exchange)
    )


@pytest.mark.parametrize("base", LOOPS)
def test_lost_connections_leave_nothing_behind(base: Any, caplog: pytest.LogCaptureFixture) -> None:
    """2,000 of them, ended in every way: all gone without a collection, no timer left."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Server(everything, port=0, access=lambda *_: None) as server:
            await asyncio.to_thread(leave_in_rounds, server.port)
            await until(lambda: alive() <= before)
            await until(lambda: not loop.timers)

    gc.collect()
    gc.disable()
    try:
        before = alive()
        with asyncio.Runner(loop_factory=quick_loop(base, 10)) as runner:
            runner.run(main())
    finally:
        gc.enable()
    assert "Traceback" not in caplog.text


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


# Flow control.


@in_loop
async def test_reading_pauses_while_the_app_does_not_read() -> None:
    sizes = []
    ready = asyncio.Event()

    async def app(scope, receive, send):
        await ready.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await reply(send)

    piece = bytes(50_000)
    async with connect(app) as connection:
        await connection.feed(upload(5_000_000), *[piece] * 100)
        assert sizes == []
        ready.set()
        while not connection.sent:
            await connection.settle()
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= 64 * 1024 + len(piece)


def test_large_upload_arrives_whole() -> None:
    async def app(scope, receive, send):
        digest = hashlib.sha256()
        more = True
        while more:
            message = await receive()
            digest.update(message["body"])
            more = message["more_body"]
            await asyncio.sleep(0)
        await reply(send, digest.hexdigest().encode())

    body = random.Random(1).randbytes(8_000_000)
    with serve(app, lifespan="off") as server, Client(server) as client:
        sender = threading.Thread(target=client.send, args=[upload(len(body)), body])
        sender.start()
        assert client.response().body == hashlib.sha256(body).hexdigest().encode()
        sender.join()


@pytest.mark.parametrize("base", LOOPS)
def test_send_waits_while_the_client_does_not_read(base: Any) -> None:
    """The app is held up by a full connection, not earlier, and goes on once it drains."""
    piece = bytes(100_000)
    sent = 0
    blocked = threading.Event()

    async def app(scope, receive, send):
        nonlocal sent
        await send(START)
        while not blocked.is_set():
            sending = asyncio.create_task(
                send({"type": "http.response.body", "body": piece, "more_body": True})
            )
            sent += len(piece)
            for _ in range(3):  # a send that need not wait is over by now
                await asyncio.sleep(0)
            if not sending.done():
                blocked.set()
            await sending
        await send({"type": "http.response.body", "body": b"end"})

    def talk(port: int) -> int:
        with Client(port) as client:
            client.send(GET)
            assert blocked.wait(PATIENCE)
            return len(client.response().body)

    async def main() -> int:
        async with Server(app, port=0, lifespan="off") as server:
            return await asyncio.to_thread(talk, server.port)

    with asyncio.Runner(loop_factory=base) as runner:
        received = runner.run(main())
    assert received == sent + 3
    assert sent < 50_000_000  # what the kernel's buffers take, and little more


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_endless_stream_ends_with_its_client(
    loop: Any, secure: bool, tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing but `send` tells an app that never pauses; it must not hold the loop up for ever."""
    streaming, gone = threading.Event(), threading.Event()
    outcome = []

    async def app(scope, receive, send):
        await send(START)
        piece = {"type": "http.response.body", "body": bytes(1000), "more_body": True}
        await send(piece)
        streaming.set()
        gone.wait(PATIENCE)  # the loop stands still and has not seen the client leave
        try:
            for _ in range(10_000):
                await send(piece)
            outcome.append("goes on and on")
        except OSError:
            outcome.append("ends")
            raise

    def talk(port: int) -> None:
        client = Client(port, tls.context() if secure else None)
        client.send(GET)
        assert streaming.wait(PATIENCE)
        client.reset()
        gone.set()

    options = {"ssl_certfile": tls.certfile if secure else None, "lifespan": "off"}
    async with Server(app, port=0, **options) as server:
        await asyncio.to_thread(talk, server.port)
    assert outcome == ["ends"]
    assert secure or caplog.text == ""


@in_loop
async def test_pipelined_requests_wait_unread() -> None:
    """While the first is unanswered no more than one further read is taken."""
    release = asyncio.Event()
    paths = []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await release.wait()
        await reply(send, scope["path"].encode())

    async with connect(app) as connection:
        requests = [GET.replace(b"/ ", b"/%d " % number) for number in range(200)]
        await connection.feed(*requests)
        assert paths == ["/0"]
        release.set()
        while len(paths) < 200:
            await connection.settle()
        assert paths == [f"/{number}" for number in range(200)]
        assert connection.sent.endswith(b"/199")


@in_loop
async def test_who_does_not_read_gets_no_further_response() -> None:
    count = 0

    async def app(scope, receive, send):
        nonlocal count
        count += 1
        connection.protocol.pause_writing()
        await reply(send)

    async with connect(app) as connection:
        await connection.feed(GET * 3)
        assert count == 1
        connection.protocol.resume_writing()
        await connection.settle()
        assert count == 2
        connection.protocol.resume_writing()
        await connection.settle()
        assert count == 3


# Bodies that the app does not read.


def test_small_unread_body_is_dropped() -> None:
    with serve(hello) as server, Client(server) as client:
        assert client.response(upload(100_000)).status == 200
        client.send(bytes(100_000))
        assert client.response(GET).status == 200


def test_after_a_large_unread_body_the_connection_closes() -> None:
    with serve(hello) as server, Client(server) as client:
        assert client.response(upload(100_000_000)).body == b"hello"
        client.send(bytes(1_000_000))
        assert client.rest() == b""


# Deadlines.


class Crowded(MemoryConnection):
    """Its client reads nothing unless the test says so."""

    unread = 0

    def get_write_buffer_size(self) -> int:
        return self.unread


def options(**given: float) -> dict[str, Any]:
    times = dict.fromkeys(("head", "keep_alive", "body", "write"), 1000.0)
    return {f"timeout_{name}": value for name, value in {**times, **given}.items()}


@in_loop
async def test_silent_client_is_closed_silently() -> None:
    async with connect(hello, **options(head=10)) as connection:
        await elapse(connection, 5)
        assert not connection.closed
        assert await elapse(connection, 10) == b""
        assert connection.closed


@in_loop
async def test_head_must_arrive_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async with connect(hello, **options(head=10)) as connection:
        for byte in GET[:6]:  # trickled bytes gain no time
            await connection.feed(bytes([byte]))
            await elapse(connection, 1)
        assert not connection.closed
        sent = await elapse(connection, 10)
        assert sent.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in sent
        assert connection.closed
    assert caplog.text.count("127.0.0.1:50000: 408") == 1


@in_loop
async def test_head_of_a_further_request_must_arrive_in_time() -> None:
    async with connect(hello, **options(head=10, keep_alive=100)) as connection:
        await connection.feed(GET)
        await elapse(connection, 80)
        await connection.feed(GET[:6])
        await elapse(connection, 5)
        assert not connection.closed
        sent = await elapse(connection, 10)
        assert sent.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 408 " in sent


@in_loop
async def test_idle_connection_is_closed() -> None:
    async with connect(hello, **options(keep_alive=75)) as connection:
        await connection.feed(GET)
        await elapse(connection, 61)
        assert not connection.closed
        await connection.feed(GET)
        await elapse(connection, 61)
        assert not connection.closed
        sent = await elapse(connection, 20)
        assert connection.closed
        assert sent.count(b"HTTP/1.1 ") == sent.count(b"HTTP/1.1 200 ") == 2


@in_loop
async def test_request_that_has_begun_is_not_taken_for_idle() -> None:
    async with connect(hello, **options(keep_alive=10)) as connection:
        await connection.feed(GET)
        await elapse(connection, 5)
        await connection.feed(GET[:6])
        await elapse(connection, 20)
        assert not connection.closed
        assert (await connection.feed(GET[6:])).count(b"HTTP/1.1 200 ") == 2


async def read_it_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await reply(send)


@in_loop
async def test_awaited_body_must_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with connect(read_it_all, **options(body=10)) as connection:
        await connection.feed(upload(100))
        for _ in range(5):
            await elapse(connection, 6)
            await connection.feed(b"x")
        assert not connection.closed
        sent = await elapse(connection, 15)
        assert sent.startswith(b"HTTP/1.1 408 ")
        assert connection.closed
        await connection.settle()
        assert not connection.context.running or connection.closed
    assert "408" in caplog.text


@in_loop
async def test_stuck_body_after_the_response_has_begun() -> None:
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        await receive()

    async with connect(app, **options(body=10)) as connection:
        before = await connection.feed(upload(100) + b"x")
        assert before.endswith(b"1\r\nx\r\n")
        assert await elapse(connection, 20) == before
        assert connection.aborted


@in_loop
async def test_body_that_nobody_awaits_has_time() -> None:
    release = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await release.wait()
        await read_it_all(scope, receive, send)

    async with connect(app, **options(body=10)) as connection:
        await connection.feed(upload(2) + b"x")
        await elapse(connection, 100)
        assert not connection.closed
        release.set()
        sent = await connection.feed(b"y")
        assert sent.startswith(b"HTTP/1.1 200 ")


@in_loop
async def test_dropped_body_must_go_on() -> None:
    async with connect(hello, **options(body=10)) as connection:
        await connection.feed(upload(100))
        await elapse(connection, 20)
        assert connection.closed


@in_loop
async def test_slow_app_has_time() -> None:
    release = asyncio.Event()

    async def app(scope, receive, send):
        await release.wait()
        await reply(send)

    async with connect(app) as connection:
        await connection.feed(GET)
        await elapse(connection, 1000)
        release.set()
        await connection.settle()
        assert connection.sent.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("streaming", [True, False])
@in_loop
async def test_client_that_does_not_read_is_given_up(
    streaming: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": streaming})
        await receive()
        await receive()

    monkeypatch.setattr("tinyasgi.testing.MemoryConnection", Crowded)
    async with connect(app, **options(write=10)) as connection:
        assert isinstance(connection, Crowded)
        await connection.feed(GET)
        for connection.unread in range(1000, 990, -1):  # it does read, if slowly
            await elapse(connection, 5)
        assert not connection.closed
        await elapse(connection, 15)
        assert connection.aborted
        assert not connection.context.running
    assert "does not read" in caplog.text
    assert "Traceback" not in caplog.text


@in_loop
async def test_who_does_not_see_the_end_is_given_up() -> None:
    """The peer may still be sending when the last response leaves: the close waits, not long."""
    async with connect(hello) as connection:
        await connection.feed(b"NONSENSE\r\n\r\n")
        assert connection.closed
        assert not connection.is_closing()
        await connection.feed(bytes(1000))
        assert connection.sent.count(b"HTTP/1.1 ") == 1
        await elapse(connection, 20)
        assert connection.is_closing()


@in_loop
async def test_zero_switches_deadlines_off() -> None:
    async with connect(read_it_all, **options(head=0, keep_alive=0, body=0)) as connection:
        await elapse(connection, 5000)
        await connection.feed(GET[:5])
        await elapse(connection, 5000)
        await connection.feed(GET[5:])
        await elapse(connection, 5000)
        await connection.feed(upload(1))
        await elapse(connection, 5000)
        assert (await connection.feed(b"x")).count(b"HTTP/1.1 200 ") == 2


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


# Half-closed clients are answered (DEMAND 23).


@pytest.mark.parametrize("base", LOOPS)
def test_half_closed_client_is_answered(base: Any) -> None:
    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(0.01)
        await send(START)
        for _ in range(10):
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    def talk(port: int) -> None:
        for request in (GET, GET + GET, upload(5) + b"whole"):
            with Client(port) as client:
                client.send(request)
                client.half_close()
                for _ in range(request.count(b"HTTP/1.1")):
                    assert client.response().body == bytes(500_000) + b"end"
                assert client.rest() == b""

    async def main() -> None:
        async with Server(app, port=0, lifespan="off") as server:
            await asyncio.to_thread(talk, server.port)

    with asyncio.Runner(loop_factory=base) as runner:
        runner.run(main())


def test_requests_on_many_connections(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyasgi.server")
    with serve(hello, lifespan="off") as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(100)]
        for client in clients:
            client.send(GET * 3)
        for client in clients:
            assert [client.response().body for _ in range(3)] == [b"hello"] * 3
    assert caplog.text == ""
