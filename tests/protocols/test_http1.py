"""HTTP/1.1 on a connection through its life: losses, pipelining, bodies left unread, half-closes.

What it reads and writes is the matter of `tests/conformance`.
"""

import asyncio
import gc
import logging
import threading
from collections import Counter
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

import pytest

from tests.support.helpers import (
    GET,
    LOOPS,
    PATIENCE,
    START,
    Client,
    elapse,
    hello,
    in_loop,
    quick_loop,
    reply,
    until,
    upload,
)
from tests.support.simulation import simulated
from tinyasgi import Server
from tinyasgi.errors import ClientDisconnected
from tinyasgi.protocols.exchange import Exchange
from tinyasgi.protocols.http1 import HTTP1Connection
from tinyasgi.testing import MemoryConnection, connect, serve

# Losses.


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
        if issubclass(type(thing), HTTP1Connection | Exchange)  # isinstance would wake some
    )


@pytest.mark.slow
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


# Pipelining.


def watch(connection: MemoryConnection) -> list[bytes]:
    """What is written to a connection from here on, write by write."""
    writes: list[bytes] = []
    write = connection.write

    def watched(data: bytes) -> None:
        writes.append(bytes(data))
        write(data)

    connection.write = watched  # type: ignore[method-assign]
    return writes


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


@in_loop
async def test_answers_to_one_read_leave_together() -> None:
    async with connect(hello) as connection:
        writes = watch(connection)
        await connection.feed(GET * 20)
        assert [write.count(b"hello") for write in writes] == [20]
        await connection.feed(GET * 2 + GET[:10])
        assert [write.count(b"hello") for write in writes] == [20, 2]
        await connection.feed(GET[10:])
        assert [write.count(b"hello") for write in writes] == [20, 2, 1]


@pytest.mark.parametrize(
    ("status", "headers", "pieces"),
    [
        (200, [(b"content-length", b"5")], [b"hello", b""]),
        (200, [], [b"hello", b""]),
        (204, [], [b"", b""]),
        (304, [], [b"hello", b"hello"]),
    ],
)
@in_loop
async def test_answer_whose_last_message_writes_nothing(
    status: int, headers: Any, pieces: list[bytes]
) -> None:
    """It is written at once, with the answer before it."""
    release = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/first":
            await release.wait()
            return await reply(send, b"first")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for more_body, piece in zip((True, False), pieces, strict=True):
            await send({"type": "http.response.body", "body": piece, "more_body": more_body})

    async with connect(app) as connection:
        await connection.feed(GET.replace(b"/", b"/first", 1) + GET)
        release.set()
        await connection.settle()
        assert connection.sent.count(b"HTTP/1.1 ") == 2


@in_loop
async def test_answers_do_not_wait_for_a_slow_one() -> None:
    release = asyncio.Event()

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            await release.wait()
        await reply(send, scope["path"].encode())

    async with connect(app) as connection:
        writes = watch(connection)
        await connection.feed(GET * 3 + GET.replace(b"/ ", b"/slow ") + GET * 2)
        assert [write.count(b"200 OK") for write in writes] == [3]
        release.set()
        await connection.settle()
        assert [write.count(b"200 OK") for write in writes] == [3, 3]


@in_loop
async def test_answers_before_a_bad_request_leave_with_the_refusal() -> None:
    async with connect(hello) as connection:
        writes = watch(connection)
        await connection.feed(GET * 2 + b"bad\r\n\r\n")
        assert [write.count(b"hello") for write in writes] == [2]
        assert connection.sent.count(b"HTTP/1.1 400 ") == 1
        assert connection.closed


@in_loop
async def test_answers_before_a_switch_come_first() -> None:
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        else:
            await hello(scope, receive, send)

    fields = [b"Host: here", b"Connection: Upgrade", b"Upgrade: websocket"]
    fields += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    async with connect(app) as connection:
        writes = watch(connection)
        await connection.feed(GET * 2 + b"\r\n".join([b"GET / HTTP/1.1", *fields, b"", b""]))
        assert writes[0].count(b"hello") == 2
        assert b"HTTP/1.1 101 " in writes[0]


