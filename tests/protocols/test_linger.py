"""The end of a connection whose client may still be sending (RFC 9112 §9.6)."""

import asyncio
import socket
from typing import Any

import pytest

from tests.support.helpers import (
    GET,
    LOOPS,
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
from tests.support.network import RCVBUF
from tests.support.simulation import simulated
from tinyasgi import Server
from tinyasgi.protocols.states import ConnectionState
from tinyasgi.testing import connect
from tinyasgi.testing.memory import MemoryConnection

REFUSED = b"NONSENSE\r\n\r\n"


class Crowded(MemoryConnection):
    """Its client reads nothing unless the test says so."""

    unread = 0

    def get_write_buffer_size(self) -> int:
        return self.unread


@in_loop
async def test_it_counts_from_the_last_byte_received() -> None:
    async with connect(hello) as connection:
        await connection.feed(REFUSED)
        for _ in range(8):
            await elapse(connection, 2)
            await connection.feed(b"x")
        assert not connection.is_closing()
        await elapse(connection, 5)
        assert connection.is_closing()


@in_loop
async def test_it_counts_from_the_last_byte_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyasgi.testing.memory.MemoryConnection", Crowded)
    async with connect(hello) as connection:
        assert isinstance(connection, Crowded)
        await connection.feed(REFUSED)
        for connection.unread in range(500, -1, -100):
            await elapse(connection, 10)
            assert connection.is_closing() == (connection.unread == 0)


@in_loop
async def test_a_client_that_sends_on_and_on_is_closed() -> None:
    async with connect(hello) as connection:
        await connection.feed(REFUSED)
        for _ in range(40):
            await elapse(connection, 1)
            await connection.feed(b"x")
        assert connection.is_closing()


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_a_slow_reader_gets_all_of_an_early_response(loop: Any) -> None:
    """The kernel holds it; a close with unread data of the client would throw it away."""

    async def app(scope, receive, send):
        await reply(send, bytes(60_000), 413, (b"connection", b"close"))

    def read(sock: socket.socket) -> int:
        with sock, sock.makefile("rb") as file:
            return len(file.read().partition(b"\r\n\r\n")[2])

    async with Server(app, port=0, lifespan="off") as server:
        context = server._context
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(upload(1_000_000))
        await until(lambda: context.connections)
        [connection] = context.connections
        await until(lambda: connection._state is ConnectionState.CLOSING)
        assert connection._transport.get_write_buffer_size() == 0
        for _ in range(20):
            context.ticks += 1
            connection.check_timeouts(context.ticks)
            await asyncio.sleep(0)
        sock.sendall(bytes(1000))  # a closed connection would answer it with a reset
        assert await asyncio.to_thread(read, sock) == 60_000


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_tls_delivers_an_early_response_to_an_upload(
    loop: Any, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyasgi.protocols.timeouts.LINGER", 60)

    async def app(scope, receive, send):
        await reply(send, b"who are you?", 401)

    def talk(port: int) -> tuple[int, bytes]:
        with Client(port, tls.context()) as client:
            client.send(upload(5_000_000), bytes(5_000_000))
            answer = client.response()
            return answer.status, answer.body

    async with Server(app, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        assert await asyncio.to_thread(talk, server.port) == (401, b"who are you?")


@pytest.mark.parametrize("loop", [quick_loop(asyncio.SelectorEventLoop, speed=10)])
@in_loop
async def test_tls_delivers_the_last_response_to_a_slow_reader(
    loop: Any, tls: Certificates
) -> None:
    """The shutdown of TLS has no time limit of its own."""

    async def app(scope, receive, send):
        await reply(send, bytes(10_000_000), 200, (b"connection", b"close"))

    def read(client: Client) -> int:
        with client:
            return len(client.response().body)

    options = {"timeout_head": 0, "timeout_write": 0, "ssl_certfile": tls.certfile}
    async with Server(app, port=0, lifespan="off", **options) as server:
        client = await asyncio.to_thread(Client, server, tls.context())
        client.send(GET)
        await until(lambda: server._context.ticks > 6)
        assert await asyncio.to_thread(read, client) == 10_000_000


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_a_client_that_has_left_unnoticed(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading pauses for a client that sends ahead. It answers the response by a reset."""
    began, left = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        began.set()
        await left.wait()
        await reply(send, b"", 204, (b"connection", b"close"))

    async with Server(app, port=0, lifespan="off") as server:
        client = await asyncio.to_thread(Client, server.port)
        client.send(GET, GET)
        await began.wait()
        client.close()
        left.set()
        context = server._context
        await until(lambda: not context.running and not context.connections)
    assert caplog.text == ""


@in_loop
async def test_a_closing_transport_is_not_closed_again() -> None:
    """asyncio's TLS transports break at a second call: the size of their buffer raises then."""
    async with connect(hello) as connection:
        closed: list[bool] = []
        connection.abort()
        connection.close = lambda: closed.append(True)  # type: ignore[method-assign]
        connection.protocol.stop()
        assert closed == []
        del connection.close


def test_pipelined_request_that_was_not_read() -> None:
    """A close would reset the connection, and the client would lose the responses before."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"answer")

    with simulated(app) as simulation:
        peer = simulation.connect()
        peer.set_reading(False)
        last = GET[:-2] + b"Connection: close\r\nPadding: %b\r\n\r\n"
        last %= b"x" * (RCVBUF - len(GET + last) + 2)  # the first read ends here
        peer.send(GET + last + GET)
        simulation.loop.settle()
        assert peer.unread.count(b"answer") == 2
        simulation.loop.advance(1)
        assert not peer.is_reset
        peer.set_reading(True)
        peer.close()
        simulation.loop.advance(1)
        assert not simulation.connections
