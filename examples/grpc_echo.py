"""gRPC without a framework: all four kinds of calls, as an ASGI application.

    tinyasgi examples.grpc_echo:app

gRPC needs HTTP/2 and trailers. A message has a prefix of five bytes: whether it is compressed, and
its size. The trailers contain the status. Real services use a framework, such as connectrpc or
sonora, which also encodes messages. Here they are bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OK, UNIMPLEMENTED = b"0", b"12"


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Serve the methods of the service `Echo`."""
    method = METHODS.get(scope.get("path", ""))
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    headers = [(b"content-type", b"application/grpc")]
    start = {"type": "http.response.start", "status": 200, "headers": headers, "trailers": True}
    await send(start)
    status = UNIMPLEMENTED
    if method is not None:
        async for message in method(read_messages(receive)):
            data = bytes(1) + len(message).to_bytes(4, "big") + message
            await send({"type": "http.response.body", "body": data, "more_body": True})
        status = OK
    await send({"type": "http.response.body", "body": b""})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", status)]})


async def read_messages(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the messages of a client as they arrive."""
    data, more_body = b"", True
    while more_body:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise asyncio.CancelledError
        data += event["body"]
        more_body = event["more_body"]
        while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
            yield data[5:end]
            data = data[end:]


# The methods.


async def echo(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unary, and a stream in both directions: send each message back."""
    async for message in messages:
        yield message


async def count(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Server streaming: count to a number."""
    async for message in messages:
        for number in range(int(message)):
            yield str(number).encode()


async def join(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Client streaming: join all messages."""
    yield b" ".join([message async for message in messages])


async def wait(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Wait until the client cancels the call, or its deadline expires."""
    async for _ in messages:
        yield b"waiting"
    await asyncio.Event().wait()


METHODS: dict[str, Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]] = {
    "/Echo/Echo": echo,
    "/Echo/Count": count,
    "/Echo/Join": join,
    "/Echo/Wait": wait,
}
