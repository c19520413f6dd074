"""A WebSocket that sends each message back.

    tinyasgi examples.echo:app

Then connect to it, for example with the client of the package ``websockets``:

    websockets ws://127.0.0.1:8000/

The server calls the application once for each WebSocket. Any task may call ``receive()`` and
``send()`` at any time.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Accept every client, and send each message back: text as text, bytes as bytes."""
    if scope["type"] != "websocket":
        # An exception tells the server that the app does not support this, for example lifespan.
        raise NotImplementedError(scope["type"])
    await receive()  # websocket.connect; send websocket.close instead of accept to refuse it
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        # If the client does not read, this waits. Then the app does not receive from it either.
        await send({**message, "type": "websocket.send"})
    # websocket.disconnect: the client has disconnected, or the server is shutting down.
