"""`Server` and `serve`: a guest in somebody else's loop, and how a server stops."""

import asyncio
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import tinyasgi
from tests.protocols.websocket.helpers import HANDSHAKE
from tests.support.helpers import (
    GET,
    LOOPS,
    PATIENCE,
    START,
    Client,
    hello,
    in_loop,
    reply,
    until,
    upload,
)
from tests.support.simulation import simulated
from tinyasgi import Config, Server
from tinyasgi.app.lifespan import LifespanFailed
from tinyasgi.config.kinds import OptionError
from tinyasgi.importer import LoadError
from tinyasgi.net.listen import ListenError
from tinyasgi.testing import serve


def more(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


# A guest in the loop.


def surroundings() -> Any:
    """What a library must leave as it is."""
    loggers = [logging.getLogger(name) for name in ("", "tinyasgi", "tinyasgi.server", "asyncio")]
    return (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers],
        asyncio.get_running_loop().get_exception_handler(),
        asyncio.all_tasks(),
        threading.enumerate(),
    )


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_nothing_else_is_touched(loop: Any) -> None:
    loop_ = asyncio.get_running_loop()
    client = None
    loop_.set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # the loop's own thread exists from here on
    before = surroundings()
    async with Server(hello, port=0) as server:
        signals, loggers, *_ = surroundings()
        assert [signals, loggers] == list(before[:2])
        client = await asyncio.to_thread(Client, server)
        assert (await asyncio.to_thread(client.response, GET)).body == b"hello"
    client.close()
    assert surroundings() == before
    assert asyncio.get_running_loop() is loop_


@in_loop
async def test_server_takes_config_and_options() -> None:
    config = Config(port=1, access_log=False)
    async with Server(hello, config, port=0, root_path="/x") as server:
        assert server.config == config.replace(port=0, root_path="/x").resolved()
        assert server.port > 1
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.addresses == [server.url]
        assert (server.ws_url, server.host) == (f"ws://127.0.0.1:{server.port}", "127.0.0.1")
    assert config.port == 1


@in_loop
async def test_serve_until_cancelled() -> None:
    stopping = Stopping(hello)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(tinyasgi.serve(stopping.app, sockets=[listener]))
    client = await asyncio.to_thread(Client, listener.getsockname()[1])
    assert (await asyncio.to_thread(client.response, GET)).body == b"hello"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopping.events == ["shutdown"]
    client.close()


@in_loop
async def test_serve_until_stopped() -> None:
    async with Server(hello, port=0, lifespan="off", limit_max_requests=1) as server:
        client = await asyncio.to_thread(Client, server)
        await asyncio.to_thread(client.send, GET)
        await server.stopped()
    client.close()


