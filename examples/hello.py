"""Hello, world: a complete ASGI application.

    tinyasgi examples.hello:app

Then open http://127.0.0.1:8000/ or ``curl -i http://127.0.0.1:8000/``.

An ASGI application is a coroutine function with three arguments. ``scope`` is a dict that describes
the call. ``receive`` waits for the next message from the server. ``send`` sends a message to the
server. For HTTP, the server calls the application once per request.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Send a greeting at ``/``."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] != "http":
        # An exception tells the server that the app does not support this, for example WebSocket.
        raise NotImplementedError(scope["type"])
    elif scope["path"] == "/":
        await answer(send, 200, b"Hello, world!\n")
    else:
        await answer(send, 404, b"Nothing here.\n")


async def answer(send: Send, status: int, body: bytes) -> None:
    """Send a complete response: first status and headers, then the body."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    """Run startup and shutdown code, for example to open and close a connection pool."""
    await receive()  # lifespan.startup: the server accepts no requests before the reply
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown: the last request has finished
    await send({"type": "lifespan.shutdown.complete"})
