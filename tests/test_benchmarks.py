"""The benchmarks, without measurements: command lines, frames, reports."""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

if sys.platform != "linux":
    pytest.skip("the benchmarks read /proc", allow_module_level=True)

from benchmarks import results
from benchmarks.environment import Facts
from benchmarks.hotpath import as_additions, as_table
from benchmarks.options import CHANGING, OPTIONS
from benchmarks.process import Process
from benchmarks.report import BEGIN, END, as_markdown, into_readme
from benchmarks.resting import REQUEST
from benchmarks.results import Outcome
from benchmarks.servers import SERVERS, Failure, Setup
from benchmarks.steady import pace
from benchmarks.websocket import MASK, frame
from benchmarks.workloads import HELLO, WORKLOADS

ABOUT: Facts = {
    "date": "2026-01-02",
    "cpu": "a core",
    "cores": 2,
    "kernel": "6.1",
    "rounds": 3,
    "seconds": 2,
    "python": "3.11.7",
    "uvloop": "0.23.0",
}
MEASURED = {
    "hello": {
        "tinyasgi": Outcome([{"value": 300.0}, {"value": 100.0}, {"value": 200.0}]),
        "uvicorn": Outcome([{"value": 80.0}]),
        "granian": Outcome([], "did not start"),
        "floor": Outcome([{"value": 4000.0}]),
    },
    "start": {
        "tinyasgi": Outcome([{"value": 60.0}]),
        "uvicorn": Outcome([{"value": 120.0}]),
    },
    "wakeups": {"tinyasgi": Outcome([{"value": 0.0}]), "granian": Outcome([{"value": 0.0}])},
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    "setup", [HELLO, Setup("apps:ws_echo", websocket=True), Setup("apps:hello", http2=True)]
)
def test_words(name: str, setup: Setup) -> None:
    if setup.http2 and SERVERS[name].http2 is None:
        setup = HELLO
    if SERVERS[name].command is None:
        setup = Setup("wsgi_frameworks:flask_app", wsgi=True)
    words = SERVERS[name].words(setup, host="127.0.0.1", port=8123)
    assert any("8123" in word for word in words)
    assert not any("{" in word for word in words)


def test_a_server_without_what_is_wanted() -> None:
    with pytest.raises(Failure, match="does not support workers"):
        SERVERS["daphne"].words(Setup("apps:hello", workers=2), host="127.0.0.1", port=1)
    with pytest.raises(Failure, match="does not support ASGI"):
        SERVERS["waitress"].words(Setup("apps:hello"), host="127.0.0.1", port=1)
    with pytest.raises(Failure, match="does not support WSGI"):
        SERVERS["daphne"].words(Setup("wsgi_frameworks:flask_app", wsgi=True), port=1)
    with pytest.raises(Failure, match="does not support HTTP/2"):
        SERVERS["daphne"].words(Setup("apps:hello", http2=True), host="127.0.0.1", port=1)


@pytest.mark.parametrize("size", [0, 1, 64, 125, 126, 65535, 65536])
def test_frame(size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    assert frame(data) == Frame(Opcode.BINARY, data).serialize(mask=False)
    masked = frame(data, MASK)
    assert len(masked) == len(frame(data)) + 4
    head = len(masked) - size
    pad = (MASK * (size // 4 + 1))[:size]
    assert bytes(a ^ b for a, b in zip(masked[head:], pad, strict=True)) == data


class Idle(Process):
    """A process that uses no CPU time."""

    def __init__(self) -> None:
        pass

    def cpu_seconds(self) -> float:
        return 0.0


def test_latency_begins_when_a_request_is_due() -> None:
    """The server holds the first response until all requests are due, for longer than 10 ms."""
    near, far = socket.socketpair()
    rate, count, hold = 1000.0, 11, 0.05

    def serve() -> None:
        assert far.recv(1000) == REQUEST
        time.sleep(hold)
        far.sendall(b"response")
        for _ in range(count - 1):
            assert far.recv(1000) == REQUEST
            far.sendall(b"response")

    with near, far, ThreadPoolExecutor(1) as threads:
        served = threads.submit(serve)
        sample = pace(Idle(), [near], len(b"response"), rate, count)
        served.result()
    assert sample["p50 ms"] >= (hold - count / rate) * 1000


def test_report() -> None:
    text = as_markdown(ABOUT, MEASURED, "the command")
    row = next(line for line in text.splitlines() if line.startswith("| Short response to a GET"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3:-1] == ["200", "80", "-", "4,000", "**2.50**"]
    assert "**2.00**" in text  # half the time to start is better by a factor of 2
    assert "- granian: did not start" in text
    assert "the command" in text


def test_readme_is_written_between_its_marks() -> None:
    readme = f"before\n{BEGIN}old\n{END}after\n"
    once = into_readme(readme, ABOUT, MEASURED, "x", "chart.svg")
    assert once.startswith(f"before\n{BEGIN}")
    assert once.endswith(f"{END}after\n")
    assert "old" not in once
    assert "(chart.svg)" in once
    assert into_readme(once, ABOUT, MEASURED, "x", "chart.svg") == once


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", ABOUT, MEASURED)
    assert results.read(tmp_path / "results.json") == (ABOUT, MEASURED)


def test_workloads_are_named_once() -> None:
    abouts = [workload.about for workload in WORKLOADS.values()]
    assert len(set(abouts)) == len(abouts)


def test_additions_of_options() -> None:
    """Each row is compared with the first one of its kind."""
    counts = {row: {"tinyasgi": 100 + n} for n, row in enumerate([*OPTIONS, *CHANGING])}
    first, second, *_, last = as_additions(counts).splitlines()[1:]
    assert first.split()[-2:] == ["100", "+0"]
    assert second.split()[-2:] == ["101", "+1"]
    assert last.split()[-1] == f"+{len(CHANGING) - 1}"


def test_hotpath_table() -> None:
    counts = {"GET": {"tinyasgi": 110, "uvicorn": 220}, "POST": {"uvicorn": 5}}
    table = as_table(counts, {"GET": {"tinyasgi": 100}}).splitlines()
    assert table[1].split() == ["GET", "110", "+10.0%", "220", "0.50"]
    assert table[2].split() == ["POST", "not", "available", "5"]
