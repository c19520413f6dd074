"""Popular WebSocket clients. Each function makes one connection with one of them.

A visitor offers the subprotocols "b" and "a", sends each message and hears the answer before the
next, and closes with 4000 and "bye". Without a message it waits for the other side to close.
"""

import asyncio
import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support.helpers import PATIENCE

__all__ = ["CLIENTS", "Visit"]


class Visit(NamedTuple):
    """Result of a connection."""

    status: int | None
    """Headers of the handshake response; None if the client does not expose them."""
    compressed: bool = False
    subprotocol: str | None = None
    heard: Sequence[str | bytes] = ()
    code: int | None = None
    reason: str | None = None


def websockets(url: str, messages: Sequence[str | bytes], compressed: bool) -> Visit:
    """The package `websockets`, without asyncio."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    options: Any = {"compression": "deflate" if compressed else None, "max_size": None}
    heard: list[str | bytes] = []
    try:
        with connect(url, proxy=None, subprotocols=["b", "a"], **options) as client:
            for message in messages:
                client.send(message)
                heard.append(client.recv(PATIENCE))
            if messages:
                client.close(4000, "bye")
            with suppress(ConnectionClosed):
                client.recv(PATIENCE)
    except InvalidStatus as refused:
        return Visit(refused.response.status_code)
    agreed = client.protocol.extensions != []
    return Visit(101, agreed, client.subprotocol, heard, client.close_code, client.close_reason)


def websockets_asyncio(url: str, messages: Sequence[str | bytes], compressed: bool) -> Visit:
    """`websockets` with asyncio. It sends fragments, with pings between them."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    async def visit() -> Visit:
        options: Any = {"compression": "deflate" if compressed else None, "max_size": None}
        heard: list[str | bytes] = []
        try:
            async with connect(url, proxy=None, subprotocols=["b", "a"], **options) as client:
                for message in messages:
                    half = len(message) // 2
                    await client.send([message[:half], message[half:]])
                    heard.append(await client.recv())
                    await (await client.ping())
                if messages:
                    await client.close(4000, "bye")
                with suppress(ConnectionClosed):
                    await client.recv()
        except InvalidStatus as refused:
            return Visit(refused.response.status_code)
        agreed = client.protocol.extensions != []
        return Visit(101, agreed, client.subprotocol, heard, client.close_code, client.close_reason)

    return asyncio.run(visit())


def aiohttp(url: str, messages: Sequence[str | bytes], compressed: bool) -> Visit:
    """aiohttp."""
    aiohttp = pytest.importorskip("aiohttp")

    async def visit() -> Visit:
        options = {"compress": 15 if compressed else 0, "max_msg_size": 0}
        heard = []
        async with aiohttp.ClientSession() as session:
            try:
                client = await session.ws_connect(url, protocols=["b", "a"], **options)
            except aiohttp.WSServerHandshakeError as refused:
                return Visit(refused.status)
            for message in messages:
                send = client.send_str if isinstance(message, str) else client.send_bytes
                await send(message)
                heard.append((await client.receive(PATIENCE)).data)
            if messages:
                await client.close(code=4000, message=b"bye")
            end = await client.receive(PATIENCE)
            return Visit(
                101, client.compress > 0, client.protocol, heard, client.close_code, end.extra
            )

    return asyncio.run(visit())


def wsproto(url: str, messages: Sequence[str | bytes], compressed: bool) -> Visit:
    """wsproto, which has no I/O, on a plain socket."""
    wsproto = pytest.importorskip("wsproto")
    from wsproto import events
    from wsproto.extensions import PerMessageDeflate

    address = urlsplit(url)
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as sock:

        def say(event: events.Event) -> None:
            sock.sendall(client.send(event))

        def hear() -> Any:
            while (event := next(client.events(), None)) is None:
                client.receive_data(sock.recv(65536) or None)
            return event

        say(
            events.Request(
                address.netloc,
                address.path,
                subprotocols=["b", "a"],
                extensions=[PerMessageDeflate()] if compressed else [],
            )
        )
        answer = hear()
        if isinstance(answer, events.RejectConnection):
            return Visit(answer.status_code)
        heard = []
        for message in messages:
            text = isinstance(message, str)
            say(events.TextMessage(message) if text else events.BytesMessage(message))
            parts = [hear()]
            while not parts[-1].message_finished:
                parts.append(hear())
            heard.append(type(message)().join(part.data for part in parts))
        if messages:
            say(events.CloseConnection(4000, "bye"))
        end = hear()
        extensions = bool(answer.extensions)
        return Visit(101, extensions, answer.subprotocol, heard, end.code, end.reason)


NODE = """
const [url, ...messages] = JSON.parse(require("fs").readFileSync(0));
const client = new WebSocket(url, ["b", "a"]);
const heard = [];
let opened = false, code, reason;
const next = () => {
  if (heard.length < messages.length) {
    const { text, bytes } = messages[heard.length];
    client.send(bytes === undefined ? text : Buffer.from(bytes, "base64"));
  } else if (messages.length) {
    client.close(4000, "bye");
  }
};
client.binaryType = "arraybuffer";
client.onopen = () => { opened = true; next(); };
client.onmessage = ({ data: d }) => {
  heard.push(typeof d === "string" ? { text: d } : { bytes: Buffer.from(d).toString("base64") });
  next();
};
client.onclose = (event) => { ({ code, reason } = event); };
client.onerror = () => {};  // a refusal is one, and may be followed by no `close`
process.once("beforeExit", () => {
  const { protocol, extensions } = client;
  process.stdout.write(JSON.stringify({ opened, protocol, extensions, heard, code, reason }));
});
"""


#: Evaluates a script. WebSocket is experimental before Node.js 22.
EVALUATE = ["node", "--experimental-websocket", "-e"]


@cache
def _require_node() -> None:
    if not shutil.which("node"):
        pytest.skip("no Node.js here")
    if subprocess.call([*EVALUATE, "WebSocket"], stderr=subprocess.DEVNULL):
        pytest.skip("this Node.js has no WebSocket: it came with 20.10")


def node(url: str, messages: Sequence[str | bytes], compressed: bool) -> Visit:
    """The WebSocket of Node.js."""
    _require_node()
    questions = [
        {"text": message}
        if isinstance(message, str)
        else {"bytes": base64.b64encode(message).decode()}
        for message in messages
    ]
    lines = json.dumps([url, *questions])
    told = json.loads(
        subprocess.check_output([*EVALUATE, NODE], input=lines, text=True, timeout=PATIENCE)
    )
    if not told["opened"]:
        return Visit(None)
    heard = [
        answer["text"] if "text" in answer else base64.b64decode(answer["bytes"])
        for answer in told["heard"]
    ]
    extensions = "permessage-deflate" in told["extensions"]
    return Visit(101, extensions, told["protocol"], heard, told["code"], told["reason"])


CLIENTS: list[Callable[[str, Sequence[str | bytes], bool], Visit]]
CLIENTS = [websockets, websockets_asyncio, aiohttp, wsproto, node]