@in_loop
async def test_long_answers_do_not_pile_up() -> None:
    """What is collected goes to the transport soon enough for it to say that it is too much."""
    count = 0

    async def app(scope, receive, send):
        nonlocal count
        count += 1
        await reply(send, bytes(10_000))

    async with connect(app) as connection:
        connection.write = lambda data: connection.protocol.pause_writing()
        await connection.feed(GET * 100)
        assert count == 2
        connection.protocol.resume_writing()
        await connection.settle()
        assert count == 4


def test_requests_on_many_connections(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyasgi.server")
    with serve(hello, lifespan="off") as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server)) for _ in range(100)]
        for client in clients:
            client.send(GET * 3)
        for client in clients:
            assert [client.response().body for _ in range(3)] == [b"hello"] * 3
    assert caplog.text == ""


# Streaming.


@in_loop
async def test_pieces_of_one_turn_leave_together() -> None:
    turn = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await turn.wait()
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await send({"type": "http.response.body"})

    async with connect(app) as connection:
        writes = watch(connection)
        await connection.feed(GET)
        assert [write.count(b"piece") for write in writes] == [10]
        turn.set()
        await connection.settle()
        assert [write.count(b"piece") for write in writes] == [10, 10]


@in_loop
async def test_pieces_before_a_half_close_are_sent() -> None:
    async def app(scope, receive, send):
        await send(START | {"headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await asyncio.Event().wait()

    async with connect(app, cancel_on_disconnect=True) as connection:
        connection.protocol.data_received(GET)
        while not connection.protocol.write_buffer:
            await asyncio.sleep(0)
        assert (await connection.eof()).endswith(b"piece")


def test_stream_that_ends_after_a_stop_ends_its_connection() -> None:
    """At once, and not when the server notices that nothing is left to do."""
    told = []

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        told.append(await receive())
        await send({"type": "http.response.body", "body": b"end"})

    with simulated(app) as simulation:
        peer = simulation.connect()
        peer.send(GET)
        simulation.loop.settle()
        simulation.server.stop()
        simulation.loop.settle()
        assert told == [{"type": "http.disconnect"}]
        assert peer.received.endswith(b"3\r\nend\r\n0\r\n\r\n")
        assert peer.at_end


@in_loop
async def test_one_100_for_tasks_that_wait_together() -> None:
    async def app(scope, receive, send):
        first = asyncio.create_task(receive())
        second = asyncio.create_task(receive())
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        await reply(send, b"done")

    async with connect(app) as connection:
        head = upload(1)[:-2] + b"Expect: 100-continue\r\n\r\n"
        assert await connection.feed(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await connection.feed(b"x")).endswith(b"done")


@in_loop
async def test_empty_pieces_after_a_half_close() -> None:
    """The client gets the complete response, as from an app that compresses it."""
    turns = [asyncio.Event() for _ in range(3)]

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        for turn in turns:
            await turn.wait()
            if turn is turns[1]:
                await send({"type": "http.response.body", "body": b"z", "more_body": True})
            await send({"type": "http.response.body", "more_body": turn is not turns[-1]})

    async with connect(app) as connection:
        await connection.feed(GET)
        await connection.eof()
        for turn in turns:
            assert not connection.closed
            turn.set()
            await elapse(connection, 20)  # less than `timeout_write`, which each byte renews
        assert connection.closed
        assert connection.sent.endswith(b"\r\npiece\r\n1\r\nz\r\n0\r\n\r\n")


@in_loop
async def test_only_empty_pieces_after_a_half_close() -> None:
    """No write would ever show whether the client still reads."""
    lost: list[OSError] = []
    turn = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        try:
            while True:
                await send({"type": "http.response.body", "body": b"", "more_body": True})
                await turn.wait()
                turn.clear()
        except OSError as error:
            lost.append(error)

    async with connect(app, timeout_write=30) as connection:
        await connection.feed(GET)
        await connection.eof()
        for _ in range(31):
            assert not lost
            await elapse(connection, 1)
            turn.set()
            await connection.settle()
        assert [type(each) for each in lost] == [ClientDisconnected]
        assert connection.closed


@in_loop
async def test_pieces_before_a_failure_are_sent() -> None:
    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        raise ValueError

    async with connect(app) as connection:
        await connection.feed(GET)
        assert connection.sent.endswith(b"5\r\npiece\r\n")
        assert connection.aborted


@pytest.mark.parametrize("cut", [1, 10, len(GET) - 1])
@in_loop
async def test_head_that_ends_while_the_peer_does_not_read(cut: int) -> None:
    async with connect(hello, timeout_head=10) as connection:
        await connection.feed(GET, GET[:cut])
        connection.protocol.pause_writing()
        await connection.feed(GET[cut:] + GET)
        assert connection.sent.count(b" 200 OK") == 1
        connection.context.ticks += 20  # the time of a peer that reads slowly
        connection.protocol.resume_writing()
        connection.protocol.check_timeouts(connection.context.ticks)
        await connection.settle()
        assert connection.sent.count(b" 200 OK") == 3
        assert b" 408 " not in connection.sent


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


# Half-closed clients are answered.


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_half_closed_client_is_answered(loop: Any) -> None:
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

    async with Server(app, port=0, lifespan="off") as server:
        await asyncio.to_thread(talk, server.port)


NOTHING_TO_WRITE = [
    pytest.param(b"HEAD", 200, id="head"),
    pytest.param(b"GET", 304, id="304"),
]


@pytest.mark.parametrize("early", [False, True], ids=["within", "before"])
@pytest.mark.parametrize(("method", "status"), NOTHING_TO_WRITE)
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_response_with_nothing_to_write_ends_with_its_client(
    loop: Any, method: bytes, status: int, early: bool
) -> None:
    """No write fails, and the app does not listen. early: the client leaves before the head."""
    began, left = threading.Event(), asyncio.Event()
    outcome: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()

    async def app(scope, receive, send):
        if early:
            began.set()
            await left.wait()
        await send(START | {"status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            while True:
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError as error:
            outcome.set_result(error)
            raise

    def talk(port: int) -> None:
        with Client(port) as client:
            client.send(GET.replace(b"GET", method))
            assert began.wait(PATIENCE) if early else client.head()[0] == status

    async with Server(app, port=0, lifespan="off") as server:
        await asyncio.to_thread(talk, server.port)
        left.set()
        assert isinstance(await outcome, ClientDisconnected)


@pytest.mark.parametrize("early", [False, True], ids=["within", "before"])
@pytest.mark.parametrize(("method", "status"), NOTHING_TO_WRITE)
@in_loop
async def test_bodiless_response_is_lost_with_its_client(
    method: bytes, status: int, early: bool
) -> None:
    """Also if the app sends nothing more: the connection does not wait for it."""
    turn = asyncio.Event()

    async def app(scope, receive, send):
        if early:
            await turn.wait()
        await send(START | {"status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.Event().wait()

    async with connect(app) as connection:
        await connection.feed(GET.replace(b"GET", method))
        await connection.eof()
        assert connection.closed is not early
        turn.set()
        await connection.settle()
        assert connection.closed
        assert b"\r\n\r\n" in connection.sent
        assert not connection.context.connections


def test_answer_to_a_client_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    """Its FIN looks like a half-close, so the answer is written; then the reset is met."""
    with serve(hello) as server:
        for _ in range(20):
            with Client(server) as client:
                client.send(GET)
        with Client(server) as client:
            assert client.response(GET).body == b"hello"
    assert "Traceback" not in caplog.text


# A client that repeats itself is known by its last head.


@in_loop
async def test_repeated_fields_are_each_request_its_own() -> None:
    """What an app does to its fields is not seen by the next request."""
    seen = []

    async def app(scope, receive, send):
        seen.append(list(scope["headers"]))
        scope["headers"].append((b"added", b"by the app"))
        scope["headers"][0] = (b"host", b"elsewhere")
        await reply(send, b"")

    async with connect(app) as connection:
        for _ in range(3):
            await connection.feed(b"GET / HTTP/1.1\r\nHost: here\r\nA: b\r\n\r\n")
    assert seen == [[(b"host", b"here"), (b"a", b"b")]] * 3


@in_loop
async def test_heads_that_differ_are_told_apart() -> None:
    seen = []

    async def app(scope, receive, send):
        body = (await receive())["body"]
        seen.append((scope["method"], scope["http_version"], dict(scope["headers"]), body))
        await reply(send, b"")

    here, there = {b"host": b"here"}, {b"host": b"there"}
    length = {b"content-length": b"2", **here}
    long = {b"a": b"x" * 5000, **here}
    async with connect(app) as connection:
        for head, body in (
            ("GET / HTTP/1.1\r\nHost: here", b""),
            ("PUT / HTTP/1.1\r\nContent-Length: 2\r\nHost: here", b"ab"),
            ("PUT / HTTP/1.1\r\nContent-Length: 2\r\nHost: here", b"cd"),
            ("GET / HTTP/1.1\r\nHost: there", b""),
            ("GET / HTTP/1.1\r\nHost: here", b""),
            (f"GET / HTTP/1.1\r\nA: {'x' * 5000}\r\nHost: here", b""),
            (f"GET / HTTP/1.1\r\nA: {'x' * 5000}\r\nHost: here", b""),
            ("HEAD / HTTP/1.1\r\nHost: here", b""),
            ("GET / HTTP/1.0\r\nHost: here", b""),
        ):
            await connection.feed(head.encode() + b"\r\n\r\n" + body)
        assert connection.closed
    assert seen == [
        ("GET", "1.1", here, b""),
        ("PUT", "1.1", length, b"ab"),
        ("PUT", "1.1", length, b"cd"),
        ("GET", "1.1", there, b""),
        ("GET", "1.1", here, b""),
        ("GET", "1.1", long, b""),
        ("GET", "1.1", long, b""),
        ("HEAD", "1.1", here, b""),
        ("GET", "1.0", here, b""),
    ]


@pytest.mark.parametrize("last", [GET, upload(200_000) + bytes(200_000)])
def test_client_leaves_during_its_last_pipelined_request(last: bytes) -> None:
    """The server reads again then, so it notices at once, not when its clock looks."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive()).get("more_body"):
            pass
        if scope["query_string"] == b"last":
            message = await receive()
            received.append(message["type"])
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    with simulated(app) as server:
        peer = server.connect()
        peer.send(GET + last.replace(b"/ ", b"/?last ", 1))
        server.loop.settle()
        assert received == []
        peer.close()
        server.loop.settle()
        assert received == ["http.disconnect"]


def test_body_of_several_reads_is_bytes() -> None:
    """The ASGI specification allows no bytearray."""
    go = asyncio.Event()
    types: list[type] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        more = True
        while more:
            message = await receive()
            types.append(type(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    with simulated(app) as server:
        peer = server.connect()
        for data in (upload(9), b"abc", b"def", b"ghi"):
            peer.send(data)
            server.loop.settle()
        go.set()
        server.loop.settle()
        assert types == [bytes]
        assert peer.received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, 404.0])
def test_status_that_is_not_exactly_an_int(status: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b""})

    with simulated(app) as server:
        peer = server.connect()
        peer.send(GET)
        server.loop.settle()
        assert peer.received.startswith(b"HTTP/1.1 404 Not Found\r\n")
