"""gRPC: the example, with the client of grpcio."""

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from examples.grpc_echo import app

from tests.support.helpers import PATIENCE, Certificates
from tinyasgi.testing import serve

grpc = pytest.importorskip("grpc")


@pytest.fixture(scope="module", params=["plain", "TLS"])
def channel(request: pytest.FixtureRequest, tls: Certificates) -> Iterator[Any]:
    certfile = tls.certfile if request.param == "TLS" else None
    with serve(app, cancel_on_disconnect=True, ssl_certfile=certfile) as server:
        address = f"localhost:{server.port}"
        if certfile is None:
            channel = grpc.insecure_channel(address)
        else:
            with open(tls.ca_certs, "rb") as file:
                channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
        with channel:
            yield channel


def test_unary(channel: Any) -> None:
    echo = channel.unary_unary("/Echo/Echo")
    for size in (0, 5, 100_000, 1_000_000):
        assert echo(b"x" * size, timeout=PATIENCE) == b"x" * size


def test_many_calls_at_once(channel: Any) -> None:
    echo = channel.unary_unary("/Echo/Echo")
    calls = [echo.future(b"%d" % number, timeout=PATIENCE) for number in range(300)]
    assert [call.result() for call in calls] == [b"%d" % number for number in range(300)]


def test_server_streaming(channel: Any) -> None:
    count = channel.unary_stream("/Echo/Count")
    assert list(count(b"1000", timeout=PATIENCE)) == [b"%d" % number for number in range(1000)]


def test_client_streaming(channel: Any) -> None:
    join = channel.stream_unary("/Echo/Join")
    assert join(iter([b"a", b"b", b"c"]), timeout=PATIENCE) == b"a b c"


def test_streams_in_both_directions(channel: Any) -> None:
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    echo = channel.stream_stream("/Echo/Echo")
    responses = echo(iter(requests.get, None), timeout=PATIENCE)
    for number in range(20):
        requests.put(b"%d" % number)
        assert next(responses) == b"%d" % number
    requests.put(None)
    assert list(responses) == []


def test_unknown_method(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/Echo/Other")(b"", timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_deadline(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/Echo/Wait")(b"", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert channel.unary_unary("/Echo/Echo")(b"x", timeout=PATIENCE) == b"x"


def test_cancellation(channel: Any) -> None:
    call = channel.unary_stream("/Echo/Wait")(b"", timeout=PATIENCE)
    assert next(call) == b"waiting"
    call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert channel.unary_unary("/Echo/Echo")(b"x", timeout=PATIENCE) == b"x"


def test_large_messages(channel: Any) -> None:
    """Larger than all windows, in both directions."""
    message = bytes(range(256)) * 12_000  # the client accepts 4 MiB
    echo = channel.stream_stream("/Echo/Echo")
    assert list(echo(iter([message] * 3), timeout=PATIENCE)) == [message] * 3


def test_metadata(channel: Any) -> None:
    metadata = [("x-text", "a b"), ("x-data-bin", bytes(range(256)))]
    response, call = channel.unary_unary("/Echo/Echo").with_call(
        b"x", timeout=PATIENCE, metadata=metadata
    )
    assert response == b"x"
    assert dict(call.trailing_metadata()) == {}
    assert call.code() is grpc.StatusCode.OK


def test_keepalive_pings() -> None:
    """The client pings without a pause; the call goes on."""
    options = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with (
        serve(app) as server,
        grpc.insecure_channel(f"localhost:{server.port}", options) as channel,
    ):
        count = channel.unary_stream("/Echo/Count")
        assert len(list(count(b"20000", timeout=PATIENCE))) == 20_000


def test_asyncio_client() -> None:
    async def calls(port: int) -> None:
        async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
            echo = channel.unary_unary("/Echo/Echo")
            messages = [b"%d" % number for number in range(200)]
            found = await asyncio.gather(*[echo(each, timeout=PATIENCE) for each in messages])
            assert found == messages
            both = channel.stream_stream("/Echo/Echo")(timeout=PATIENCE)
            for each in messages[:20]:
                await both.write(each)
                assert await both.read() == each
            await both.done_writing()
            assert await both.read() is grpc.aio.EOF

    with serve(app) as server:
        asyncio.run(calls(server.port))
