"""Flow control and time limits. The clock is turned by hand; `test_context.py` lets it run."""

import asyncio
import hashlib
import random
import socket
import sys
import threading
from typing import Any

import pytest

from tests.support.helpers import (
    GET,
    LOOPS,
    PATIENCE,
    QUICK_LOOPS,
    START,
    Certificates,
    Client,
    elapse,
    hello,
    in_loop,
    reply,
    until,
    upload,
)
from tinyasgi import Server
from tinyasgi.testing import MemoryConnection, connect, serve

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


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_send_waits_while_the_client_does_not_read(loop: Any) -> None:
    """The app is held up by a full connection, not earlier, and goes on once it drains."""
    piece = bytes(100_000)
    sent = 0
    blocked = threading.Event()

    async def app(scope, receive, send):
        nonlocal sent
        await send(START)
        while not blocked.is_set() and sent < 200_000_000:
            sending = asyncio.create_task(
                send({"type": "http.response.body", "body": piece, "more_body": True})
            )
            sent += len(piece)
            for _ in range(3):  # a send that need not wait is over by now
                await asyncio.sleep(0)
            if not sending.done():
                blocked.set()
            await sending
        blocked.set()
        await send({"type": "http.response.body", "body": b"end"})

    def talk(port: int) -> int:
        with Client(port) as client:
            client.send(GET)
            assert blocked.wait(PATIENCE)
            return len(client.response().body)

    async with Server(app, port=0, lifespan="off") as server:
        received = await asyncio.to_thread(talk, server.port)
    assert received == sent + 3
    # What the kernel's buffers take, and little more; Linux is told to take little itself.
    assert sent < (2_000_000 if sys.platform == "linux" else 50_000_000)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_little_is_kept_for_a_client_that_does_not_read(
    loop: Any, secure: bool, tls: Certificates
) -> None:
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send(START)
        while True:
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            sent += 10_000

    options = {"ssl_certfile": tls.certfile} if secure else {}
    async with Server(app, port=0, lifespan="off", **options) as server:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            client: Any = sock
            if secure:
                client = await asyncio.to_thread(
                    tls.context().wrap_socket, sock, server_hostname="localhost"
                )
            client.sendall(GET)
            await until(lambda: server._context.connections)
            [connection] = server._context.connections
            await until(lambda: connection.paused)
            assert sent < 400_000
            client.close()


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


@pytest.mark.parametrize(
    ("method", "piece"), [(b"GET", bytes(1000)), (b"GET", b""), (b"HEAD", bytes(1000))]
)
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_endless_stream_lets_others_in(loop: Any, method: bytes, piece: bytes) -> None:
    """Also where nothing is written that could fill the connection."""
    entered, arrived = threading.Event(), threading.Event()
    served = []

    async def app(scope, receive, send):
        if scope["path"] == "/other":
            served.append("other")
            await reply(send)
            return
        entered.set()
        arrived.wait(PATIENCE)  # the loop stands still until there is another request
        await send(START)
        for _ in range(50_000):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if served:
                break
        served.append("stream")
        await send({"type": "http.response.body"})

    def talk(port: int) -> None:
        with Client(port) as other, Client(port) as client:
            other.response(GET.replace(b"/ ", b"/other "))
            served.clear()
            client.send(GET.replace(b"GET", method))
            assert entered.wait(PATIENCE)
            other.send(GET.replace(b"/ ", b"/other "))
            arrived.set()
            other.response()
            client.head() if method == b"HEAD" else client.response()

    async with Server(app, port=0, lifespan="off") as server:
        await asyncio.to_thread(talk, server.port)
    assert served == ["other", "stream"]


# Disconnects.


