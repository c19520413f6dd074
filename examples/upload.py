"""Uploads of any size, written to disk piece by piece.

    tinyasgi examples.upload:app

Open http://127.0.0.1:8000/ in a browser, or ``curl -T some.file http://127.0.0.1:8000/upload``.

Only one piece of the body is in memory at a time. While the app writes a piece, it does not call
``receive()``. The server soon stops reading from the socket, and the client has to wait. A write to
a disk blocks, so it runs in a thread.
"""

import asyncio
import hashlib
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FOLDER = Path(tempfile.gettempdir())  # for the uploaded files
MAX_SIZE = 4 * 1024**3  # bytes

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Upload</title>
<body style="font: 1.2rem/1.6 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1>Upload</h1>
<form><input type="file" name="file" required> <button>Upload</button></form>
<pre style="white-space: pre-wrap; overflow-wrap: anywhere"></pre>
<script>
  const form = document.querySelector("form"), output = document.querySelector("pre");
  form.onsubmit = async (event) => {
    event.preventDefault();
    output.textContent = "Sending ...";
    try {
      const answer = await fetch("/upload", { method: "PUT", body: form.file.files[0] });
      output.textContent = await answer.text();
    } catch (error) {
      output.textContent = error;
    }
  };
</script>
"""


class TooLarge(Exception):
    """The upload has more than ``MAX_SIZE`` bytes."""


class ClientDisconnected(Exception):
    """The client disconnected during its upload."""


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the form at ``/``, and receive files at ``/upload``."""
    if scope["type"] != "http":
        # An exception tells the server that the app does not support this, for example lifespan.
        raise NotImplementedError(scope["type"])
    match scope["method"], scope["path"]:
        case "GET" | "HEAD", "/":
            await answer(send, 200, "text/html; charset=utf-8", PAGE)
        case "PUT" | "POST", "/upload":
            await upload(receive, send)
        case _:
            await answer(send, 404, "text/plain; charset=utf-8", b"Nothing here.\n")


async def upload(receive: Receive, send: Send) -> None:
    """Save the body; respond with its size and its checksum."""
    result: dict[str, object]
    try:
        status, result = 201, await save(receive)
    except TooLarge:
        status, result = 413, {"error": f"More than {MAX_SIZE} bytes."}
    except ClientDisconnected:
        return
    text = json.dumps(result, indent=2).encode() + b"\n"
    await answer(send, status, "application/json", text)


async def save(receive: Receive) -> dict[str, object]:
    """Write the body to a new file. It is renamed when it is complete, and removed on an error.

    The app chooses the name. A name from a client could be ``../../somewhere/else``.
    """
    path = FOLDER / f"upload-{uuid.uuid4().hex}"
    part = path.with_suffix(".part")
    size, digest = 0, hashlib.sha256()
    try:
        with part.open("xb") as file:

            def keep(piece: bytes) -> None:  # runs in a thread
                file.write(piece)
                digest.update(piece)

            async for piece in pieces(receive):
                size += len(piece)
                if size > MAX_SIZE:
                    raise TooLarge
                await asyncio.to_thread(keep, piece)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return {"file": path.name, "size": size, "sha256": digest.hexdigest()}


async def pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the pieces of the request body as they arrive."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def answer(send: Send, status: int, content_type: str, body: bytes) -> None:
    """Send a complete response."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
