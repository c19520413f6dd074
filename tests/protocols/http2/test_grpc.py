"""gRPC: the example, with the client of grpcio."""

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
