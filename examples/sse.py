"""Server-sent events: one endless response, and how to end it well.

    tinyasgi examples.sse:app

Open http://127.0.0.1:8000/ in a browser, or ``curl -N http://127.0.0.1:8000/events``, and watch
the events come. Then stop the server with Ctrl-C: every client gets a last event, ``bye``.

While it sends, the application waits for ``http.disconnect``, which means "no more is wanted":

* The server was told to stop. tinyasgi says so at once, while ``send()`` still works. So the
  application can finish its response, and the server need not cut it off.
* The client left. Then ``send()`` raises an ``OSError``, which may pass through: the server knows
  it. There is nobody left to say goodbye to.
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
        # No need of a lifespan here. To raise is how ASGI says "unsupported"; the server goes on.
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
    """Send an event every ``INTERVAL`` seconds until no more are wanted, then say goodbye."""
    over = asyncio.create_task(disconnected(receive))
    try:
        while not over.done():
            text = event(f"It is {datetime.now():%H:%M:%S}.")
            await send({"type": "http.response.body", "body": text, "more_body": True})
            await asyncio.wait({over}, timeout=INTERVAL)  # a pause, but one that can be cut short
        await send({"type": "http.response.body", "body": event("Goodbye!", "bye")})
    finally:
        over.cancel()


async def disconnected(receive: Receive) -> None:
    """Return when the client has left or is to be left; skip the request body, if there is one."""
    while (await receive())["type"] != "http.disconnect":
        pass


def event(data: str, name: str = "message") -> bytes:
    """Write one event the way it goes over the wire; an empty line ends it."""
    return f"event: {name}\ndata: {data}\n\n".encode()


async def start(send: Send, status: int, content_type: str) -> None:
    """Send the head of a response, which says that no cache may keep it."""
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
