"""The `websockets` client and a server of `tinyasgi.testing`."""

import asyncio
import ssl
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.recipes import run
from tinyasgi.testing import serve

pytest_plugins = ["pytester"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    await receive()
    if scope["path"] == "/fail":
        raise ZeroDivisionError
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def test_recipe(pytester: pytest.Pytester) -> None:
    run(pytester, "test_websocket.py").assert_outcomes(passed=1)


@pytest.mark.parametrize("tls", [False, True])
def test_echo(tls: bool) -> None:
    with serve(echo, lifespan="off", tls=tls) as server:
        trust = ssl.create_default_context(cafile=server.ca_certs) if tls else None

        async def talk() -> None:
            async with connect_asyncio(server.ws_url, ssl=trust, proxy=None) as client:
                for text in ("one", "two"):
                    await client.send(text)
                    assert await client.recv() == text

        asyncio.run(talk())


def test_error_is_raised_at_the_end() -> None:
    with (
        serve(echo, lifespan="off") as server,
        server.expect(ZeroDivisionError),
        pytest.raises(InvalidStatus, match="500"),
        connect(server.ws_url + "/fail", proxy=None),
    ):
        pytest.fail("the handshake is accepted")


def test_open_connection_does_not_hold_up_the_stop() -> None:
    with ExitStack() as stack, serve(echo, lifespan="off") as server:
        client = stack.enter_context(connect(server.ws_url, proxy=None))
        client.send("one")
        assert client.recv() == "one"
