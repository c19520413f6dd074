"""Popular clients on both event loops, with and without compression."""

import asyncio
import os
import queue
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_asyncio
from websockets.sync.client import connect

from tests.support.helpers import PATIENCE
from tinyasgi.testing import LiveServer, serve

from . import clients
from .clients import CLIENTS, Visit

MESSAGES = ["Grüße", b"\0\xff", "", b"", "é" * 40_000, os.urandom(1024) * 8192]
REASON = "genug für heute"

#: Clients, with and without compression. Node.js always compresses.
PAIRS = [
    (each, wanted)
    for each in CLIENTS
    for wanted in (False, True)
    if wanted or each is not clients.node
]

#: How each visitor of the echo has left.
ends: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echo messages; other paths close or reject the WebSocket."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    assert await receive() == {"type": "websocket.connect"}
    accept = {
        "type": "websocket.accept",
        "subprotocol": next(reversed(scope["subprotocols"]), None),
    }
    match scope["path"]:
        case "/echo":
            await send(accept)
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            ends.put((message["code"], message["reason"]))
        case "/close":
            await send(accept)
            await send({"type": "websocket.close", "code": 4001, "reason": REASON})
        case "/deny":
            kind = "websocket.http.response"
            await send({"type": f"{kind}.start", "status": 401, "headers": []})
            await send({"type": f"{kind}.body", "body": b"who is there?"})


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with serve(app, loop=request.param) as server:
        yield server


@pytest.mark.parametrize(
    ("client", "compressed"), PAIRS, ids={True: "compressed", False: "plain"}.get
)
def test_conversation(server: LiveServer, client: Any, compressed: bool) -> None:
    # Node.js accepts no message of 8 MiB.
    messages = MESSAGES[:-1] if client is clients.node else MESSAGES
    visit = client(server.ws_url + "/echo", messages, compressed)
    assert visit.compressed == compressed
    assert visit.subprotocol == "a"
    assert (visit.code, visit.heard) == (4000, messages)
    assert ends.get(timeout=PATIENCE) == (4000, "bye")


@pytest.mark.parametrize("client", CLIENTS)
def test_app_closes(server: LiveServer, client: Any) -> None:
    visit = client(server.ws_url + "/close", [], True)
    assert (visit.status, visit.code, visit.reason) == (101, 4001, REASON)


@pytest.mark.parametrize("client", CLIENTS)
def test_app_denies(server: LiveServer, client: Any) -> None:
    visit = client(server.ws_url + "/deny", [], True)
    assert visit == Visit(None if client is clients.node else 401)


def test_many_at_once(server: LiveServer) -> None:
    async def visit(number: int) -> None:
        async with connect_asyncio(server.ws_url + "/echo", proxy=None) as client:
            for message in (f"{number}.{turn}" for turn in range(20)):
                await client.send(message)
                assert await client.recv() == message

    async def visits() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(visit(number))

    asyncio.run(visits())
    assert {ends.get(timeout=PATIENCE) for _ in range(50)} == {(1000, "")}


def test_client_vanishes(server: LiveServer) -> None:
    with connect(server.ws_url + "/echo", proxy=None) as client:
        client.close_socket()
    assert ends.get(timeout=PATIENCE) == (1006, "")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tls(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with serve(app, loop=loop, tls=True) as server:
        trust = ssl.create_default_context(cafile=server.ca_certs)

        async def talk() -> None:
            # The synchronous client reads and writes its TLS socket in two threads, and sometimes
            # loses data.
            url, options = server.ws_url + "/echo", {"ssl": trust, "max_size": None}
            async with connect_asyncio(url, proxy=None, **options) as client:
                for message in MESSAGES:
                    await client.send(message)
                    assert await client.recv() == message

        asyncio.run(talk())
    assert ends.get(timeout=PATIENCE) == (1000, "")
