"""A WebSocket that says what it hears: messages in both directions, for as long as both want.

    tinyasgi examples.echo:app

Then talk to it, for example with the client that comes with the package ``websockets``:

    websockets ws://127.0.0.1:8000/

The server calls the application once for each WebSocket. ``receive()`` and ``send()`` are as with
HTTP, but either may be called at any time, by any number of tasks.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Accept whoever comes, and send each message back as it is: text as text, bytes as bytes."""
    if scope["type"] != "websocket":
        # No need of a lifespan here. To raise is how ASGI says "unsupported"; the server goes on.
        raise NotImplementedError(scope["type"])
    await receive()  # websocket.connect: to answer websocket.close instead would refuse
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        # While this waits for a client that does not read, we read no more from it either.
        await send({**message, "type": "websocket.send"})
    # websocket.disconnect: the client has left, or the server stops. To return is all it takes.
