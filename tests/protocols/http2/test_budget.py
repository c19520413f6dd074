"""Limits for a client within one second: exactly as many events as a limit says are allowed."""

from collections.abc import Callable

import pytest

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.budget import (
    FRAMES_PER_DATA,
    MAX_CONTINUATIONS,
    MAX_CONTROL_FRAMES,
    MAX_FAULT_LINES,
    MAX_FAULTS,
    Budget,
)
from tinyasgi.protocols.http2.frames import ConnectionFault, ErrorCode

from .cases import BLOCK, CALM, PING, RST, WAIT, get, number
from .client import Client, raw
from .test_connection import App


def allowed(count: Callable[[], None]) -> int:
    """Return how many events pass before the first that is too much."""
    for passed in range(10_000):
        try:
            count()
        except ConnectionFault as fault:
            assert fault.code is ErrorCode.ENHANCE_YOUR_CALM
            return passed
    raise AssertionError("no limit")


@pytest.mark.parametrize("used", [0, 1, MAX_FAULTS])
def test_faults_of_a_second(used: int) -> None:
    budget = Budget()
    for _ in range(used):
        budget.on_fault()
    assert allowed(budget.on_fault) == MAX_FAULTS - used
    budget.refill()
    assert allowed(budget.on_fault) == MAX_FAULTS


def test_responses_allow_faults() -> None:
    budget = Budget()
    for _ in range(10):
        budget.on_response()  # nothing is saved up
    for _ in range(30):
        budget.on_fault()
    for _ in range(10):
        budget.on_response()
    assert allowed(budget.on_fault) == MAX_FAULTS - 20


def test_first_faults_are_logged() -> None:
    budget = Budget()
    logged = []
    for _ in range(2 * MAX_FAULT_LINES):
        budget.on_fault()
        logged.append(budget.logs_faults)
    assert logged == [True] * MAX_FAULT_LINES + [False] * MAX_FAULT_LINES


def test_control_frames() -> None:
    budget = Budget()
    assert allowed(budget.on_control_frame) == MAX_CONTROL_FRAMES
    budget.refill()
    assert allowed(budget.on_control_frame) == MAX_CONTROL_FRAMES
    budget.on_request()
    assert allowed(budget.on_control_frame) == MAX_CONTROL_FRAMES


def test_data_allows_control_frames() -> None:
    budget = Budget()
    budget.on_data_sent(3)
    budget.refill()
    budget.on_request()  # neither takes away what data has allowed
    assert allowed(budget.on_control_frame) == MAX_CONTROL_FRAMES + 3 * FRAMES_PER_DATA


# Which frames count.


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("kind", ["reset", "malformed", "refused"])
def test_which_streams_count(kind: str, excess: int) -> None:
    app = App()
    options = {"limit_concurrency": 1} if kind == "refused" else {}
    with simulated(app, **options) as server:
        client = Client(server).get(1, path="/wait")
        for stream_id in range(3, 3 + 2 * (MAX_FAULTS + excess), 2):
            if kind == "reset":
                client.send(get(stream_id, WAIT), raw(RST, 0, stream_id, number(8)))
            elif kind == "malformed":
                client.send(get(stream_id, b"\x82"))
            else:
                client.send(get(stream_id))
        assert client.goaway is (CALM if excess else None)
        app.go.set()


def test_large_responses_allow_pings() -> None:
    with simulated(App()) as server:
        client = Client(server, INITIAL_WINDOW_SIZE=1 << 30).enlarge(0, 1 << 30)
        client.get(1, path="/large")
        allowed = MAX_CONTROL_FRAMES + FRAMES_PER_DATA * len(client.body(1)) // (1 << 14)
        client.send(raw(PING, 0, 0, b"x" * 8) * allowed)
        assert client.goaway is None
        client.send(raw(PING, 0, 0, b"x" * 8) * FRAMES_PER_DATA * 2)
        assert client.goaway is CALM


@pytest.mark.parametrize("excess", [0, 1])
def test_most_continuations(excess: int) -> None:
    with simulated(App()) as server:
        client = Client(server)
        for stream_id in (1, 3):  # each block has its own count
            count = MAX_CONTINUATIONS + excess * (stream_id == 3)
            frames = [raw(1, 1, stream_id, BLOCK), *[raw(9, 0, stream_id)] * (count - 1)]
            client.send(*frames, raw(9, 4, stream_id))
        assert client.status(1) == 200
        assert client.goaway is (CALM if excess else None)
