"""What happens once a second: timeouts, the Date header and lines about errors of clients."""

import asyncio
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest

from tests.support.network import Peer
from tests.support.simulation import Simulation, simulated
from tinyasgi.protocols.context import MAX_ERROR_LINES
from tinyasgi.protocols.timeouts import LINGER, MAX_LINGER
from tinyasgi.testing import serve

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n"
CLOSE = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and answer with the size of the query string in megabytes."""
    while (await receive()).get("more_body"):
        pass
    body = bytes(int(scope["query_string"] or 0) << 20)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


def ask(server: Simulation, data: bytes = GET) -> Peer:
    peer = server.connect()
    peer.send(data)
    server.loop.settle()
    return peer


# Timeouts. The server looks once a second, so each test begins between two looks.


@pytest.mark.parametrize(
    ("data", "status"), [(GET, b"200"), (GET[:9], b"408"), (POST, b"408"), (b"", b"")]
)
@pytest.mark.parametrize("begin", [0.5, 10.5])
def test_connection_ends_in_time(data: bytes, status: bytes, begin: float) -> None:
    """It does not end before its timeout, and ends within two seconds after it."""
    names = ("timeout_head", "timeout_body", "timeout_keep_alive")
    with simulated(app, **dict.fromkeys(names, 5)) as server:
        first = ask(server)  # its clock runs
        server.loop.advance(begin)
        peer = ask(server, data)
        server.loop.advance(4.9)
        assert not peer.at_end
        server.loop.advance(2.1)
        assert peer.at_end
        assert peer.received[9:12] == status
        first.close()


@pytest.mark.parametrize("begin", [0.5, 10.5])
def test_client_that_reads_nothing(begin: float) -> None:
    with simulated(app, timeout_write=5, min_rate_write=0) as server:
        first = ask(server)
        server.loop.advance(begin)
        peer = server.connect()
        peer.set_reading(False)
        peer.send(GET.replace(b"/ ", b"/?1 "))
        server.loop.advance(4.9)
        assert len(server.connections) == 2
        server.loop.advance(2.1)
        assert len(server.connections) == 1
        assert "--timeout-write" in server.records[-1].getMessage()
        first.close()


@pytest.mark.parametrize(("pause", "seconds"), [(0, LINGER), (1, MAX_LINGER)])
def test_end_of_a_connection(pause: int, seconds: float) -> None:
    """After its FIN, the server drops what arrives until the client is silent or goes on too long.

    pause: seconds between two bytes of the client; 0: it is silent.
    """
    with simulated(app) as server:
        first = ask(server)
        server.loop.advance(10.5)
        peer = ask(server, POST.replace(b"POST", b"P OST"))
        assert peer.has_fin
        passed = 0.0
        while len(server.connections) == 2:
            server.loop.advance(1)
            passed += 1
            if pause and len(server.connections) == 2:
                peer.send(b"x")
        assert seconds < passed <= seconds + 2
        first.close()


# The clock stops while there is no connection.


def test_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with simulated(app, date_header=True) as server:
        for seconds in (0, 100, 1000):
            now[0] = seconds
            peer = ask(server)
            date = formatdate(seconds, usegmt=True).encode()
            assert b"date: " + date in bytes(peer.received)
            now[0] += 1
            server.loop.advance(1)
            peer.send(GET)
            server.loop.settle()
            date = formatdate(seconds + 1, usegmt=True).encode()
            assert b"date: " + date in bytes(peer.received)
            peer.close()
            server.loop.advance(2)
            assert not server.loop.timers


# Errors of clients.


@pytest.mark.parametrize("more", [-1, 0, 1, 5])
def test_error_lines_of_a_second(more: int) -> None:
    with simulated(app) as server:
        for _ in range(2):  # the next second has lines of its own
            del server.records[:]
            for _ in range(MAX_ERROR_LINES + more):
                ask(server, b"nonsense\r\n\r\n")
            server.loop.advance(1)
            lines = [record.getMessage() for record in server.records]
            shown = MAX_ERROR_LINES + min(more, 0)
            text = f"{more} more client errors in the last second, not shown"
            assert lines[shown:] == [text] * (more > 0)


# Requests and connections that a stop waits for.


def test_description() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()

    go = asyncio.Event()
    with simulated(app) as server:
        context = server.server._context
        assert context is not None
        assert context.describe() == []
        ask(server)
        assert context.describe() == ["GET / HTTP/1.1"]
        ask(server, b"")
        assert context.describe() == ["GET / HTTP/1.1", "1 connection to close"]
        ask(server, b"")
        assert context.describe() == ["GET / HTTP/1.1", "2 connections to close"]
        go.set()


def test_health_checks_are_no_requests() -> None:
    """They do not count for --limit-max-requests."""
    with simulated(app, limit_max_requests=2, health_path="/health") as server:
        for data in (GET, GET.replace(b"/ ", b"/health "), GET):
            assert not server.server._context.stopping  # type: ignore[union-attr]
            ask(server, data)
        server.loop.settle()
        assert server.server._context.stopping  # type: ignore[union-attr]


# Addresses.


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6")
def test_ipv6_addresses() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["server"]))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    with (
        serve(app, host="::1", lifespan="off") as server,
        socket.create_connection(("::1", server.port)) as client,
    ):
        client.sendall(GET)
        assert client.recv(9) == b"HTTP/1.1 "
        assert seen == [(client.getsockname()[:2], ("::1", server.port))]