@pytest.mark.parametrize("cancel", [False, True], ids=["told", "cancelled"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["alone", "pipelined"])
@pytest.mark.parametrize("length", [0, 1, 65536, 65537, 300_000])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_disconnect_after_the_body(
    loop: Any, length: int, pipelined: bool, cancel: bool
) -> None:
    """The connection is read, even if the app takes a large body only once it is all there."""
    arrived, left = threading.Event(), asyncio.Event()

    async def app(scope, receive, send):
        if scope["method"] == "GET":
            await reply(send)
            return
        taken, more_body = 0, True
        while more_body:
            message = await receive()
            taken += len(message["body"])
            more_body = message["more_body"]
        assert taken == length
        arrived.set()
        try:
            if cancel:
                await asyncio.Event().wait()
            assert (await receive())["type"] == "http.disconnect"
        finally:
            left.set()

    def talk(port: int) -> None:
        with Client(port) as client:
            client.send((GET if pipelined else b"") + upload(length) + bytes(length))
            assert arrived.wait(PATIENCE)

    options = {"cancel_on_disconnect": cancel, "timeout_body": 0, "lifespan": "off"}
    async with Server(app, port=0, **options) as server:
        await asyncio.to_thread(talk, server.port)
        await left.wait()


@pytest.mark.parametrize("cancel", [False, True], ids=["told", "cancelled"])
@pytest.mark.parametrize("ahead", [b"\r\n", GET, GET * 1000], ids=["line", "request", "many"])
@pytest.mark.parametrize("loop", QUICK_LOOPS)
@in_loop
async def test_disconnect_after_more_than_is_read(loop: Any, ahead: bytes, cancel: bool) -> None:
    """A client that sends ahead is not read, which must not hide that it leaves."""
    began, left = threading.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        began.set()
        try:
            if cancel:
                await asyncio.Event().wait()
            assert (await receive())["type"] == "http.disconnect"
        finally:
            left.set()

    def talk(port: int) -> None:
        with Client(port) as client:
            client.send(GET)
            assert began.wait(PATIENCE)
            client.send(ahead)

    async with Server(app, port=0, lifespan="off", cancel_on_disconnect=cancel) as server:
        await asyncio.to_thread(talk, server.port)
        await left.wait()


@pytest.mark.parametrize("loop", QUICK_LOOPS)
@in_loop
async def test_half_close_after_more_than_is_read_is_answered(loop: Any) -> None:
    told = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        if not told.is_set():
            assert (await receive())["type"] == "http.disconnect"
            told.set()
        await reply(send, b"answer")

    def talk(port: int) -> None:
        with Client(port) as client:
            client.send(GET * 3)
            client.half_close()
            assert [client.response().body for _ in range(3)] == [b"answer"] * 3
            assert client.rest() == b""

    async with Server(app, port=0, lifespan="off") as server:
        await asyncio.to_thread(talk, server.port)


# Deadlines.


class Crowded(MemoryConnection):
    """Its client reads nothing unless the test says so."""

    unread = 0

    def get_write_buffer_size(self) -> int:
        return self.unread


def options(**given: float) -> dict[str, Any]:
    times = dict.fromkeys(("head", "keep_alive", "body", "write"), 1000.0)
    limits = {f"timeout_{name}": value for name, value in {**times, **given}.items()}
    return limits | {"min_rate_body": 0, "min_rate_write": 0}


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
async def test_a_client_that_still_reads_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyasgi.testing.memory.MemoryConnection", Crowded)
    async with connect(hello, **options(keep_alive=75)) as connection:
        assert isinstance(connection, Crowded)
        connection.unread = 50_000
        await connection.feed(GET)
        await elapse(connection, 50)
        connection.unread = 0
        await elapse(connection, 60)
        assert not connection.closed
        await elapse(connection, 20)
        assert connection.closed


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

    monkeypatch.setattr("tinyasgi.testing.memory.MemoryConnection", Crowded)
    async with connect(app, **options(write=10)) as connection:
        assert isinstance(connection, Crowded)
        await connection.feed(GET)
        for connection.unread in range(1000, 990, -1):  # it does read, if slowly
            await elapse(connection, 5)
        assert not connection.closed
        await elapse(connection, 15)
        assert connection.aborted
        assert not connection.context.running
    assert "the client read nothing for" in caplog.text
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
async def test_zero_switches_keep_alive_off() -> None:
    async with connect(hello, timeout_keep_alive=0) as connection:
        sent = await connection.feed(GET + GET)
        assert sent.count(b"HTTP/1.1 200 ") == 1
        assert b"\r\nconnection: close\r\n" in sent
        await elapse(connection, 10)
        assert connection.closed


@in_loop
async def test_zero_switches_deadlines_off() -> None:
    async with connect(read_it_all, **options(head=0, keep_alive=20000, body=0)) as connection:
        await elapse(connection, 5000)
        await connection.feed(GET[:5])
        await elapse(connection, 5000)
        await connection.feed(GET[5:])
        await elapse(connection, 5000)
        await connection.feed(upload(1))
        await elapse(connection, 5000)
        assert (await connection.feed(b"x")).count(b"HTTP/1.1 200 ") == 2


# Slow peers.


@pytest.mark.parametrize("app", [read_it_all, hello], ids=["awaited", "dropped"])
@in_loop
async def test_body_that_trickles_is_cut_off(app: Any) -> None:
    async with connect(app) as connection:
        await connection.feed(upload(1000))
        for _ in range(50):
            await elapse(connection, 1)
            await connection.feed(b"x")
        assert not connection.closed
        for _ in range(20):
            await elapse(connection, 1)
            await connection.feed(b"x")
        assert connection.closed
        assert connection.sent.startswith(
            b"HTTP/1.1 408 " if app is read_it_all else b"HTTP/1.1 200"
        )


@in_loop
async def test_an_upload_may_pause() -> None:
    """For most of `--timeout-body`, again and again, if it is not slow on the whole."""
    async with connect(read_it_all) as connection:
        await connection.feed(upload(100_000))
        for _ in range(5):
            await elapse(connection, 40)
            await connection.feed(bytes(20_000))
        assert connection.sent.startswith(b"HTTP/1.1 200 ")


@in_loop
async def test_many_small_bodies_are_not_one_slow_one() -> None:
    async with connect(read_it_all) as connection:
        for n in range(1, 20):
            await connection.feed(upload(2), b"x")
            await elapse(connection, 10)
            assert (await connection.feed(b"y")).count(b"HTTP/1.1 200 ") == n


@pytest.mark.parametrize("awaits", [False, True], ids=["other work", "gave up waiting"])
@in_loop
async def test_time_in_which_the_app_does_not_read_does_not_count(awaits: bool) -> None:
    release = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        if awaits:
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0)
            waiting.cancel()
        await release.wait()
        await read_it_all(scope, receive, send)

    async with connect(app, timeout_body=1000) as connection:
        await connection.feed(upload(100), b"x")
        for _ in range(90):
            await elapse(connection, 10)
            await connection.feed(b"x")
        release.set()
        await elapse(connection, 100)
        assert not connection.closed
        assert (await connection.feed(bytes(9))).startswith(b"HTTP/1.1 200 ")


