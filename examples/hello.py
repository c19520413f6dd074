"""Hello, world: the whole of ASGI in one function.

    tinyasgi examples.hello:app

Then open http://127.0.0.1:8000/ or ``curl -i http://127.0.0.1:8000/``.

An ASGI application is a coroutine function of three arguments. ``scope`` is a dict that says what
this call is about, ``receive`` waits for the next message from the server, and ``send`` hands it
one. For HTTP the server calls the application once per request.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Greet whoever asks for ``/``."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] != "http":
        # A protocol we do not speak, say a WebSocket. To raise is how ASGI says "unsupported".
        raise NotImplementedError(scope["type"])
    elif scope["path"] == "/":
        await answer(send, 200, b"Hello, world!\n")
    else:
        await answer(send, 404, b"Nothing here.\n")


async def answer(send: Send, status: int, body: bytes) -> None:
    """Send a whole response: its head first, then its body in one piece."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Receive, send: Send) -> None:
    """Called once for the life of the server: here would connections be opened and closed."""
    await receive()  # lifespan.startup: no request is served before we answer
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown: the last request is over
    await send({"type": "lifespan.shutdown.complete"})
