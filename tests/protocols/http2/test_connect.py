"""connectrpc: its example with the clients of grpcio and of connectrpc, and with curl."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from connectrpc.client import ConnectClient
from examples.connect_echo import REPEAT, SPLIT, Context, Echo, EchoApplication, StringValue, app

from tests.support.helpers import PATIENCE
from tinyasgi.testing import LiveServer, serve

CODEC: dict[str, Any] = {
    "request_serializer": lambda text: StringValue(value=text).to_binary(),
    "response_deserializer": lambda data: StringValue.from_binary(data).value,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve(app) as server:
        yield server


def test_grpc_client(server: LiveServer) -> None:
    with grpc.insecure_channel(f"localhost:{server.port}") as channel:
        repeat = channel.unary_unary("/Echo/Repeat", **CODEC)
        join = channel.stream_unary("/Echo/Join", **CODEC)
        split = channel.unary_stream("/Echo/Split", **CODEC)
        answer = channel.stream_stream("/Echo/Answer", **CODEC)
        assert repeat("Hello", timeout=PATIENCE) == "Hello"
        assert join(iter(["a", "b"]), timeout=PATIENCE) == "a b"
        assert list(split("a b", timeout=PATIENCE)) == ["a", "b"]
        assert list(answer(iter(["a", "b"]), timeout=PATIENCE)) == ["a", "b"]
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/Echo/NoSuch", **CODEC)("", timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_call_that_ends_early(end: str) -> None:
    """connectrpc ends the method in both cases."""
    events: list[str] = []

    class Waits(Echo):
        async def split(self, message: StringValue, context: Context) -> AsyncIterator[StringValue]:
            yield message
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

    with (
        serve(EchoApplication(Waits())) as server,
        grpc.insecure_channel(f"localhost:{server.port}") as channel,
    ):
        split = channel.unary_stream("/Echo/Split", **CODEC)
        call = split("a", timeout=PATIENCE if end == "cancel" else 1)
        assert next(call) == "a"
        if end == "cancel":
            call.cancel()
        with pytest.raises(grpc.RpcError):
            next(call)
        code = call.code()
    # The server has stopped, so each call has ended.
    assert events == ["cancelled"]
    assert code.name == {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}[end]


def test_connect_client(server: LiveServer) -> None:
    async def call() -> None:
        message = StringValue(value="a b")
        async with ConnectClient(server.url) as client:
            assert await client.execute_unary(request=message, method=REPEAT) == message
            words = client.execute_server_stream(request=message, method=SPLIT)
            assert [each.value async for each in words] == ["a", "b"]

    asyncio.run(asyncio.wait_for(call(), PATIENCE))


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl(server: LiveServer, version: str) -> None:
    command = ["curl", "-sS", version, "-H", "Content-Type: application/json", "-d", '"Hello"']
    address = f"{server.url}/Echo/Repeat"
    done = subprocess.run([*command, address], capture_output=True, timeout=PATIENCE, check=True)
    assert done.stdout == b'"Hello"'
