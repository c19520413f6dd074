"""The workloads: what is asked of a server, what it must answer, and how it is measured."""

from __future__ import annotations

import json
import math
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection

from . import apps
from .servers import HOST, Failure, Process, fetch

WRK_CONNECTIONS = 64
IDLE_CONNECTIONS = 1000
STARTS = 5

Launch = Callable[[], AbstractContextManager[Process]]
Sample = dict[str, float]  # "value", in the unit of the workload; other keys name their units
Measure = Callable[[Launch, "Workload", int], Sample]

# Times are in microseconds. wrk makes the request, or the batch of them, only once.
SCRIPT = """
wrk.method, wrk.body = "%(method)s", %(body)s
if %(pipeline)d > 1 then
  local batch
  init = function() batch = string.rep(wrk.format(), %(pipeline)d) end
  request = function() return batch end
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %%d, "us": %%d, "errors": %%d, "p50": %%d, "p99": %%d, "p99.9": %%d}',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    about: str
    measure: Measure
    app: str = "hello"
    answer: bytes = apps.GREETING
    body: bytes = b""  # printable ASCII; a request that has one is a POST
    log: bool = False
    pipeline: int = 1  # requests that are written at once
    unit: str = "requests/s"
    more_is_better: bool = True

    def check(self, port: int) -> None:
        """Fail unless the answer is right, byte for byte: a wrong answer has no speed."""
        status, body = fetch(port, self.body)
        if status != 200 or body != self.answer:
            raise Failure(f"wrong answer: status {status}, {len(body)} bytes")
        if self.pipeline > 1:
            request = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
            batch = (request + b"\r\n") * (self.pipeline - 1) + request
            with socket.create_connection((HOST, port), timeout=10) as connection:
                connection.sendall(batch + b"Connection: close\r\n\r\n")
                received = b"".join(iter(lambda: connection.recv(65536), b""))
            if received.count(b"HTTP/1.1 200 ") != self.pipeline or (
                received.count(self.answer) != self.pipeline
            ):
                raise Failure(f"wrong answer to {self.pipeline} pipelined requests")


def load(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure requests per second under wrk, after a second in which the server warms up.

    A share of CPU well below 100 % means that wrk, not the server, was the limit. The requests
    that are under way when the time ends (64 at most) cost CPU and are not counted.

    wrk corrects its latencies for the requests that it could not send while it waited. It takes a
    batch for one of them, which makes nonsense of it: pipelined requests have no latency here.
    """
    fill = {"method": "POST" if workload.body else "GET", "pipeline": workload.pipeline}
    fill["body"] = json.dumps(workload.body.decode("ascii")) if workload.body else "nil"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, launch() as process:
        script.write(SCRIPT % fill)
        script.flush()
        workload.check(process.port)
        wrk(process.port, script.name, 1)
        before = process.cpu_seconds()
        result = wrk(process.port, script.name, seconds)
        cpu = process.cpu_seconds() - before
    elapsed = result["us"] / 1e6
    sample = {
        "value": result["requests"] / elapsed,
        "CPU µs/request": cpu / result["requests"] * 1e6,
        "CPU %": cpu / elapsed * 100,
    }
    if workload.pipeline == 1:
        sample |= {f"{name} ms": result[name] / 1000 for name in ("p50", "p99", "p99.9")}
    return sample


def wrk(port: int, script: str, seconds: int) -> dict[str, float]:
    """Run wrk (which inherits this process's core) and return what the script printed."""
    options = [f"-c{WRK_CONNECTIONS}", f"-d{seconds}s", "-t1", "--timeout=10s", f"-s{script}"]
    command = ["wrk", *options, f"http://{HOST}:{port}/"]
    limit = seconds + 30
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    if run.returncode:
        raise Failure(f"wrk: {run.stderr.strip()}")
    result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    if result["errors"] or not result["requests"]:
        raise Failure(f"{result['errors']} errors, {result['requests']} answers under load")
    return result


def start(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure from spawn to first answer: the best of a few, as noise can only add to it."""
    best = math.inf
    for _ in range(STARTS):
        with launch() as process:
            workload.check(process.port)
            best = min(best, process.start_ms)
    return {"value": best}


def memory_idle(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the memory of all of a server's processes once it has answered."""
    with launch() as process:
        workload.check(process.port)
        return {"value": process.memory_kib() / 1024}


def memory_connection(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure what the server keeps for an open connection that waits for its next request."""
    with launch() as process, ExitStack() as stack:
        workload.check(process.port)
        before = process.memory_kib()
        poll = select.poll()
        for _ in range(IDLE_CONNECTIONS):
            connection = stack.enter_context(closing(HTTPConnection(HOST, process.port, 80)))
            connection.request("GET", "/")
            connection.getresponse().read()
            poll.register(connection.sock, select.POLLIN)
        time.sleep(0.2)  # what the server does after its last answer is done by now
        grown = process.memory_kib() - before
        if poll.poll(0):
            raise Failure("closed connections that should be kept alive")
    return {"value": grown / IDLE_CONNECTIONS}


BODY = b"tinyasgi" * 128  # 1 KiB
STREAM = apps.PIECE * apps.PIECES
EVENTS = b"".join(apps.EVENTS)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("hello", "A short answer to a GET request", load),
        Workload("hello-log", "The same, with the access log on", load, log=True),
        Workload("pipelined", "The same, 16 requests at once", load, pipeline=16),
        Workload("post-1k", "Echo of 1 KiB", load, "echo", BODY, BODY),
        Workload("post-64k", "Echo of 64 KiB", load, "echo", BODY * 64, BODY * 64),
        Workload("stream-4m", "4 MiB in pieces of 64 KiB", load, "stream", STREAM),
        Workload("events-100", "100 events of some 16 bytes", load, "events", EVENTS),
        Workload("start", "From spawn to first answer", start, unit="ms", more_is_better=False),
        Workload(
            "memory-idle",
            "Memory (PSS) after the first requests",
            memory_idle,
            unit="MiB",
            more_is_better=False,
        ),
        Workload(
            "memory-connection",
            "Memory (PSS) per idle keep-alive connection, of 1000",
            memory_connection,
            unit="KiB",
            more_is_better=False,
        ),
    )
}
