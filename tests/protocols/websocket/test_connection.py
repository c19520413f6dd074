"""Flow control, pings, closing handshake and shutdown, with a simulated clock."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from tests.support.helpers import LOOPS, PATIENCE, QUICK_LOOPS, Client, elapse, in_loop, until
from tinyasgi import Server
from tinyasgi.errors import ClientDisconnected
from tinyasgi.protocols.hooks import Hooks
from tinyasgi.protocols.states import COMPLETE, ServerState
from tinyasgi.protocols.websocket.frames import BINARY, PING, PONG, TEXT, encode, encode_close
from tinyasgi.testing import connect, serve

from .helpers import ACCEPT, HANDSHAKE, Peer, echo, handshake, masked, opened

BYE = masked(0x88, b"\x03\xe8")
GOING_AWAY = encode_close(1001)


async def idle(scope: Any, receive: Any, send: Any) -> None:
    """Receive until `websocket.disconnect`."""
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] == "websocket.receive":
        pass


async def after(peer: Peer, seconds: int) -> bytes:
    """Return the bytes that the server sends while time passes."""
    await elapse(peer.connection, seconds)
    return peer.take()


# Split, joined and early frames.


@in_loop
async def test_frames_byte_by_byte() -> None:
    data = masked(0x81, b"hello") + masked(0x82, b"x" * 200) + masked(0x89, b"?") + BYE
    answers = encode(TEXT, b"hello") + encode(BINARY, b"x" * 200) + encode(PONG, b"?")
    for reads in ([data], [data[i : i + 1] for i in range(len(data))]):
        async with opened(echo) as peer:
            sent = await peer.send(*reads)
            # The pong need not wait for the app.
            assert sorted(sent) == sorted(answers + encode_close(1000))
            assert sent.endswith(encode_close(1000))
            assert peer.connection.closed


@in_loop
async def test_frames_before_the_handshake_is_answered() -> None:
    accept = asyncio.Event()
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await accept.wait()
        await send(ACCEPT)
        seen.extend([await receive(), await receive()])

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE + masked(0x81, b"one"), masked(0x81, b"two"))
        accept.set()
        await connection.settle()
    assert [message["text"] for message in seen] == ["one", "two"]


@in_loop
async def test_error_before_the_handshake_is_answered() -> None:
    async with connect(echo) as connection:
        answer = await connection.feed(HANDSHAKE + masked(0x83))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest == encode_close(1002, "unknown opcode 3")


@in_loop
async def test_handshake_after_a_request() -> None:
    """Pipelined, and as a second request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await echo(scope, receive, send)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with connect(app) as connection:
        get = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
        answer = await connection.feed(get + HANDSHAKE + masked(0x81, b"hello"))
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"HTTP/1.1 101 " in answer
    assert answer.endswith(encode(TEXT, b"hello"))


# Errors of the client.


