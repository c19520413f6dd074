"""The health path, and a stop that gives load balancers the time to notice it."""

import asyncio
import logging
import signal
import sys
from typing import Any

import pytest

from tests.support.helpers import (
    GET,
    HANDSHAKE,
    LOOPS,
    PATIENCE,
    Client,
    hello,
    in_loop,
    reply,
    until,
    workers_option,
)
from tests.support.processes import Start, nothing_left, start, wait_until, who
from tinyasgi import Server
from tinyasgi.testing import connect, serve

__all__ = ["nothing_left", "start"]

HEALTH = GET.replace(b" / ", b" /healthz ")


def test_it_is_answered_without_the_app() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await reply(send)

    with serve(app, lifespan="off", health_path="/healthz") as server, Client(server) as client:
        response = client.response(HEALTH)
        assert (response.status, response.body) == (200, b"ok\n")
        assert response.fields["cache-control"] == "no-store"
        assert client.response(HEALTH.replace(b"healthz", b"healthz/more")).status == 200
        client.response(GET)
    assert seen == ["/healthz/more", "/"]


def test_without_it_the_app_is_asked() -> None:
    with serve(hello) as server, Client(server) as client:
        assert client.response(HEALTH).body == b"hello"


@pytest.mark.parametrize("target", [b"/healthz", b"/api/healthz", b"/healthz?verbose=1"])
def test_root_path(target: bytes) -> None:
    with serve(hello, root_path="/api", health_path="/healthz") as server, Client(server) as client:
        assert client.response(HEALTH.replace(b"/healthz", target)).body == b"ok\n"


def test_it_is_not_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyasgi.access")
    with serve(hello, health_path="/healthz") as server, Client(server) as client:
        client.response(HEALTH)
        client.response(GET)
    assert [record.name for record in caplog.records].count("tinyasgi.access") == 1
    assert "healthz" not in caplog.text


@in_loop
async def test_it_is_answered_whatever_runs() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with Server(app, lifespan="off", port=0, limit_concurrency=1, health_path="/healthz",
                      timeout_graceful_shutdown=0) as server:  # fmt: skip

        async def ask(request: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            try:
                return await reader.readline()
            finally:
                writer.close()

        running = asyncio.create_task(ask(GET))
        while not server._context.running:
            await asyncio.sleep(0)
        assert await ask(HEALTH) == b"HTTP/1.1 200 OK\r\n"
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_shutdown_delay(loop: Any) -> None:
    """It still accepts; answers say that the connection closes, and the health path says 503."""
    server = Server(hello, port=0, lifespan="off", health_path="/healthz", shutdown_delay=600)
    await server.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    server.stop()
    end = asyncio.create_task(server.__aexit__(None, None, None))
    heads = []
    for request in (GET, HEALTH):
        fresh_reader, fresh_writer = await asyncio.open_connection("127.0.0.1", server.port)
        for one, other in ((fresh_reader, fresh_writer), (reader, writer)):
            if one is reader and request is HEALTH:
                continue
            other.write(request)
            heads.append((await one.read()).lower())
            other.close()
    assert [head.split()[1] for head in heads] == [b"200", b"200", b"503"]
    assert all(b"connection: close" in head for head in heads)
    assert not end.done()
    server.quit()
    await end
    with pytest.raises(OSError):  # nobody listens any more
        await asyncio.open_connection("127.0.0.1", server.port)


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_who_comes_last_is_answered(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is accepted at the end of the delay has not sent its request yet."""
    monkeypatch.setattr("tinyasgi.server.shutdown.LAST", PATIENCE)
    server = Server(hello, port=0, lifespan="off", shutdown_delay=0.01)
    await server.__aenter__()
    clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    clients[0][1].write(GET[:20])
    server.stop()
    end = asyncio.create_task(server.__aexit__(None, None, None))
    await until(lambda: not server._acceptor._readers)
    for (reader, writer), rest in zip(clients, (GET[20:], GET), strict=True):
        writer.write(rest)
        assert b"connection: close" in (await reader.read()).lower()
        writer.close()
    await end


@pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")
@pytest.mark.parametrize("workers", ["", "2"])
def test_shutdown_delay_of_the_command(workers: str, start: Start) -> None:
    words = [*workers_option(workers), "--shutdown-delay", "30", "--health-path", "/healthz"]
    with start(*words) as command:
        port = command.port
        who(port, int(workers or 1))
        command.send(signal.SIGTERM)
        command.wait_for("stopping")

        def drained(request: bytes) -> bool:
            with Client(port) as client:
                response = client.response(request)
                wanted = 503 if request is HEALTH else 200
                return (response.status, response.fields.get("connection")) == (wanted, "close")

        # One of two workers may have been told a moment before the other.
        wait_until(lambda: drained(HEALTH))
        wait_until(lambda: drained(GET))
        command.send(signal.SIGTERM)  # who knows that nobody comes any more need not wait
        assert command.wait() == 0


@in_loop
async def test_it_costs_nothing_when_it_is_off() -> None:
    async with connect(hello) as connection:
        assert connection.context.app is hello


def test_health_checks_are_no_requests_of_the_app() -> None:
    with (
        serve(hello, health_path="/healthz", limit_max_requests=2) as server,
        Client(server) as client,
    ):
        for _ in range(5):
            assert "connection" not in client.response(HEALTH).fields
        assert "connection" not in client.response(GET).fields
        assert client.response(GET).body == b"hello"
        assert client.rest() == b""


@in_loop
async def test_websocket_on_the_path_is_one_of_the_app() -> None:
    """It counts for the limits, and appears in access log and metrics."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await receive()

    lines = []
    handshake = HANDSHAKE.replace(b" / ", b" /healthz ")
    async with Server(
        app,
        lifespan="off",
        port=0,
        limit_concurrency=1,
        limit_max_requests=1,
        health_path="/healthz",
        access=lambda exchange: lines.append((exchange.line.route, exchange.status)),
    ) as server:

        def talk() -> None:
            with Client(server) as first, Client(server) as second, Client(server) as third:
                first.send(handshake)
                assert first.head()[0] == 101
                assert second.response(handshake).status == 503
                assert third.response(HEALTH).status == 200

        await asyncio.gather(asyncio.to_thread(talk), server.stopped())
        await until(lambda: not server._context.running)
    assert lines == [("/healthz", 503), ("/healthz", 101)]