@in_loop
async def test_rates_and_timeouts_of_zero() -> None:
    for options in {"min_rate_body": 0}, {"timeout_body": 0}:
        async with connect(read_it_all, **options) as connection:
            await connection.feed(upload(300))
            for _ in range(299):
                await elapse(connection, 2)
                await connection.feed(b"x")
            assert (await connection.feed(b"x")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("step", "seconds", "survives"),
    [(1, 1, False), (200, 1, False), (300, 1, True), (20_000, 40, True), (20_000, 55, True)],
)
@in_loop
async def test_reading_has_a_slowest_pace(
    step: int,
    seconds: int,
    survives: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tinyasgi.testing.memory.MemoryConnection", Crowded)
    async with connect(hello) as connection:
        assert isinstance(connection, Crowded)
        connection.unread = 500_000
        await connection.feed(GET)
        for _ in range(500 // seconds):
            await elapse(connection, seconds)
            connection.unread -= step
        assert connection.aborted != survives
    assert ("the client read too slowly" in caplog.text) != survives


@in_loop
async def test_slow_reading_is_no_slow_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await read_it_all(scope, receive, lambda message: asyncio.sleep(0))
        await send({"type": "http.response.body"})

    monkeypatch.setattr("tinyasgi.testing.memory.MemoryConnection", Crowded)
    async with connect(app) as connection:
        assert isinstance(connection, Crowded)
        connection.unread = 50_000
        await connection.feed(upload(2), b"x")
        connection.protocol.pause_writing()
        await elapse(connection, 50)
        connection.unread = 0
        connection.protocol.resume_writing()
        await elapse(connection, 50)
        assert (await connection.feed(b"y")).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_what_the_kernel_knows_counts(loop: Any) -> None:
    """A reader is not slow because the server's own buffer stays as full as it was."""
    app_done = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        for _ in range(200):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await send({"type": "http.response.body"})
        app_done.set()

    def read(client: Client) -> None:
        client.sock.recv(500_000)

    async with Server(app, port=0, lifespan="off") as server:
        with Client(server) as client:
            client.send(GET)
            context = server._context
            await until(lambda: context.connections)
            [connection] = context.connections
            while not app_done.is_set():
                for _ in range(10):
                    context.ticks += 1
                    if connection in context.connections:
                        connection.check_timeouts(context.ticks)
                await asyncio.to_thread(read, client)
                await asyncio.sleep(0.001)
            assert connection in context.connections
