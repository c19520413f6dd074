"""What a server counts, in memory that its processes share: a row of numbers for each of them.

A process writes to its own row only, so nothing is locked and nothing is sent. A row stays when its
process is gone, however that ended, and whoever gets the row next counts on from there: the sum of
all rows never goes back.
"""

import itertools
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..config.config import Config
from ..net import listen

__all__ = ["FAMILIES", "METHODS", "Family", "MetricsRow", "MetricsStore", "page_config"]

#: Bytes of a row: a multiple of any size of memory pages that there is.
ROW = 1 << 16
#: Bytes of a part of it that is looked at as one, and what is in it at first.
PIECE = 1 << 10
NOTHING = bytes(PIECE)
ZEROS = (0.0,) * (PIECE // 8)
#: Statuses that are told apart; 0 stands for none.
STATUSES = 1000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
#: Seconds.
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Connections at once that ask for the numbers: they must not take an app's descriptors.
PAGE_CONNECTIONS = 32
#: Why a worker has ended.
REASONS = ("stopped", "killed", "signal", "failed")
DIRECTIONS = ("received", "sent")


class Family(NamedTuple):
    """A metric as Prometheus knows it, and the cells of a row that hold it."""

    name: str
    kind: str
    text: str
    cells: range
    label: Callable[[int], str]
    """The labels of the cell with this place among them."""
    bounds: tuple[float, ...]
    """Of a histogram: upper ones of its buckets. The last two cells are +Inf and the sum."""


#: All that is in a row, in its order.
FAMILIES: list[Family] = []


def _family(
    name: str,
    kind: str,
    text: str,
    size: int = 1,
    label: Callable[[int], str] = lambda place: "",
    bounds: tuple[float, ...] = (),
) -> int:
    """One more; returns its first cell."""
    first = FAMILIES[-1].cells.stop if FAMILIES else 0
    size = len(bounds) + 2 if bounds else size
    FAMILIES.append(Family(name, kind, text, range(first, first + size), label, bounds))
    return first


def _request_label(place: int) -> str:
    method, status = divmod(place, STATUSES)
    return f'method="{METHODS[method]}",status="{status or "none"}"'


# What a process has at the moment. These come first, and are 0 again when it is gone.
WORKERS = _family("tinyasgi_workers", "gauge", "Processes that serve the app.")
IN_FLIGHT = _family("tinyasgi_requests_in_flight", "gauge", "Requests whose app is running.")
CONNECTIONS = _family("tinyasgi_connections_open", "gauge", "Connections that are open.")
WEBSOCKETS = _family("tinyasgi_websockets_open", "gauge", "WebSocket sessions that are open.")
GAUGES = range(WEBSOCKETS + 1)

# What it has counted.
REQUESTS = _family(
    "tinyasgi_requests_total",
    "counter",
    "Requests that are over.",
    len(METHODS) * STATUSES,
    _request_label,
)
ABORTED = _family(
    "tinyasgi_requests_aborted_total",
    "counter",
    "Requests that ended before their response was complete.",
)
DURATION = _family(
    "tinyasgi_request_duration_seconds",
    "histogram",
    "Time from the head of a request to the end of its response.",
    bounds=DURATIONS,
)
SENT = _family(
    "tinyasgi_response_body_bytes_total",
    "counter",
    "Bytes of response bodies, and of messages sent to WebSockets.",
)
ACCEPTED = _family(
    "tinyasgi_connections_accepted_total", "counter", "Connections that were accepted."
)
SESSIONS = _family(
    "tinyasgi_websockets_accepted_total", "counter", "WebSocket sessions that the app accepted."
)
MESSAGES = _family(
    "tinyasgi_websocket_messages_total",
    "counter",
    "WebSocket messages, as the app sees them.",
    len(DIRECTIONS),
    lambda place: f'direction="{DIRECTIONS[place]}"',
)
LAG = _family(
    "tinyasgi_event_loop_lag_seconds",
    "histogram",
    "How late the event loop is, looked at once a second while there are connections.",
    bounds=LAGS,
)

# What is written by whoever starts the processes.
EXITS = _family(
    "tinyasgi_worker_exits_total",
    "counter",
    "Workers that have ended, by what ended them.",
    len(REASONS),
    lambda place: f'reason="{REASONS[place]}"',
)
START = _family(
    "process_start_time_seconds", "gauge", "When the server started, in seconds of Unix time."
)

_unpack = struct.Struct(f"{PIECE // 8}d").unpack


class MetricsRow(NamedTuple):
    """What a worker has to know of it."""

    file: int
    row: int
    listeners: int
    """How many of its sockets are for the metrics; they are the last ones."""


class MetricsStore:
    """The rows, and the listeners where their sum can be asked for.

    file: the descriptor of the memory. row: that of this process; row 0 is the supervisor's.
    """

    def __init__(self, file: int, listeners: list[socket.socket], row: int) -> None:
        self.file = file
        self.listeners = listeners
        self.row = row
        self.url = _url(listeners[0])
        self._files = listen.files(listeners)

    @classmethod
    def of(cls, metrics_row: MetricsRow, sockets: list[socket.socket]) -> "MetricsStore":
        """That of a worker; its listeners are the last of the sockets it was given."""
        os.set_inheritable(metrics_row.file, False)
        return cls(metrics_row.file, sockets[-metrics_row.listeners :], metrics_row.row)

    @classmethod
    def open(cls, config: Config, row: int) -> "MetricsStore":
        """Listens where `config` says, and makes the memory. Raises ListenError.

        The app's addresses are bound after that: only a listener keeps others from its address.
        """
        listeners = listen.bind(page_config(config))
        for sock in listeners:
            sock.listen(config.backlog)
        metrics_store = cls(_memory(), listeners, row)
        metrics_store._reach(row)
        metrics_store.cells(0)[START] = time.time()
        return metrics_store

    def copy(self) -> "MetricsStore":
        """The same for another owner."""
        return MetricsStore(os.dup(self.file), [sock.dup() for sock in self.listeners], self.row)

    def close(self) -> None:
        """Gives back what an owner has."""
        os.close(self.file)
        for sock in self.listeners:
            sock.close()
        listen.release(self._files)

    def cells(self, row: int) -> "memoryview[float]":
        """The numbers of a row, to be written to."""
        return memoryview(mmap.mmap(self.file, ROW, offset=row * ROW)).cast("d")

    def total(self) -> list[float]:
        """The sum of all rows. Most statuses never occur: what is all 0 costs next to nothing."""
        with mmap.mmap(self.file, 0, access=mmap.ACCESS_READ) as memory:
            data = memory[:]
        total: list[float] = []
        for first in range(0, ROW, PIECE):
            pieces = [data[start : start + PIECE] for start in range(first, len(data), ROW)]
            used = [_unpack(piece) for piece in pieces if piece != NOTHING] or [ZEROS]
            total += map(sum, zip(*used, strict=True))
        return total

    def _reach(self, row: int) -> None:
        """Makes room for a row. Only one process may: another one's room would be taken away."""
        end = (row + 1) * ROW
        if os.fstat(self.file).st_size < end:
            os.ftruncate(self.file, end)

    # For a supervisor.

    def new_row(self, taken: Iterable[int]) -> MetricsRow:
        """For a new process: with the first row that is not taken."""
        others = {0, self.row, *taken}
        row = next(row for row in itertools.count() if row not in others)
        self._reach(row)
        return MetricsRow(self.file, row, len(self.listeners))

    def leave(self, row: int, reason: str) -> None:
        """The process of a row is gone."""
        cells = self.cells(row)
        for cell in GAUGES:
            cells[cell] = 0.0
        self.cells(0)[EXITS + REASONS.index(reason)] += 1.0

    def renew(self) -> None:
        """This process is a supervisor from here on, in a new program."""
        os.set_inheritable(self.file, False)
        if self.row:
            self.leave(self.row, "stopped")
            self.row = 0


def page_config(config: Config) -> Config:
    """The options of the small server that shows the metrics."""
    assert config.metrics_bind is not None
    return Config(
        bind=(config.metrics_bind,),
        uds_mode=config.uds_mode,
        uds_group=config.uds_group,
        http=config.http,
        lifespan="off",
        ws="none",
        access_log=False,
        limit_connections=PAGE_CONNECTIONS,
        timeout_graceful_shutdown=1.0,
    )


def _url(listener: socket.socket) -> str:
    address = listen.address(listener, tls=False)
    return address if address.startswith("unix:") else f"{address}/metrics"


def _memory() -> int:
    """Memory that can be shared by its descriptor, and is gone with the last one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tinyasgi-metrics")
    import tempfile  # not before it is needed

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
