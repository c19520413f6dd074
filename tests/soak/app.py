"""App of the soak test: what it does depends on the path."""

import asyncio
from typing import Any

from examples import grpc_echo


async def start(send: Any, **more: Any) -> None:
    await send({"type": "http.response.start", "status": 200, **more})


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def listen(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    assert scope["type"] == "http"
    path = scope["path"]
    if path in grpc_echo.METHODS:
        await grpc_echo.app(scope, receive, send)
    elif path == "/echo":
        body = await read(receive)
        await start(send)
        await send({"type": "http.response.body", "body": body})
    elif path == "/who":
        await start(send)
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})
    elif path == "/stream":  # until the client leaves
        await start(send)
        left = asyncio.create_task(listen(receive))
        try:
            while not left.done():
                await send({"type": "http.response.body", "body": b"event", "more_body": True})
                await asyncio.wait({left}, timeout=0.2)
        finally:
            left.cancel()
    elif path == "/large":
        await start(send)
        for _ in range(32):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await start(send)
        await send({"type": "http.response.body", "body": b"hello"})
