"""Types of a measurement: a workload, and the sample of one server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import quantiles

from .process import Process, fetch
from .servers import Failure, Setup

#: Percentiles of the latency.
PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99)

Launch = Callable[[], AbstractContextManager[Process]]
#: "value" is in the unit of the workload. The names of other keys contain their units.
Sample = dict[str, float]
Measure = Callable[[Launch, "Workload", int], Sample]


def percentiles(times: list[float]) -> Sample:
    """Return the percentiles of latencies in ms. times: latencies in seconds."""
    cuts = quantiles(times, n=10_000, method="inclusive")
    return {f"p{p:g} ms": cuts[round(p * 100) - 1] * 1000 for p in PERCENTILES}


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table: the request, the expected response and the measurement."""

    name: str
    about: str
    measure: Measure
    setup: Setup
    answer: bytes
    body: bytes = b""
    """Body of a POST request (printable ASCII), or WebSocket message."""
    headers: tuple[tuple[str, str], ...] = ()
    """Request headers besides those of the client."""
    pipeline: int = 1
    """Number of pipelined requests."""
    streams: int = 1
    """Number of HTTP/2 streams per connection."""
    connections: int = 64
    unit: str = "requests/s"
    more_is_better: bool = True

    def check(self, process: Process) -> None:
        """Raise Failure unless the response is correct, byte for byte."""
        status, body = fetch(process.port, self.body, process.tls)
        if status != 200 or body != self.answer:
            raise Failure(f"wrong response: status {status}, {len(body)} bytes")
