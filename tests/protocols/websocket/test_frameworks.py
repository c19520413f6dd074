"""Popular frameworks, each with the same app, on both event loops."""

import queue
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.helpers import PATIENCE
from tinyasgi.testing import LiveServer, serve

# Ignore the deprecation warnings of frameworks.
pytestmark = [
    pytest.mark.xdist_group("frameworks"),  # each process imports them for a second
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

#: The codes of those who have left the echo.
ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()


class Failure(Exception):
    """Raised by /fail."""


async def converse(websocket: Any) -> None:
    """Echo, for frameworks with Starlette's WebSocket methods."""
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if message.get("text") == "json":
            await websocket.send_json({"question": await websocket.receive_json()})
        elif message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])
    ends.put(message["code"])


async def listen(websocket: Any) -> None:
    """Receive, and do not catch the exception for a disconnect."""
    await websocket.accept()
    while True:
        await websocket.receive_text()


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept("chat", headers=[(b"x-greeting", b"hello")])
        await converse(websocket)

    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4002, "closed")

    async def refuse(websocket: WebSocket) -> None:
        await websocket.close()

    async def deny(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"who": "are you"}, 401))

    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        raise Failure

    views = echo, close, refuse, deny, fail, listen
    return Starlette(routes=[WebSocketRoute(f"/{view.__name__}", view) for view in views])


def fastapi() -> Any:
    from fastapi import FastAPI, HTTPException, WebSocket

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept("chat", headers=[(b"x-greeting", b"hello")])
        await converse(websocket)

    @app.websocket("/close")
    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4002, "closed")

    @app.websocket("/refuse")
    async def refuse(websocket: WebSocket) -> None:
        await websocket.close()

    @app.websocket("/deny")
    async def deny(websocket: WebSocket) -> None:
        raise HTTPException(401, {"who": "are you"})

    @app.websocket("/fail")
    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        raise Failure

    @app.websocket("/listen")
    async def listens(websocket: WebSocket) -> None:
        await listen(websocket)

    return app


def channels() -> Any:
    from channels.exceptions import DenyConnection
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import URLRouter
    from django.urls import path

    class Echo(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.json = False
            await self.accept("chat", headers=[(b"x-greeting", b"hello")])

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            if self.json:
                await self.send(f'{{"question": {text_data}}}')
            elif text_data != "json":
                await self.send(text_data, bytes_data)
            self.json = text_data == "json"

        async def disconnect(self, code: int) -> None:
            ends.put(code)

    class Close(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.close(4002, "closed")

    class Refuse(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.close()

    class Deny(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise DenyConnection

    class Fail(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            raise Failure

    consumers = Echo, Close, Refuse, Deny, Fail
    return URLRouter(
        [path(consumer.__name__.lower(), consumer.as_asgi()) for consumer in consumers]
    )


def quart() -> Any:
    import quart
    from quart import websocket

    app = quart.Quart("quart_app", root_path=str(Path(__file__).parent))

    @app.websocket("/echo")
    async def echo() -> None:
        await websocket.accept(headers={"x-greeting": "hello"}, subprotocol="chat")
        try:
            while True:
                message = await websocket.receive()
                if message == "json":
                    await websocket.send_json({"question": await websocket.receive_json()})
                else:
                    await websocket.send(message)
        finally:  # cancelled after a disconnect
            ends.put(None)

    @app.websocket("/close")
    async def close() -> None:
        await websocket.accept()
        await websocket.close(4002, "closed")

    @app.websocket("/refuse")
    async def refuse() -> Any:
        quart.abort(403)

    @app.websocket("/deny")
    async def deny() -> Any:
        return {"who": "are you"}, 401

    @app.websocket("/fail")
    async def fail() -> None:
        await websocket.accept()
        raise Failure

    return app


def litestar() -> Any:
    import litestar
    from litestar.exceptions import NotAuthorizedException

    @litestar.websocket("/echo")
    async def echo(socket: litestar.WebSocket) -> None:
        await socket.accept("chat", headers={"x-greeting": "hello"})
        await converse(socket)

    @litestar.websocket("/close")
    async def close(socket: litestar.WebSocket) -> None:
        await socket.accept()
        await socket.close(4002, "closed")

    @litestar.websocket("/refuse")
    async def refuse(socket: litestar.WebSocket) -> None:
        await socket.close()

    @litestar.websocket("/deny")
    async def deny(socket: litestar.WebSocket) -> None:
        raise NotAuthorizedException

    @litestar.websocket("/fail")
    async def fail(socket: litestar.WebSocket) -> None:
        await socket.accept()
        raise Failure

    @litestar.websocket("/listen")
    async def listens(socket: litestar.WebSocket) -> None:
        await listen(socket)

    return litestar.Litestar([echo, close, refuse, deny, fail, listens], logging_config=None)


FRAMEWORKS = [starlette, fastapi, channels, quart, litestar]


@pytest.fixture(params=FRAMEWORKS, scope="module")
def framework(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(request.param.__name__)
    if request.param is channels:
        request.getfixturevalue("django_settings")
    return request.param


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def server(request: pytest.FixtureRequest, framework: Callable[[], Any]) -> Iterator[LiveServer]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with serve(framework(), loop=request.param) as server:
        yield server


def visit(server: LiveServer, path: str) -> ClientConnection:
    return connect(server.ws_url + path, proxy=None, subprotocols=["chat", "other"])


def test_echo(server: LiveServer, framework: Any) -> None:
    with visit(server, "/echo") as client:
        assert client.subprotocol == "chat"
        assert client.response.headers["x-greeting"] == "hello"
        for message in ("Grüße", b"\0\xff", "x" * 1_000_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
        client.send("json")
        client.send('{"a": [1, null]}')
        answer = client.recv(PATIENCE)
        assert isinstance(answer, str)
        assert answer.replace(" ", "") == '{"question":{"a":[1,null]}}'
        client.close(4003, "bye")
    assert ends.get(timeout=PATIENCE) == (None if framework is quart else 4003)


def test_close(server: LiveServer) -> None:
    with visit(server, "/close") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "closed")


def test_refusal(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused, visit(server, "/refuse"):
        pass
    assert refused.value.response.status_code == 403


def test_denial(server: LiveServer, framework: Any) -> None:
    with pytest.raises(InvalidStatus) as refused, visit(server, "/deny"):
        pass
    response = refused.value.response
    if framework in (channels, litestar):  # they support no other denial response
        assert response.status_code == 403
    else:
        assert response.status_code == 401
        assert b"are you" in (response.body or b"")


def test_failure(server: LiveServer, framework: Any) -> None:
    kept = {litestar: 4500, quart: 1000}  # these two catch the exception
    with (
        nullcontext() if framework in kept else server.expect(Failure),
        visit(server, "/fail") as client,
        pytest.raises(ConnectionClosed) as closed,
    ):
        client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == kept.get(framework, 1011)


@pytest.mark.parametrize("first", ["server", "client"])
def test_uncaught_disconnect_is_not_an_error(framework: Any, first: str) -> None:
    path = "/listen" if framework in (starlette, fastapi, litestar) else "/echo"
    with serve(framework()) as server:  # raises exceptions of the app
        client = visit(server, path)
        if first == "client":
            client.close(4003)
    if path == "/echo":
        ends.get(timeout=PATIENCE)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == (1001 if first == "server" else 4003)
