"""A chat room. A slow member does not delay the others.

    tinyasgi examples.chat:app

Open http://127.0.0.1:8000/ in two windows.

* **Origin.** A browser lets any web page open a WebSocket to this app, with the user's cookies. The
  header ``Origin`` contains the address of the page. The app accepts only its own page.
* **Slow clients.** ``send()`` waits for a client that does not read. So each member has a writer
  task and an inbox with the latest lines.

The room is in the memory of one process. With several workers, each worker has a room of its own.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_LINE = 1000  # characters
MAX_INBOX = 100  # lines; the oldest are dropped

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Chat</title>
<body style="font: 1.2rem/1.6 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1>Chat</h1>
<form><input aria-label="Line" autocomplete="off" autofocus> <button disabled>Say</button></form>
<ul id="log"></ul>
<script>
  const [form, input, button] = document.querySelectorAll("form, input, button");
  const log = (text) => {
    const item = document.createElement("li");
    item.textContent = text;  // as text, because other users may send HTML
    document.getElementById("log").prepend(item);
  };
  const socket = new WebSocket(new URL("room", location).href.replace("http", "ws"));
  socket.onopen = () => { button.disabled = false; };
  socket.onmessage = (event) => log(event.data);
  socket.onclose = (event) => { button.disabled = true; log(`Closed: ${event.code}`); };
  form.onsubmit = (event) => {
    event.preventDefault();
    socket.send(input.value);
    input.value = "";
  };
</script>
"""

inboxes: set[asyncio.Queue[str]] = set()
numbers = itertools.count(1)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the page at ``/`` and the room to WebSockets on any path."""
    match scope["type"], scope.get("path"):
        case "websocket", _:
            await receive()  # websocket.connect
            if has_own_origin(dict(scope["headers"])):
                await join(receive, send)
            else:
                await send({"type": "websocket.close"})  # before accepting: 403 (Forbidden)
        case "http", "/":
            await answer(send, 200, "text/html; charset=utf-8", PAGE)
        case "http", _:
            await answer(send, 404, "text/plain; charset=utf-8", b"Nothing here.\n")
        case kind, _:
            # An exception tells the server that the app does not support lifespan.
            raise NotImplementedError(kind)


def has_own_origin(headers: dict[bytes, bytes]) -> bool:
    """Return whether a handshake is from the app's own page, or from a client without Origin."""
    origin = headers.get(b"origin")
    return origin is None or urlsplit(origin).netloc == headers[b"host"]


async def join(receive: Receive, send: Send) -> None:
    """Let a member join the room until the client disconnects."""
    await send({"type": "websocket.accept"})
    name = f"Guest {next(numbers)}"
    inbox = asyncio.Queue[str](MAX_INBOX)
    writer = asyncio.create_task(write(inbox, send))
    inboxes.add(inbox)
    say(f"{name} comes in.")
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            if text := message.get("text"):
                say(f"{name}: {text[:MAX_LINE]}")
    finally:
        inboxes.remove(inbox)
        writer.cancel()
        say(f"{name} has left.")


def say(line: str) -> None:
    """Put a line into every inbox, without waiting."""
    for inbox in inboxes:
        if inbox.full():
            inbox.get_nowait()
        inbox.put_nowait(line)


async def write(inbox: asyncio.Queue[str], send: Send) -> None:
    """Send the lines of an inbox to its member, as fast as the member reads them."""
    with suppress(OSError):  # the client has disconnected; ``receive()`` returns that, too
        while True:
            await send({"type": "websocket.send", "text": await inbox.get()})


async def answer(send: Send, status: int, content_type: str, body: bytes) -> None:
    """Send a complete response."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
