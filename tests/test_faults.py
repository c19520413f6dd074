"""System calls that fail: each one once, at each place where a server makes it.

A story in virtual time makes all calls that a server needs on sockets. It is told again for each
call and each error that the call may have. The server must go on, or must not start.
"""

import errno
from collections import Counter
from traceback import extract_tb
from typing import Any

import pytest

from tests.protocols.websocket.helpers import HANDSHAKE, masked
from tests.support.helpers import GET, upload
from tests.support.simulation import Simulation, simulated

#: The errors that are tried.
ERRORS = {
    "accept": [errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED, errno.EPERM],
    "getpeername": [errno.ENOTCONN],
    "getsockname": [errno.EINVAL],
    "getsockopt": [errno.ENOPROTOOPT],
    "listen": [errno.EADDRINUSE],
    "recv": [errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM],
    "register": [errno.ENOMEM, errno.ENOSPC],
    "send": [errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS],
    "sendmsg": [errno.EPIPE, errno.ENOBUFS],
    "setsockopt": [errno.EINVAL, errno.ENOPROTOOPT],
    "shutdown": [errno.ENOTCONN],
}
#: Connections at once.
LIMIT = 4
CLOSE = b"Connection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    while scope["path"] != "/early" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200})
    if scope["path"] == "/large":
        for _ in range(4):
            message = {"type": "http.response.body", "body": bytes(50_000), "more_body": True}
            await send(message)
    await send({"type": "http.response.body", "body": b"end"})


def tell(simulation: Simulation) -> None:
    """The story: requests, an upload, a slow reader, a WebSocket, and clients that leave."""
    loop = simulation.loop
    # The last one waits until another leaves, because of `limit_connections`.
    keeps, slow, socket, late, waits = (simulation.connect() for _ in range(5))
    keeps.send(GET)
    slow.set_reading(False)
    slow.send(GET.replace(b" / ", b" /large "))
    socket.send(HANDSHAKE)
    late.send(GET[:20])
    waits.send(GET)
    loop.settle()
    assert len(simulation.connections) <= LIMIT
    keeps.send(upload(100_000) + bytes(100_000))
    socket.send(masked(0x81, b"hello"))
    loop.advance(3)
    slow.set_reading(True)
    socket.send(masked(0x88, b"\x03\xe8"))
    loop.settle()
    if not keeps.has_shut:
        keeps.send(GET[:-2] + CLOSE)
    slow.half_close()
    late.send(GET[20:])
    loop.settle()
    early = simulation.connect()
    early.send(upload(1_000_000).replace(b" / ", b" /early ")[:-2] + CLOSE + bytes(100_000))
    late.reset()
    waits.close()
    loop.advance(1)
    early.close()
    loop.advance(3)


def calls() -> list[str]:
    """The calls of the story, if none fails."""
    with simulated(app, limit_connections=LIMIT) as simulation:
        tell(simulation)
        return simulation.loop.calls


CALLS = calls()


ROWS = [
    pytest.param(name, number, id=f"{name}-{errno.errorcode[number]}")
    for name in sorted(set(CALLS))
    for number in ERRORS[name]
]


def test_all_calls_are_tried() -> None:
    assert set(CALLS) >= set(ERRORS) - {"sendmsg"}, Counter(CALLS)


@pytest.mark.parametrize(("name", "number"), ROWS)
def test_server_goes_on(name: str, number: int) -> None:
    places = [place for place, call in enumerate(CALLS) if call == name]
    if name == "setsockopt":  # asyncio leaks a transport that refuses TCP_NODELAY; none does
        places = [place for place in places if place < CALLS.index("accept")]
    for place in places:
        tell_with_fault(place, number)


def tell_with_fault(place: int, number: int) -> None:
    with simulated(app, limit_connections=LIMIT, failing={place: number}) as simulation:
        if simulation.main.done():  # it did not start, and left nothing behind
            assert isinstance(simulation.main.exception(), OSError)
            assert CALLS[place] in ("getsockname", "listen", "register")
            simulation.listener.close()
            return
        tell(simulation)
        # A further client is served.
        peer = simulation.connect()
        peer.send(GET)
        simulation.loop.advance(2)
        assert peer.received.endswith(b"end"), f"call {place} of {CALLS}"
        check_errors(simulation, CALLS[place], number)
        if number == errno.ECONNABORTED:  # only the client has left
            assert not [each for each in simulation.records if each.levelname == "ERROR"]


def check_errors(simulation: Simulation, name: str, number: int) -> None:
    """Only asyncio's own callbacks, and apps that they call, may get the error of a selector."""
    errors = [context["exception"] for context in simulation.loop.errors]
    errors += [record.exc_info[1] for record in simulation.records if record.exc_info]
    if name == "register":
        places = {frame.filename for each in errors for frame in extract_tb(each.__traceback__)}
        assert not any(place.endswith("accept.py") for place in places)
        simulation.loop.errors.clear()
        errors = [error for error in errors if getattr(error, "errno", 0) != number]
    assert not errors
