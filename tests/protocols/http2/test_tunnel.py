"""A stream as the transport of a WebSocket: pausing in both directions, and its end."""

import asyncio
from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame
from wsproto.events import BytesMessage, CloseConnection

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, ErrorCode
from tinyasgi.protocols.http2.tunnel import HIGH_WATER
from tinyasgi.protocols.states import LOST

from .client import Client
from .test_websocket import WebSocket

SIZE = 20_000


class App:
    """An app that sends ten messages, or receives messages when a test lets it."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.sent = 0
        self.received: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/send":
            for number in range(10):
                await send({"type": "websocket.send", "bytes": bytes((number,)) * SIZE})
                self.sent += 1
        while not self.received or self.received[-1]["type"] == "websocket.receive":
            await self.go.acquire()
            self.received.append(await receive())


def test_app_waits_while_much_is_unsent() -> None:
    app = App()
    with simulated(app, ws_per_message_deflate=False) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0).enlarge(0, 1 << 20)
        socket = WebSocket(client, "/send")
        frame = SIZE + 4
        full = HIGH_WATER // frame  # the message after these goes beyond the limit
        assert app.sent == full
        client.enlarge(1, frame)
        assert app.sent == full  # until all of it is sent
        client.enlarge(1, full * frame)
        assert app.sent > full
        client.enlarge(1, 1 << 20)
        assert app.sent == 10
        data = [event.data for event in socket.events if isinstance(event, BytesMessage)]
        assert b"".join(data) == b"".join(bytes((number,)) * SIZE for number in range(10))
        app.go.release()
        client.peer.close()


def test_client_waits_while_the_app_does_not_receive() -> None:
    app = App()
    with simulated(app, ws_per_message_deflate=False, ws_max_queue=2) as server:
        client = Client(server)
        socket = WebSocket(client)
        granted = len(client.frames)
        sent = 0
        for number in range(INITIAL_WINDOW // (SIZE // 2 + 8)):
            socket.send(BytesMessage(bytes((number,)) * (SIZE // 2)))
            sent += 1
        assert not [frame for frame in client.frames[granted:] if frame.stream_id == 1]
        assert client.reset(1) is None
        for _ in range(sent + 1):
            app.go.release()
        client.settle()
        assert [each["bytes"][:1] for each in app.received] == [
            bytes((number,)) for number in range(sent)
        ]
        assert [frame for frame in client.frames[granted:] if frame.stream_id == 1]
        socket.send(BytesMessage(b"later"))
        assert app.received[-1]["bytes"] == b"later"
        app.go.release()
        client.data(1, b"", "END_STREAM")
        assert app.received[-1]["type"] == "websocket.disconnect"


def test_abort_resets_the_stream() -> None:
    """A client that answers neither a ping nor the closing handshake."""
    app = App()
    with simulated(app, ws_ping_interval=5, ws_ping_timeout=5) as server:
        client = Client(server)
        WebSocket(client)
        app.go.release()
        server.loop.advance(30)
        assert client.settle().ended(1) or client.reset(1) is ErrorCode.CANCEL
        assert not server.connections[0].streams
        assert app.received[-1]["type"] == "websocket.disconnect"
        assert [entry.phase for entry in server.log][-1] is LOST
        assert client.ping()


@pytest.mark.parametrize("late", [b"", b"late"])
def test_data_after_the_end(late: bytes) -> None:
    app = App()
    with simulated(app, ws_per_message_deflate=False) as server:
        client = Client(server)
        socket = WebSocket(client)
        app.go.release()
        socket.send(CloseConnection(1000))
        assert app.received == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]
        assert client.ended(1)
        client.data(1, late, "END_STREAM")
        ends = [frame for frame in client.frames if "END_STREAM" in getattr(frame, "flags", ())]
        assert len(ends) == 1
        assert client.ping()


def transport_of(server: Any) -> Any:
    [connection] = [each for each in server.connections if hasattr(each, "streams")]
    return connection.streams[1]._tunnel


def test_transport_ends_once() -> None:
    with simulated(App(), ws_per_message_deflate=False) as server:
        client = Client(server)
        WebSocket(client)
        transport = transport_of(server)
        assert not transport.is_closing()
        transport.write(b"\x81\x01a")
        transport.write_eof()
        transport.write(b"late")
        transport.write_eof()
        transport.close()
        assert transport.is_closing()
        transport.close()
        transport.write(b"later")
        assert client.settle().body(1) == b"\x81\x01a"
        ends = [frame for frame in client.of(DataFrame, 1) if "END_STREAM" in frame.flags]
        assert len(ends) == 1
        assert transport.get_extra_info("socket", "none") == "none"
        assert client.ping()


def test_transport_of_a_stream_that_was_reset() -> None:
    with simulated(App(), ws_per_message_deflate=False) as server:
        client = Client(server)
        WebSocket(client)
        transport = transport_of(server)
        client.send(RstStreamFrame(1, ErrorCode.CANCEL))
        assert transport.is_closing()
        before = len(client.frames)
        transport.write(b"late")
        transport.abort()
        assert len(client.settle().frames) == before
        assert client.ping()