@pytest.mark.parametrize(
    ("frame", "close"),
    [
        (masked(0x83), encode_close(1002, "unknown opcode 3")),
        (encode(TEXT, b"x"), encode_close(1002, "frame without a mask")),
        (masked(0x81, b"\xff"), encode_close(1007, "invalid UTF-8 in a text message")),
        (masked(0x82, b"x" * 11), encode_close(1009, "message exceeds --ws-max-size (10)")),
        (masked(0xC2, b"x"), encode_close(1002, "reserved bit set")),
    ],
)
@in_loop
async def test_error(frame: bytes, close: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(idle, ws_max_size=10) as peer:
        assert await peer.send(frame) == close
        assert await peer.send(masked(0x81, b"no more")) == b""
        assert peer.connection.closed
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    code = int.from_bytes(close[2:4], "big")
    assert record.message == f"127.0.0.1:50000: WebSocket closed: {code}: {close[4:].decode()}"


@pytest.mark.parametrize("compressed", [True, False])
@in_loop
async def test_compression(compressed: bool) -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate"
    async with opened(echo, offer, ws_per_message_deflate=compressed) as peer:
        answer = await peer.send(masked(0x81, b"hello " * 100))
        assert (len(answer) < 100) is compressed
        assert bool(answer[0] & 0x40) is compressed
        small = await peer.send(masked(0x81, b"hello"))
        assert small == encode(TEXT, b"hello")  # below the minimum size for compression


@in_loop
async def test_compression_bomb() -> None:
    from tinyasgi.protocols.websocket.deflate import negotiate

    agreed = negotiate("permessage-deflate")
    assert agreed is not None
    offer = b"Sec-WebSocket-Extensions: permessage-deflate"
    async with opened(echo, offer, ws_max_size=1000) as peer:
        answer = await peer.send(masked(0xC2, agreed.compress(bytes(1_000_000))))
        assert answer[2:4] == (1009).to_bytes(2, "big")


# Flow control.


@pytest.mark.parametrize(
    ("frame", "queue", "most"), [(b"x", 10, 10), (bytes(10_000), 1000, 7), (bytes(70_000), 10, 1)]
)
@in_loop
async def test_reading_pauses_while_the_app_does_not_receive(
    frame: bytes, queue: int, most: int
) -> None:
    ready = asyncio.Event()
    seen = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal seen
        await receive()
        await send(ACCEPT)
        await ready.wait()
        while (await receive())["type"] == "websocket.receive":
            seen += 1

    async with opened(app, ws_max_queue=queue) as peer:
        [exchange] = peer.connection.context.running
        await peer.send(masked(0x82, frame) * 25, masked(0x82, frame) * 25)
        assert len(exchange._messages) == most  # type: ignore[attr-defined]
        assert not peer.connection._reading
        ready.set()
        await peer.send()
        assert seen == 50
        await peer.send(masked(0x82, frame))
        assert seen == 51
        assert await peer.send(BYE) == encode_close(1000)


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_send_waits_while_the_client_does_not_read(loop: Any) -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1

    async with Server(app, port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1000)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != sent:  # blocked: no progress in many iterations
            before = sent
            for _ in range(1000):
                await asyncio.sleep(0)
        assert sent < 1000
        while sent < before + 100:
            await reader.readexactly(100_000)
        writer.transport.abort()


@in_loop
async def test_pings_are_answered_while_the_app_does_not_receive() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await asyncio.Event().wait()

    async with opened(app) as peer:
        assert await peer.send(masked(0x89, b"?"), masked(0x8A, b"!")) == encode(PONG, b"?")


@in_loop
async def test_only_the_last_ping_is_answered_while_the_client_does_not_read() -> None:
    async with opened(idle) as peer:
        peer.connection.protocol.pause_writing()
        assert await peer.send(*[masked(0x89, b"%d" % i) for i in range(100)]) == b""
        peer.connection.protocol.resume_writing()
        assert peer.take() == encode(PONG, b"99")
        assert await peer.send(masked(0x89, b"?")) == encode(PONG, b"?")


@pytest.mark.parametrize("end", [BYE, masked(0x83)], ids=["Close", "a fault"])
@in_loop
async def test_no_pong_follows_the_close_frame(end: bytes) -> None:
    async with opened(idle) as peer:
        protocol = peer.connection.protocol
        protocol.pause_writing()
        await peer.connection.feed(masked(0x89, b"?") + end)
        protocol.resume_writing()
        await peer.connection.settle()
        assert encode(PONG, b"?") not in peer.take()


# Pings.


@in_loop
async def test_silent_client_is_pinged_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    reason = "nothing received within 3 s after a ping (--ws-ping-timeout)"
    async with opened(idle, ws_ping_interval=5, ws_ping_timeout=3) as peer:
        assert await after(peer, 4) == b""
        assert await after(peer, 3) == encode(PING, b"")
        assert await after(peer, 5) == encode_close(1011, reason)
        assert peer.connection.closed
    assert caplog.records[0].message.endswith(f"WebSocket closed: 1011: {reason}")


@pytest.mark.parametrize("frame", [masked(0x8A), masked(0x81, b"hello"), masked(0x89), b"\x81"])
@in_loop
async def test_any_byte_resets_the_ping_timeout(frame: bytes) -> None:
    async with opened(idle, ws_ping_interval=5, ws_ping_timeout=3) as peer:
        assert await after(peer, 7) == encode(PING, b"")
        await peer.send(frame)
        assert encode(PING, b"") not in await after(peer, 4)
        assert await after(peer, 3) == encode(PING, b"")
        assert not peer.connection.closed


@in_loop
async def test_interval_zero_disables_pings() -> None:
    async with opened(idle, ws_ping_interval=0) as peer:
        assert await after(peer, 500) == b""
    async with opened(idle, ws_ping_timeout=0) as peer:
        assert await after(peer, 500) == encode(PING, b"")


@in_loop
async def test_no_ping_timeout_while_reading_is_paused() -> None:
    ready = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await ready.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with opened(app, ws_max_queue=1, ws_ping_interval=5, ws_ping_timeout=3) as peer:
        await peer.send(masked(0x81, b"one"), masked(0x81, b"two"))
        assert await after(peer, 500) == b""
        ready.set()
        assert await peer.send(BYE) == encode_close(1000)


@pytest.mark.parametrize("loop", QUICK_LOOPS)
@in_loop
async def test_no_ping_timeout_because_of_a_blocked_event_loop(loop: Any) -> None:
    """Data that has arrived meanwhile is read before timeouts are checked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        message = await receive()
        await send({"type": "websocket.send", "text": message.get("text", "gone")})

    async with Server(app, port=0, ws_ping_interval=1, ws_ping_timeout=1) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        context = server._context
        await reader.readexactly(len(encode(PING, b"")))
        writer.write(masked(0x81, b"alive"))  # it arrives while the event loop is blocked
        context.ticks += 100
        context._tick()
        assert await reader.readexactly(7) == encode(TEXT, b"alive")
        writer.close()


# Closing handshake.


@in_loop
async def test_timeout_of_the_closing_handshake() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    async with opened(app) as peer:
        assert peer.take() == encode_close(1000)
        assert not peer.connection.closed
        await peer.send(masked(0x81, b"not yet"))
        await elapse(peer.connection, 4)
        assert peer.connection.closed


@in_loop
async def test_close_is_answered_although_messages_wait_for_the_app() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await asyncio.Event().wait()

    async with opened(app) as peer:
        await peer.send(masked(0x81, b"for nobody") + BYE)
        assert await after(peer, 4) == encode_close(1000)
        assert peer.connection.closed


@pytest.mark.parametrize("queue", [10, 2])
@pytest.mark.parametrize("ending", ["eof", "reset", "write"])
@in_loop
async def test_close_code_is_used_if_the_transport_ends_with_queued_messages(
    ending: str, queue: int
) -> None:
    """Even if the Close frame has not been parsed yet."""
    busy, seen, access = asyncio.Event(), [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await busy.wait()
        with contextlib.suppress(ClientDisconnected):
            await send({"type": "websocket.send", "text": "hello"})
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
        seen.append((message["code"], message["reason"]))

    hooks = Hooks(access=lambda exchange: access.append(exchange.phase))
    async with opened(app, hooks=hooks, ws_max_queue=queue) as peer:
        connection = peer.connection
        messages = [masked(0x81, b"%d" % i) for i in range(5)]
        await connection.feed(b"".join(messages) + masked(0x88, b"\x03\xe8bye"))
        if ending == "eof":
            await connection.eof()
        elif ending == "reset":
            await connection.reset()
        else:
            connection._lose(None)  # the event loop has noticed it, the protocol has not
        busy.set()
        await connection.settle()
    assert seen == ["0", "1", "2", "3", "4", (1000, "bye")]
    assert access == [COMPLETE]


@in_loop
async def test_connection_closes_at_once_after_both_close_frames() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    for peer_is_first in (True, False):
        async with opened(idle if peer_is_first else app) as peer:
            await peer.send(BYE)
            assert not peer.connection.context.connections


@in_loop
async def test_a_closed_connection_is_freed() -> None:
    async with opened(idle) as peer:
        connection = peer.connection
        await peer.send(BYE)
        await connection.settle()
        assert not connection.context.running
        assert not hasattr(connection.protocol, "_exchange") or not connection.protocol._exchange


# Shutdown.


async def stop(connection: Any) -> None:
    connection.context.enter(ServerState.LEAVING)
    connection.context.enter(ServerState.STOPPING)
    connection.protocol.stop()
    await connection.settle()


@in_loop
async def test_app_can_send_after_the_shutdown_begins() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        await send({"type": "websocket.send", "text": "goodbye"})

    async with opened(app) as peer:
        await stop(peer.connection)
        assert peer.take() == encode(TEXT, b"goodbye") + GOING_AWAY
        await peer.send(masked(0x88, b"\x03\xe9"))
        assert peer.connection.closed
    assert seen == [{"type": "websocket.disconnect", "code": 1001, "reason": ""}]


class Disconnect(Exception):
    """An exception that a framework raises for `websocket.disconnect`."""

    def __init__(self, code: int) -> None:
        self.code = code


@pytest.mark.parametrize(
    ("error", "quiet"),
    [
        (Disconnect(1001), True),
        (ExceptionGroup("of tasks", [Disconnect(1001), Disconnect(1006)]), True),
        (ClientDisconnected("the client has left"), True),
        (Disconnect(1000), False),
        (NameError("a typo"), False),
        (ExceptionGroup("of tasks", [Disconnect(1001), NameError("a typo")]), False),
    ],
)
@in_loop
async def test_app_raises_because_of_the_shutdown(
    error: Exception, quiet: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        raise error

    async with opened(app) as peer:
        await stop(peer.connection)
        assert peer.take() == GOING_AWAY
    logged = [record.exc_info and record.exc_info[1] for record in caplog.records]
    assert logged == ([] if quiet else [error])


@in_loop
async def test_close_frame_at_the_next_tick_after_a_shutdown() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await asyncio.Event().wait()

    async with opened(app) as peer:
        await stop(peer.connection)
        assert peer.take() == b""
        assert await after(peer, 1) == GOING_AWAY


@in_loop
async def test_handshake_during_shutdown() -> None:
    accept = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await accept.wait()
        await send(ACCEPT)
        assert (await receive())["code"] == 1001

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
        await stop(connection)
        accept.set()
        await connection.settle()
        assert connection.sent.endswith(b"\r\n\r\n" + GOING_AWAY)


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_shutdown_with_open_websockets(loop: Any) -> None:
    codes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        codes.append((await receive())["code"])

    async with Server(app, port=0) as server:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        for reader, writer in streams:
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(server.__aexit__(None, None, None))
            for reader, writer in streams:
                assert await reader.readexactly(4) == GOING_AWAY
                writer.write(masked(0x88, b"\x03\xe9"))
                assert await reader.read() == b""
                writer.close()
            await stopping
    assert codes == [1001] * 20


# TLS, and all transports.


def test_websocket_over_tls(tls: Any) -> None:
    with (
        serve(echo, ssl_certfile=tls.certfile) as server,
        Client(server, tls.context()) as client,
    ):
        client.send(handshake())
        assert client.head()[0] == 101
        client.send(masked(0x81, b"hello"))
        assert client.file.read(7) == encode(TEXT, b"hello")
        client.send(BYE)
        assert client.rest() == encode_close(1000)


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_connections_are_freed_however_they_end(loop: Any) -> None:
    async with Server(echo, port=0) as server:
        context = server._context
        for ending in (BYE, b"", masked(0x83), masked(0x82, b"x" * 1000)[:500], None):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            assert len(context.connections) == 1
            if ending is None:
                writer.transport.abort()
            else:
                writer.write(ending)
                writer.close()
            async with asyncio.timeout(PATIENCE):
                await until(lambda: not context.connections and not context.running)