def test_errors_reach_the_caller(tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        Server(7)
    with pytest.raises(OptionError):
        Server(hello, port=-1)
    with pytest.raises(OptionError, match="did you mean port"):
        Server(hello, prot=1)
    with pytest.raises(OptionError, match="ssl_certfile"):
        Server(hello, ssl_certfile=str(tmp_path / "nothing.pem"))

    async def failing(scope, receive, send):
        await receive()
        raise ValueError("broken")

    with pytest.raises(LifespanFailed, match="broken"), serve(failing):
        pytest.fail("the app is served")
    with pytest.raises(ListenError), serve(hello, host="192.0.2.1"):
        pytest.fail("the address is somebody else's")


def test_error_in_the_body_of_with_stops_the_server() -> None:
    with pytest.raises(ZeroDivisionError), serve(hello) as server:
        raise ZeroDivisionError
    with pytest.raises(OSError):
        Client(server)


def test_sockets_are_closed_when_startup_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    with serve(hello) as server:
        port = server.port
    for _ in range(2):
        with pytest.raises(LifespanFailed), serve(failing, port=port):
            pytest.fail("the app is served")


@in_loop
async def test_two_servers_in_one_loop() -> None:
    async with Server(hello, port=0) as one, Server(hello, port=0) as other:
        for server in (one, other):
            client = await asyncio.to_thread(Client, server)
            assert (await asyncio.to_thread(client.response, GET)).body == b"hello"
            client.close()


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_parser(http: str) -> None:
    with serve(hello, http=http) as server, Client(server) as client:
        assert server.server.parser == http
        assert client.response(GET).body == b"hello"


# How a server stops. Each test says what a stop waits for by its own timeout.


class Stopping:
    """A server in the running loop, its clients in threads, and a lifespan that is watched."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.events: list[str] = []
        self.server = Server(self.app, port=0, **options)
        self._http = app

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.events.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def client(self, request: bytes = b"") -> Client:
        client = await asyncio.to_thread(Client, self.server)
        client.send(request)
        return client


async def stop(server: Server) -> asyncio.Task[None]:
    """Begins to stop a server; returns when it no longer accepts."""
    task = asyncio.create_task(server.__aexit__(None, None, None))

    def refused() -> bool:
        try:
            Client(server).close()
        except OSError:
            return True
        return False

    await until(refused)
    return task


@in_loop
async def test_idle_connections_are_closed() -> None:
    stopping = Stopping(hello)
    async with stopping.server:
        fresh = await stopping.client()
        idle = await stopping.client(GET)
        assert (await asyncio.to_thread(idle.response)).fields.get("connection") is None
    for client in (fresh, idle):
        assert await asyncio.to_thread(client.rest) == b""
        client.close()
    assert stopping.events == ["shutdown"]


@in_loop
async def test_running_request_ends_with_connection_close() -> None:
    release, entered = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await release.wait()
        await reply(send, b"finished")

    stopping = Stopping(app)
    async with stopping.server:
        client = await stopping.client(GET)
        await entered.wait()
        ending = await stop(stopping.server)
        assert stopping.events == []
        release.set()
        response = await asyncio.to_thread(client.response)
        assert response.body == b"finished"
        assert response.fields["connection"] == "close"
        assert await asyncio.to_thread(client.rest) == b""
        client.close()
        await ending
    assert stopping.events[0] == "shutdown"


@in_loop
async def test_request_body_still_arrives_while_stopping() -> None:
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        body = b""
        more_body = True
        while more_body:
            message = await receive()
            body += message["body"]
            more_body = message["more_body"]
        await reply(send, body)

    stopping = Stopping(app)
    async with stopping.server:
        client = await stopping.client(upload(10) + b"begin")
        await entered.wait()
        ending = await stop(stopping.server)
        client.send(b" end.")
        assert (await asyncio.to_thread(client.response)).body == b"begin end."
        client.close()
        await ending


@pytest.mark.parametrize("waits", ["in receive", "elsewhere"])
@in_loop
async def test_stream_is_told_and_says_goodbye(waits: str) -> None:
    told = []
    streaming, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await send(more(b"hello"))
        streaming.set()
        if waits == "elsewhere":
            await go_on.wait()
        told.append((await receive())["type"])
        await send(more(b"good"))
        await send({"type": "http.response.body", "body": b"bye"})

    stopping = Stopping(app)
    async with stopping.server:
        client = await stopping.client(GET)
        await streaming.wait()
        ending = await stop(stopping.server)
        go_on.set()
        assert (await asyncio.to_thread(client.response)).body == b"hellogoodbye"
        assert await asyncio.to_thread(client.rest) == b""
        client.close()
        await ending
    assert told == ["http.disconnect"]
    assert stopping.events[0] == "shutdown"


@in_loop
async def test_stream_that_begins_while_stopping_is_told_too() -> None:
    told = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        told_later = asyncio.create_task(receive())
        entered.set()
        await go_on.wait()
        await send(START)
        await send(more(b"hello"))
        told.append((await told_later)["type"])
        await send({"type": "http.response.body", "body": b"bye"})

    stopping = Stopping(app)
    async with stopping.server:
        client = await stopping.client(GET)
        await entered.wait()
        ending = await stop(stopping.server)
        go_on.set()
        response = await asyncio.to_thread(client.response)
        assert (response.body, response.fields["connection"]) == (b"hellobye", "close")
        client.close()
        await ending
    assert told == ["http.disconnect"]


@in_loop
async def test_pipelined_request_is_not_begun_while_stopping() -> None:
    """Its client sees the connection close and can send it elsewhere."""
    paths = []
    release, entered = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        paths.append(scope["path"])
        entered.set()
        await release.wait()
        await reply(send)

    stopping = Stopping(app)
    async with stopping.server:
        client = await stopping.client(GET + GET.replace(b"/ ", b"/second "))
        await entered.wait()
        ending = await stop(stopping.server)
        release.set()
        response = await asyncio.to_thread(client.response)
        assert response.fields["connection"] == "close"
        assert await asyncio.to_thread(client.rest) == b""
        client.close()
        await ending
    assert paths == ["/"]


def is_cancelled(request: str) -> Callable[..., Any]:
    """An app that does not end by itself, in one way or another."""

    async def app(scope, receive, send):
        if request == "waiting":
            await asyncio.Event().wait()
        elif request == "streaming":
            await send(START)
            await send(more(b"hello"))
            await asyncio.Event().wait()
        elif request == "blocked":
            await send(START)
            while True:
                await send(more(bytes(1_000_000)))
        else:
            await reply(send, b"done")
            await asyncio.Event().wait()

    return app


@pytest.mark.parametrize("request_", ["waiting", "streaming", "blocked", "in the background"])
@in_loop
async def test_what_is_left_is_cancelled_at_the_deadline(
    request_: str, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = []
    entered = asyncio.Event()
    inner = is_cancelled(request_)

    async def app(scope, receive, send):
        entered.set()
        try:
            await inner(scope, receive, send)
        except asyncio.CancelledError:
            cancelled.append(request_)
            raise

    stopping = Stopping(app, timeout_graceful_shutdown=0.1)
    async with stopping.server:
        client = await stopping.client(GET)
        await entered.wait()
    assert cancelled == [request_]
    assert stopping.events == ["shutdown"]
    assert "Traceback" not in caplog.text
    client.close()


@in_loop
async def test_app_that_will_not_be_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        await reply(send)

    stopping = Stopping(app, timeout_graceful_shutdown=0.01)
    async with stopping.server:
        client = await stopping.client(GET)
        await entered.wait()
    assert stopping.events == ["shutdown"]
    assert "1 request" in caplog.text
    release.set()
    client.close()


@in_loop
async def test_client_that_does_not_read_its_last_response() -> None:
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await reply(send, bytes(50_000_000))

    stopping = Stopping(app, timeout_graceful_shutdown=0.1)
    async with stopping.server:
        client = await stopping.client(GET)
        await entered.wait()
    assert stopping.events == ["shutdown"]
    client.close()


#: For tests that would hang if the server waited for the peer.
WITHOUT_LIMITS: dict[str, Any] = {
    "lifespan": "off",
    "timeout_head": 0,
    "timeout_write": 0,
    "ws_ping_interval": 0,
    "timeout_graceful_shutdown": 10 * PATIENCE,
}
WAYS = ["half a head", "upload", "no Close frame", "reads nothing", "no close_notify"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_stop_does_not_wait_for_a_peer_once_nothing_runs(
    loop: Any, way: str, tls: Any
) -> None:
    """Neither to read, nor to send, nor to close."""
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        if scope["type"] == "http":
            return await reply(send, b"too large", 413)
        await receive()
        await send({"type": "websocket.accept"})
        if way == "no Close frame":
            return await receive()
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1

    secure = {"ssl_certfile": tls.certfile} if way == "no close_notify" else {}
    async with Server(app, port=0, **WITHOUT_LIMITS, **secure) as server:
        client = await asyncio.to_thread(Client, server, tls.context() if secure else None)
        if way == "half a head":
            client.send(GET[:20])
        elif way == "upload":
            client.send(upload(1000))
            assert (await asyncio.to_thread(client.response)).status == 413
        elif secure:
            assert (await asyncio.to_thread(client.response, GET)).status == 413
        else:
            client.send(HANDSHAKE)
            assert (await asyncio.to_thread(client.head))[0] == 101
        before = -1
        while way == "reads nothing" and before != sent:  # many turns without progress
            before = sent
            for _ in range(1000):
                await asyncio.sleep(0)
    assert not server._context.connections
    client.close()


@in_loop
async def test_stop_waits_for_a_peer_that_reads_its_last_response_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tinyasgi.server.shutdown.INTERVAL", 0.001)
    monkeypatch.setattr("tinyasgi.server.shutdown.SETTLE", 0.001)
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await reply(send, bytes(20_000_000))

    async with Server(app, port=0, **WITHOUT_LIMITS) as server:
        client = await asyncio.to_thread(Client, server)
        client.send(GET)
        await entered.wait()
        ending = await stop(server)
        await asyncio.sleep(0.1)
        assert not ending.done()
        assert len((await asyncio.to_thread(client.response)).body) == 20_000_000
        client.close()
        await ending


@pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_INFO")
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_stop_waits_until_a_peer_that_still_sends_has_taken_its_response(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has all of it; a close would take back what the peer has not."""
    for name in ("INTERVAL", "SETTLE"):
        monkeypatch.setattr(f"tinyasgi.server.shutdown.{name}", 0.001)
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await reply(send, bytes(50_000), 413)

    async with Server(app, port=0, **WITHOUT_LIMITS) as server:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(upload(100_000) + b"some of it")
            await entered.wait()
            [connection] = server._context.connections
            await until(lambda: not connection._transport.get_write_buffer_size())
            ending = await stop(server)
            await asyncio.sleep(0.1)
            assert not ending.done()
            sock.sendall(b"more of it")
            with sock.makefile("rb") as file:
                assert len((await asyncio.to_thread(file.read)).partition(b"\r\n\r\n")[2]) == 50_000
        await ending


@in_loop
async def test_quit_cuts_a_stop_short(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = []
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(scope["path"])
            raise

    stopping = Stopping(app, timeout_graceful_shutdown=PATIENCE * 10)
    async with stopping.server as server:
        client = await stopping.client(GET)
        await entered.wait()
        ending = await stop(server)
        assert cancelled == []
        server.quit()
        client.close()
        await ending
    assert cancelled == ["/"]
    assert stopping.events[0] == "shutdown"
    assert "Traceback" not in caplog.text


@in_loop
async def test_on_wait_that_raises_does_not_end_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    def fail(what: Callable[[], list[str]], seconds: float) -> None:
        raise LookupError("an observer")

    async with Server(hello, port=0, on_wait=fail) as server:
        pass
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), 1)
    assert caplog.text.count("LookupError: an observer") == 1


