"""What a measurement is: a workload, run on a server that is launched for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from .process import Process, fetch
from .servers import Failure, Setup

__all__ = ["PERCENTILES", "Launch", "Measure", "Sample", "Workload"]

#: Of latencies; what is asked for at the end of a load.
PERCENTILES = (50, 75, 90, 95, 99, 99.5, 99.9, 99.99)

Launch = Callable[[], AbstractContextManager[Process]]
#: "value", in the unit of the workload; other keys name their units.
Sample = dict[str, float]
Measure = Callable[[Launch, "Workload", int], Sample]


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table: what is asked of a server, what it must answer, how it is measured."""

    name: str
    about: str
    measure: Measure
    setup: Setup
    answer: bytes
    body: bytes = b""
    """Printable ASCII; a request that has one is a POST. Or a WebSocket message."""
    fields: tuple[tuple[str, str], ...] = ()
    """Request fields, beside those of the client."""
    pipeline: int = 1
    """Requests that are written at once."""
    connections: int = 64
    unit: str = "requests/s"
    more_is_better: bool = True

    def check(self, process: Process) -> None:
        """Fails unless the answer is right, byte for byte: a wrong answer has no speed."""
        status, body = fetch(process.port, self.body, process.tls)
        if status != 200 or body != self.answer:
            raise Failure(f"wrong answer: status {status}, {len(body)} bytes")
