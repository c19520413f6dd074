"""A chat room: what one says, all hear. No member can hold up the others.

    tinyasgi examples.chat:app

Open http://127.0.0.1:8000/ in two windows.

* Who may come in: browsers let any page of the web open a WebSocket to us, with the cookies of our
  users. They say in ``Origin`` where the page is from, and we accept our own page only.
* Who is slow: ``send()`` waits for a client that does not read. So each member has a task of its
  own to write, and an inbox that keeps the latest lines until it does.

The room is in the memory of one process. With several workers there would be as many rooms.
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

LONGEST = 1000  # characters of a line
INBOX = 100  # lines that wait for a member; of more the oldest are dropped

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
    item.textContent = text;  // as text, whatever others have sent
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
    """Serve the page at ``/``; a WebSocket is the room, whatever its path."""
    match scope["type"], scope.get("path"):
        case "websocket", _:
            await receive()  # websocket.connect
            if is_from_here(dict(scope["headers"])):
                await join(receive, send)
            else:
                await send({"type": "websocket.close"})  # before accepting: 403 (Forbidden)
        case "http", "/":
            await answer(send, 200, "text/html; charset=utf-8", PAGE)
        case "http", _:
            await answer(send, 404, "text/plain; charset=utf-8", b"Nothing here.\n")
        case kind, _:
            # No need of a lifespan here. To raise is how ASGI says "unsupported".
            raise NotImplementedError(kind)


def is_from_here(headers: dict[bytes, bytes]) -> bool:
    """Whether a handshake comes from a page of ours, or from no browser: those say no Origin."""
    origin = headers.get(b"origin")
    return origin is None or urlsplit(origin).netloc == headers[b"host"]


async def join(receive: Receive, send: Send) -> None:
    """Be with a member from first to last."""
    await send({"type": "websocket.accept"})
    name = f"Guest {next(numbers)}"
    inbox = asyncio.Queue[str](INBOX)
    writer = asyncio.create_task(write(inbox, send))
    inboxes.add(inbox)
    say(f"{name} comes in.")
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            if text := message.get("text"):
                say(f"{name}: {text[:LONGEST]}")
    finally:
        inboxes.remove(inbox)
        writer.cancel()
        say(f"{name} has left.")


def say(line: str) -> None:
    """Put a line into every inbox. It waits for nobody."""
    for inbox in inboxes:
        if inbox.full():
            inbox.get_nowait()
        inbox.put_nowait(line)


async def write(inbox: asyncio.Queue[str], send: Send) -> None:
    """Send a member what comes into the inbox, as fast as the member reads it."""
    with suppress(OSError):  # the member has left; ``receive()`` says so, too
        while True:
            await send({"type": "websocket.send", "text": await inbox.get()})


async def answer(send: Send, status: int, content_type: str, body: bytes) -> None:
    """Send a whole response."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
