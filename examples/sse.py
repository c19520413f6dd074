"""Server-sent events: an endless response, and its end at shutdown.

    tinyasgi examples.sse:app

Open http://127.0.0.1:8000/ in a browser, or ``curl -N http://127.0.0.1:8000/events``, and watch
the events arrive. Then stop the server with Ctrl-C: every client gets a last event, ``bye``.

While the application sends events, it waits for ``http.disconnect``. There are two causes:

* The server is shutting down. It sends ``http.disconnect`` at once, and ``send()`` still works. So
  the application can finish its response before the server cancels it.
* The client has disconnected. ``send()`` raises an ``OSError``, which need not be caught.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

INTERVAL = 1.0  # seconds between two events

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Server-sent events</title>
<body style="font: 1.2rem/1.6 system-ui; max-width: 30rem; margin: 3rem auto; padding: 0 1rem">
<h1>Server-sent events</h1>
<ul id="log"></ul>
<script>
  const log = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById("log").prepend(item);
  };
  const source = new EventSource("/events");
  source.onmessage = (event) => log(event.data);
  source.addEventListener("bye", (event) => { log(event.data); source.close(); });
</script>
"""


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the page at ``/`` and its events at ``/events``."""
    if scope["type"] != "http":
        # An exception tells the server that the app does not support this, for example lifespan.
        raise NotImplementedError(scope["type"])
    match scope["path"]:
        case "/":
            await start(send, 200, "text/html; charset=utf-8")
            await send({"type": "http.response.body", "body": PAGE})
        case "/events":
            await start(send, 200, "text/event-stream")
            await stream(receive, send)
        case _:
            await start(send, 404, "text/plain; charset=utf-8")
            await send({"type": "http.response.body", "body": b"Nothing here.\n"})


async def stream(receive: Receive, send: Send) -> None:
    """Send an event every ``INTERVAL`` seconds until ``http.disconnect``, then a last one."""
    over = asyncio.create_task(disconnected(receive))
    try:
        while not over.done():
            text = event(f"It is {datetime.now():%H:%M:%S}.")
            await send({"type": "http.response.body", "body": text, "more_body": True})
            await asyncio.wait({over}, timeout=INTERVAL)  # a pause that ends early at a disconnect
        await send({"type": "http.response.body", "body": event("Goodbye!", "bye")})
    finally:
        over.cancel()


async def disconnected(receive: Receive) -> None:
    """Wait for ``http.disconnect``; ignore the request body."""
    while (await receive())["type"] != "http.disconnect":
        pass


def event(data: str, name: str = "message") -> bytes:
    """Encode an event. An empty line ends it."""
    return f"event: {name}\ndata: {data}\n\n".encode()


async def start(send: Send, status: int, content_type: str) -> None:
    """Send the head of a response, with ``Cache-Control: no-store``."""
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
