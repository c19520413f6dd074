"""The loop in virtual time, its network, and the server on them."""

import asyncio
import errno
from typing import Any

import pytest

from tests.support.helpers import GET, hello
from tests.support.network import SNDBUF, Listener
from tests.support.simulation import footprint, simulated
from tests.support.virtual import Deadlock, VirtualLoop, in_virtual_time, running


@in_virtual_time
async def test_time_jumps() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(3000))
    assert loop.time() == begin + 3000


def test_time_moves_by_hand() -> None:
    fired = []
    with running() as loop:
        for delay in (3, 1, 2):
            loop.call_later(delay, fired.append, delay)
        loop.settle()
        assert fired == []
        loop.advance(2)
        assert fired == [1, 2]
        assert [handle.when() for handle in loop.timers] == [3]
        loop.advance(1)


def test_deadlock() -> None:
    with running() as loop, pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())


def test_endless_callbacks() -> None:
    def again() -> None:
        loop.call_soon(again)

    loop = VirtualLoop()
    loop.call_soon(again)
    with pytest.raises(AssertionError, match="never comes to rest"):
        loop.settle()
    loop.close()


@pytest.mark.parametrize("kind", ["task", "timer", "future", "socket"])
def test_leftovers(kind: str) -> None:
    kept: list[Any] = []

    def leave(loop: VirtualLoop) -> None:
        if kind == "task":
            kept.append(loop.create_task(asyncio.sleep(5)))
        elif kind == "timer":
            loop.call_later(5, print)
        elif kind == "future":
            kept.append(loop.create_future())
        else:
            Listener(loop)

    with pytest.raises(AssertionError), running() as loop:
        leave(loop)


def test_errors() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"), running() as loop:
        loop.call_soon(lambda: 1 / 0)


# A server.


def test_request_and_keep_alive() -> None:
    with simulated(hello, timeout_keep_alive=5) as simulation:
        peer = simulation.connect()
        peer.send(GET)
        simulation.loop.settle()
        assert peer.received.endswith(b"\r\n\r\nhello")
        assert [entry.status for entry in simulation.log] == [200]
        assert 0 < footprint(simulation.connections[0]) < 1000
        simulation.loop.advance(5)
        assert not peer.at_end
        simulation.loop.advance(2)
        assert peer.at_end


def test_write_buffer_and_slow_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for more in (True, False):
            await send({"type": "http.response.body", "body": bytes(200_000), "more_body": more})

    with simulated(app) as simulation:
        peer = simulation.connect()
        peer.set_reading(False)
        peer.send(GET)
        simulation.loop.settle()
        assert len(peer.unread) == SNDBUF
        assert simulation.running == 1
        peer.set_reading(True)
        simulation.loop.settle()
        assert len(peer.received) > 400_000
        assert simulation.running == 0


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
def test_client_leaves(end: str) -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.extend([await receive(), await receive()])

    with simulated(app) as simulation:
        peer = simulation.connect()
        peer.send(GET)
        simulation.loop.settle()
        getattr(peer, end)()
        simulation.loop.settle()
        assert [message["type"] for message in messages] == ["http.request", "http.disconnect"]


def test_planned_failure() -> None:
    with simulated(hello) as simulation:
        simulation.loop.failing[len(simulation.loop.calls)] = errno.EMFILE
        peer = simulation.listener.connect()
        peer.send(GET)
        simulation.loop.settle()
        assert simulation.loop.calls[-1] == "accept"
        assert not peer.received
        simulation.loop.advance(1)
        assert peer.received
