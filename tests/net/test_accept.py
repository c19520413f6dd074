"""A server that has no free descriptor: clients wait, the log says so once a second."""

import asyncio
import errno
import math
import os
import socket
from typing import Any

import pytest

from tests.support.helpers import GET, LOOPS, Client, hello, in_loop, quick_loop, until
from tinyasgi import Server
from tinyasgi.net.accept import _first_reserved

TOO_MANY = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Exhausted:
    """Makes `accept` fail as long as there are no descriptors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.failed = 0
        accept = socket.socket.accept

        def fail(sock: socket.socket) -> Any:
            if not self.on:
                return accept(sock)
            self.failed += 1
            raise TOO_MANY

        monkeypatch.setattr(socket.socket, "accept", fail)


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("loop", [quick_loop(each.values[0], speed=20) for each in LOOPS])
@in_loop
async def test_out_of_descriptors(
    loop: Any, limit: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exhausted = Exhausted(monkeypatch)
    options = {"limit_connections": limit, "timeout_head": 0}
    async with Server(hello, port=0, lifespan="off", **options) as server:
        clients = [Client(server) for _ in range(5)]
        for client in clients:
            client.send(GET)
        await until(lambda: exhausted.failed == 3)
        assert len(caplog.records) == 3
        server._on_gone()  # something is closed: it is tried again, and not logged again
        exhausted.on = False
        for client in clients:
            assert (await asyncio.to_thread(client.response)).body == b"hello"
            client.close()
        lines = [record.getMessage() for record in caplog.records]
        assert set(lines) == {f"can't accept connections, clients have to wait: {TOO_MANY}"}


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_connections_that_wait_are_served_at_a_stop(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exhausted = Exhausted(monkeypatch)
    async with Server(hello, port=0, lifespan="off") as server:
        clients = [Client(server) for _ in range(50)]
        for client in clients:
            client.send(GET)
        await until(lambda: exhausted.failed)
        exhausted.on = False
    for client in clients:
        assert (await asyncio.to_thread(client.response)).body == b"hello"
        client.close()


@pytest.mark.parametrize("loop", [quick_loop(each.values[0], speed=20) for each in LOOPS])
@in_loop
async def test_some_descriptors_stay_free(
    loop: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An app opens files, and the server imports modules when they are needed."""
    async with Server(hello, port=0, lifespan="off", timeout_head=0) as server:
        clients = [Client(server) for _ in range(10)]
        lowest = os.dup(0)
        os.close(lowest)
        monkeypatch.setattr(server._acceptor, "_reserved", lowest + 4)
        await until(lambda: "have to wait" in caplog.text)
        connections = server._context.connections
        assert len([each for each in connections if each.fileno() >= lowest + 4]) <= 1
        for client in clients:
            assert (await asyncio.to_thread(client.response, GET)).body == b"hello"
            client.close()


def test_spare_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for limit, expected in (64, 48), (1024, 992), (resource.RLIM_INFINITY, math.inf):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        assert _first_reserved() == expected
