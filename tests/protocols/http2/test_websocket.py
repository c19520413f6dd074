"""WebSocket over HTTP/2 (RFC 8441)."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from tests.support.simulation import Simulation, simulated
from tinyasgi.protocols.http2.frames import ErrorCode
from tinyasgi.protocols.states import COMPLETE, LOST

from .client import GET, Client

received: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echo messages; other paths close or reject the WebSocket."""
    received.append(scope)
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})
        return
    await receive()
    if scope["path"] == "/reject":
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/fail":
        raise ArithmeticError
    headers = [(b"x-name", b"value")]
    subprotocol = next(iter(scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "headers": headers, "subprotocol": subprotocol})
    if scope["path"] == "/close":
        await send({"type": "websocket.close", "code": 4001})
        return
    if scope["path"] == "/large":
        await send({"type": "websocket.send", "bytes": b"x" * 300_000})
        await send({"type": "websocket.send", "text": "end"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    received.append(message)


class WebSocket:
    """A WebSocket in stream 1 of a client."""

    def __init__(self, client: Client, path: str = "/", *more: tuple[str, str]) -> None:
        self.client = client
        self.connection = Connection(ConnectionType.CLIENT)
        self.read = 0
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            *GET[1:3],
            (":path", path),
            ("sec-websocket-version", "13"),
            *more,
        ]
        client.send(client.headers(1, fields))

    def send(self, event: Any) -> "WebSocket":
        self.client.data(1, self.connection.send(event))
        return self

    @property
    def events(self) -> list[Any]:
        body = self.client.settle().body(1)
        self.connection.receive_data(body[self.read :])
        self.read = len(body)
        return list(self.connection.events())


@pytest.fixture
def server() -> Iterator[Simulation]:
    received.clear()
    with simulated(app, ws_per_message_deflate=False) as simulation:
        yield simulation


@pytest.fixture
def client(server: Simulation) -> Client:
    return Client(server)


def test_setting(client: Client) -> None:
    assert client.frames[0].settings[SettingsFrame.ENABLE_CONNECT_PROTOCOL] == 1


def test_without_websockets() -> None:
    with simulated(app, ws="none") as server:
        client = Client(server)
        assert SettingsFrame.ENABLE_CONNECT_PROTOCOL not in client.frames[0].settings
        WebSocket(client)
        assert client.status(1) == 501


def test_echo(client: Client, server: Simulation) -> None:
    socket = WebSocket(client, "/path?query", ("sec-websocket-protocol", "chat, other"))
    assert client.fields(1) == [
        {":status": "200", "x-name": "value", "sec-websocket-protocol": "chat"}
    ]
    scope = received[0]
    assert scope["type"] == "websocket"
    assert scope["http_version"] == "2"
    assert (scope["scheme"], scope["path"], scope["query_string"]) == ("ws", "/path", b"query")
    assert scope["subprotocols"] == ["chat", "other"]
    socket.send(TextMessage("hello")).send(BytesMessage(b"\0" * 1000)).send(Ping(b"1"))
    text, data, pong = socket.events
    assert (text.data, data.data) == ("hello", bytearray(1000))
    assert isinstance(pong, Pong)
    client.get(3)
    assert client.body(3) == b"hello"
    socket.send(CloseConnection(1001))
    assert socket.events[0].code == 1001
    assert client.ended(1)
    assert received[-1]["type"] == "websocket.disconnect"
    assert received[-1]["code"] == 1001
    assert [(entry.status, entry.phase) for entry in server.log] == [
        (200, COMPLETE),
        (101, COMPLETE),
    ]


def test_large_messages_in_both_directions(client: Client) -> None:
    socket = WebSocket(client, "/large")
    assert len(client.body(1)) == 65_535
    client.enlarge(1, 1 << 20).enlarge(0, 1 << 20)
    messages = [event for event in socket.events if isinstance(event, BytesMessage)]
    assert sum(len(message.data) for message in messages) == 300_000
    data = socket.connection.send(BytesMessage(b"y" * 300_000))
    for start in range(0, len(data), 16_000):
        client.data(1, data[start : start + 16_000])
    events = [event for event in socket.events if isinstance(event, BytesMessage)]
    assert sum(len(event.data) for event in events) == 300_000
    assert client.of(WindowUpdateFrame, 1)


def test_close_by_the_app(client: Client) -> None:
    socket = WebSocket(client, "/close")
    assert socket.events[0].code == 4001
    assert not client.ended(1)
    socket.send(CloseConnection(4001))
    assert client.ended(1)
    assert client.ping()


def test_rejection(client: Client) -> None:
    WebSocket(client, "/reject")
    assert client.status(1) == 403
    assert client.ended(1)


def test_unsupported_version(client: Client) -> None:
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
    client.send(client.headers(1, [*fields, ("sec-websocket-version", "12")]))
    assert client.status(1) == 426


@pytest.mark.parametrize("way", ["reset", "end", "close"])
def test_client_disconnects(client: Client, server: Simulation, way: str) -> None:
    WebSocket(client)
    if way == "reset":
        client.send(RstStreamFrame(1, ErrorCode.CANCEL))
    elif way == "end":
        client.data(1, b"", "END_STREAM")
        assert client.ended(1)
    else:
        client.peer.close()
        client.settle()
    assert received[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert [entry.phase for entry in server.log] == [LOST]
    assert len(server.connections) == (way != "close")


def test_protocol_error(client: Client) -> None:
    socket = WebSocket(client)
    client.data(1, b"\xff\xff\xff")
    assert socket.events[0].code == 1002
    assert client.ended(1)
    assert client.ping()


def test_data_before_the_handshake_is_accepted(client: Client) -> None:
    fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        *GET[1:],
        ("sec-websocket-version", "13"),
    ]
    connection = Connection(ConnectionType.CLIENT)
    frame = DataFrame(1, connection.send(TextMessage("early")))
    client.send(client.headers(1, fields), frame)
    connection.receive_data(client.body(1))
    assert [event.data for event in connection.events()] == ["early"]


def test_stop(client: Client, server: Simulation) -> None:
    socket = WebSocket(client)
    server.server.stop()
    server.loop.advance(2)
    assert socket.events[0].code == 1001
    assert received[-1]["code"] == 1001


def test_stop_with_apps_that_do_not_end() -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while True:
            with suppress(asyncio.CancelledError):
                await release.wait()
                return

    release = asyncio.Event()
    with simulated(stubborn, timeout_graceful_shutdown=0) as server:
        client = Client(server)
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
        for stream_id in range(1, 17, 2):
            client.send(client.headers(stream_id, [*fields, ("sec-websocket-version", "13")]))
        server.server.stop()
        server.loop.advance(10)
        assert server.main.exception() is None
        release.set()
        server.loop.settle()


def test_ping_timeout() -> None:
    with simulated(app, ws_ping_interval=5, ws_ping_timeout=5) as server:
        client = Client(server)
        socket = WebSocket(client)
        server.loop.advance(15)
        kinds = [type(event) for event in socket.events]
        assert kinds == [Ping, CloseConnection]


def test_compression() -> None:
    with simulated(app) as server:
        client = Client(server)
        WebSocket(client, "/", ("sec-websocket-extensions", "permessage-deflate"))
        assert "permessage-deflate" in client.fields(1)[0]["sec-websocket-extensions"]


def test_body_limit_does_not_count_messages() -> None:
    with simulated(app, limit_body_size=10, ws_per_message_deflate=False) as server:
        socket = WebSocket(Client(server))
        socket.send(TextMessage(data="x" * 100))
        assert [event.data for event in socket.events] == ["x" * 100]


def test_handshake_with_end_stream(server: Simulation) -> None:
    fields = [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]]
    client = Client(server)
    client.send(client.headers(1, [*fields, ("sec-websocket-version", "13")], "END_STREAM"))
    assert client.ended(1)
    assert received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@pytest.mark.parametrize("path", ["/reject", "/fail"])
def test_rejection_waits_for_the_window(path: str) -> None:
    with simulated(app, timeout_keep_alive=5) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=0)
        WebSocket(client, path)
        client.enlarge(1, 1000)
        assert client.ended(1)
        server.loop.advance(12)
        assert client.closed


@pytest.mark.parametrize("order", [1, -1])
def test_end_of_all_connections(server: Simulation, order: int) -> None:
    """The server closes its connections, of which a WebSocket is one, in any order."""
    WebSocket(Client(server))
    connections = sorted(server.connections, key=lambda connection: type(connection).__name__)
    assert len(connections) == 2
    for connection in connections[::order]:
        connection.close()
    server.loop.settle()
    assert not server.connections
    assert received[1]["type"] == "websocket.disconnect"
    server.check()
