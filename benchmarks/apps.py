"""Minimal ASGI apps for all servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GREETING = b"Hello, world!"
PIECE = bytes(range(256)) * 256  # 64 KiB
PIECES = 64  # 4 MiB in total
EVENTS = [b"data: event %d\n\n" % number for number in range(100)]


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """Send a short body of known length."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(start(b"text/plain", len(GREETING)))
    await send({"type": "http.response.body", "body": GREETING})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body, then send it back."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    await send(start(b"application/octet-stream", len(body)))
    await send({"type": "http.response.body", "body": body})


async def upload(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body, then send a short one."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    while (await receive()).get("more_body", False):
        pass
    await send(start(b"text/plain", len(GREETING)))
    await send({"type": "http.response.body", "body": GREETING})


async def stream(scope: Message, receive: Receive, send: Send) -> None:
    """Send a long body in large pieces, without a Content-Length."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(start(b"application/octet-stream"))
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def events(scope: Message, receive: Receive, send: Send) -> None:
    """Send a hundred server-sent events, each in a message of its own."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(start(b"text/event-stream"))
    for event in EVENTS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body"})


async def ws_echo(scope: Message, receive: Receive, send: Send) -> None:
    """Send each WebSocket message back."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


members: set[Send] = set()


async def ws_broadcast(scope: Message, receive: Receive, send: Send) -> None:
    """Send each WebSocket message to all clients."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    members.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            text = {"type": "websocket.send", "bytes": message["bytes"]}
            await asyncio.gather(*[member(text) for member in members])
    finally:
        members.discard(send)


def start(content_type: bytes, length: int | None = None) -> Message:
    """Return the message that starts a response. length: Content-Length, if known."""
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def lifespan(receive: Receive, send: Send) -> None:
    """Complete lifespan startup and shutdown."""
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