@in_loop
async def test_quit_before_a_stop() -> None:
    entered = asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    stopping = Stopping(app, timeout_graceful_shutdown=PATIENCE * 10)
    async with stopping.server as server:
        client = await stopping.client(GET)
        await entered.wait()
        server.quit()
        await server.stopped()
    assert stopping.events == ["shutdown"]
    client.close()


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_connections_waiting_to_be_accepted_are_served(loop: str) -> None:
    """A client whose connection was made before the stop is not reset."""
    for _ in range(5):
        with ExitStack() as stack:
            with serve(hello, loop=loop) as server:
                clients = [stack.enter_context(Client(server)) for _ in range(20)]
                for client in clients:
                    client.send(GET)
            for client in clients:
                assert client.response().body == b"hello"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("limit", [0, 10])
@in_loop
async def test_nobody_comes_while_the_last_requests_end(limit: int, loop: Any) -> None:
    """Not even into the queue of the kernel, from which it would be reset in the end."""
    release, entered = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        entered.set()
        await release.wait()
        await reply(send, b"finished")

    server = Server(app, port=0, lifespan="off", limit_connections=limit)
    await server.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(GET)
    await entered.wait()
    server.stop()
    ending = asyncio.create_task(server.__aexit__(None, None, None))
    await until(lambda: server._context.stopping)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    release.set()
    assert b"finished" in await reader.read()
    writer.close()
    await ending


@pytest.mark.parametrize("kind", ["idle", "refused"])
def test_no_timer_outlives_a_server(kind: str) -> None:
    with simulated(hello) as simulation:
        if kind == "refused":
            simulation.loop.failing[len(simulation.loop.calls)] = errno.EMFILE  # accept
        simulation.connect()
        assert simulation.loop.timers
        simulation.stop()
        assert not simulation.loop.timers


def test_stop_waits_for_a_client_that_reads_slowly() -> None:
    """It has a complete response in its buffers, and pauses."""

    async def app(scope, receive, send):
        await reply(send, bytes(40_000))

    with simulated(app) as simulation:
        peer = simulation.connect()
        peer.set_reading(False)
        peer.send(GET)
        simulation.loop.settle()
        simulation.server.stop()
        simulation.loop.advance(2)
        peer.set_reading(True)
        simulation.loop.advance(1)
        assert peer.received.endswith(bytes(40_000))
        assert not peer.is_reset
