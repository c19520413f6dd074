"""Scopes and events fit the types of asgiref, the reference implementation of ASGI."""

import asyncio
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from asgiref import typing as types

from tests.support.helpers import GET, PATIENCE, in_loop, reply, upload
from tinyasgi import Server
from tinyasgi.testing import connect

HANDSHAKE = (
    b"GET /chat?q HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type that an annotation of asgiref names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        return hint.__required_keys__ <= value.keys() and all(
            fits(value[name], hints[name]) for name in value.keys() & hints.keys()
        )
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin is dict:
        return all(fits(name, arguments[0]) and fits(value[name], arguments[1]) for name in value)
    if origin is Iterable:
        return all(fits(each, arguments[0]) for each in value)
    return isinstance(value, NoneType if hint is None else hint)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (types.HTTPDisconnectEvent, {"type": "http.request"}),
        (types.HTTPRequestEvent, {"type": "http.request", "body": "text", "more_body": False}),
        (types.HTTPRequestEvent, {"type": "http.request", "body": b""}),
        (Iterable[tuple[bytes, bytes]], [(b"name", "value")]),
        (dict[str, Any] | None, {1: 2}),
    ],
)
def test_what_does_not_fit(hint: Any, value: Any) -> None:
    assert not fits(value, hint)


@in_loop
async def test_http() -> None:
    scopes, events = [], []

    async def app(scope, receive, send):
        scopes.append(scope)
        events.append(await receive())
        await reply(send)
        events.append(await receive())

    async with connect(app) as connection:
        await connection.feed(GET, upload(3), b"abc")
    assert len(scopes) == 2
    assert all(fits(scope, types.HTTPScope) for scope in scopes)
    assert all(fits(event, types.HTTPRequestEvent) for event in events[::2])
    assert all(fits(event, types.HTTPDisconnectEvent) for event in events[1::2])


@in_loop
async def test_websocket() -> None:
    scopes, events = [], []

    async def app(scope, receive, send):
        scopes.append(scope)
        events.append(await receive())
        await send({"type": "websocket.close"})
        events.append(await receive())

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
    assert [fits(scope, types.WebSocketScope) for scope in scopes] == [True]
    connected, disconnected = events
    assert fits(connected, types.WebSocketConnectEvent)
    assert fits(disconnected, types.WebSocketDisconnectEvent)


@in_loop
async def test_lifespan() -> None:
    scopes, events = [], []

    async def app(scope, receive, send):
        scopes.append(scope)
        for name in ("startup", "shutdown"):
            events.append(await receive())
            await send({"type": f"lifespan.{name}.complete"})

    async with asyncio.timeout(PATIENCE), Server(app, port=0):
        pass
    assert [fits(scope, types.LifespanScope) for scope in scopes] == [True]
    startup, shutdown = events
    assert fits(startup, types.LifespanStartupEvent)
    assert fits(shutdown, types.LifespanShutdownEvent)
