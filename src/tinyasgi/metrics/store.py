"""Metrics in memory that all processes of a server share, with one shard for each process.

A process writes to its own shard only, so neither a lock nor a message is needed. A shard outlives
its process, and the next process with the same shard continues its counters. So the sum of all
shards never decreases.
"""

import itertools
import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..config.config import Config
from ..net import listen

#: Bytes of a shard: a multiple of the size of memory pages on every platform.
SHARD_SIZE = 1 << 16
#: Bytes of a block. `totals` skips the blocks that contain only zeros.
BLOCK_SIZE = 1 << 10
EMPTY_BLOCK = bytes(BLOCK_SIZE)
_unpack_block = struct.Struct(f"{BLOCK_SIZE // 8}d").unpack

#: Maximum number of connections to the metrics page, so that they cannot use up the file
#: descriptors of the process.
MAX_PAGE_CONNECTIONS = 32

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
#: Statuses as an index. 0 stands for a response without a status.
STATUSES = ("none", *range(1, 1000))
#: Upper bounds of the histograms, in seconds.
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DURATIONS = (*LAGS, 30.0)
#: Reasons for the exit of a worker; docs/metrics.md explains them.
EXIT_REASONS = ("stopped", "killed", "signal", "failed")


class Family(NamedTuple):
    """One Prometheus metric, and the position of its values in a shard."""

    name: str
    help: str
    indexes: range
    labels: Mapping[str, Sequence[object]]
    """All values of each label. There is one number for each combination of them."""
    bounds: tuple[float, ...]
    """Upper bounds of the buckets of a histogram. The bucket `+Inf` and the sum follow them."""

    @property
    def kind(self) -> str:
        """The metric type, derived from Prometheus' naming conventions."""
        if self.bounds:
            return "histogram"
        return "counter" if self.name.endswith("_total") else "gauge"


#: All metrics of a shard, in the order of their values.
FAMILIES: list[Family] = []


def _metric(
    name: str,
    text: str,
    labels: Mapping[str, Sequence[object]] | None = None,
    bounds: tuple[float, ...] = (),
) -> int:
    """Append a metric to FAMILIES; return the index of its first value."""
    labels = labels or {}
    first = FAMILIES[-1].indexes.stop if FAMILIES else 0
    size = len(bounds) + 2 if bounds else math.prod(map(len, labels.values()))
    FAMILIES.append(Family(name, text, range(first, first + size), labels, bounds))
    return first


# Gauges come first. They are reset to 0 when a process exits.
WORKERS = _metric("tinyasgi_workers", "Processes that serve the app.")
IN_FLIGHT = _metric("tinyasgi_requests_in_flight", "Requests whose app is running.")
CONNECTIONS = _metric("tinyasgi_connections_open", "Open connections.")
WEBSOCKETS = _metric("tinyasgi_websockets_open", "Open WebSocket sessions.")
GAUGES = range(WEBSOCKETS + 1)

# Counters and histograms of a process.
REQUESTS = _metric(
    "tinyasgi_requests_total", "Finished requests.", {"method": METHODS, "status": STATUSES}
)
ABORTED = _metric(
    "tinyasgi_requests_aborted_total", "Finished requests whose response is incomplete."
)
DURATION = _metric(
    "tinyasgi_request_duration_seconds",
    "Time from the head of a request to the end of its response.",
    bounds=DURATIONS,
)
SENT = _metric(
    "tinyasgi_response_body_bytes_total",
    "Bytes of response bodies, and of messages sent to WebSockets.",
)
ACCEPTED = _metric("tinyasgi_connections_accepted_total", "Accepted connections.")
SESSIONS = _metric(
    "tinyasgi_websockets_accepted_total", "WebSocket sessions that the app accepted."
)
MESSAGES_RECEIVED = _metric(
    "tinyasgi_websocket_messages_total",
    "WebSocket messages that the app received and sent.",
    {"direction": ("received", "sent")},
)
MESSAGES_SENT = MESSAGES_RECEIVED + 1
LAG = _metric(
    "tinyasgi_event_loop_lag_seconds",
    "Delay of a timer in the event loop, measured once a second while there are connections.",
    bounds=LAGS,
)

# Values of shard 0, which belongs to the supervisor.
EXITS = _metric("tinyasgi_worker_exits_total", "Exited workers.", {"reason": EXIT_REASONS})
START = _metric("process_start_time_seconds", "Unix time of the server's start, in seconds.")


class MetricsSpec(NamedTuple):
    """The part of a metrics store that a supervisor passes to a worker."""

    file: int
    """File descriptor of the shared memory."""
    shard: int
    listeners: int
    """Number of sockets for the metrics page. They are the last sockets of the worker."""


class MetricsStore:
    """The shared memory, and the listening sockets of the metrics page.

    file: file descriptor of the memory. shard: number of the shard of this process; a supervisor
    has shard 0.
    """

    def __init__(self, file: int, listeners: list[socket.socket], shard: int) -> None:
        self.file = file
        self.listeners = listeners
        self.shard = shard
        self.url = _url(listeners[0])
        self._files = listen.socket_files(listeners)

    @classmethod
    def create(cls, config: Config, shard: int) -> "MetricsStore":
        """Listen on `metrics_bind` and create the memory. Raises ListenError.

        Call it before the app's addresses are bound. Two sockets can be bound to the same address
        until one of them listens.
        """
        listeners = listen.bind(page_config(config))
        for sock in listeners:
            sock.listen(config.backlog)
        store = cls(_shared_memory(), listeners, shard)
        store._grow(shard)
        store.values(0)[START] = time.time()
        return store

    @classmethod
    def attach(cls, spec: MetricsSpec, sockets: list[socket.socket]) -> "MetricsStore":
        """Return the store of a worker, which has inherited `sockets`."""
        os.set_inheritable(spec.file, False)
        return cls(spec.file, sockets[-spec.listeners :], spec.shard)

    def close(self) -> None:
        """Close the memory and the sockets; remove the files of unix sockets."""
        os.close(self.file)
        for sock in self.listeners:
            sock.close()
        listen.remove_files(self._files)

    def values(self, shard: int) -> "memoryview[float]":
        """Return the numbers of a shard, writable."""
        return memoryview(mmap.mmap(self.file, SHARD_SIZE, offset=shard * SHARD_SIZE)).cast("d")

    def totals(self) -> list[float]:
        """Return the sum of all shards. Most statuses never occur, so most blocks are skipped."""
        with mmap.mmap(self.file, 0, access=mmap.ACCESS_READ) as memory:
            data = memory[:]
        zeros = _unpack_block(EMPTY_BLOCK)
        totals: list[float] = []
        for first in range(0, SHARD_SIZE, BLOCK_SIZE):
            blocks = [data[at : at + BLOCK_SIZE] for at in range(first, len(data), SHARD_SIZE)]
            used = [_unpack_block(block) for block in blocks if block != EMPTY_BLOCK]
            totals += map(sum, zip(*(used or [zeros]), strict=True))
        return totals

    def _grow(self, shard: int) -> None:
        """Extend the memory to hold a shard.

        Only one process may call it: `ftruncate` to an outdated size would cut off newer shards.
        """
        size = (shard + 1) * SHARD_SIZE
        if os.fstat(self.file).st_size < size:
            os.ftruncate(self.file, size)

    # Methods for a supervisor.

    def allocate(self, taken: Iterable[int]) -> MetricsSpec:
        """Allocate the first shard that is not in `taken`, for a new process."""
        used = {0, self.shard, *taken}
        shard = next(number for number in itertools.count() if number not in used)
        self._grow(shard)
        return MetricsSpec(self.file, shard, len(self.listeners))

    def retire(self, shard: int, reason: str) -> None:
        """Reset the gauges of an exited process. Count its exit under one of EXIT_REASONS."""
        values = self.values(shard)
        for index in GAUGES:
            values[index] = 0.0
        self.values(0)[EXITS + EXIT_REASONS.index(reason)] += 1.0


def page_config(config: Config) -> Config:
    """Return the configuration of the server for the metrics page."""
    assert config.metrics_bind is not None
    return Config(
        bind=(config.metrics_bind,),
        uds_mode=config.uds_mode,
        uds_group=config.uds_group,
        http=config.http,
        lifespan="off",
        ws="none",
        access_log=False,
        limit_connections=MAX_PAGE_CONNECTIONS,
        timeout_graceful_shutdown=1.0,
    )


def _url(listener: socket.socket) -> str:
    address = listen.address(listener, tls=False)
    return address if address.startswith("unix:") else f"{address}/metrics"


def _shared_memory() -> int:
    """Return a descriptor of memory that exists until its last descriptor is closed."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tinyasgi-metrics")
    import tempfile  # lazy: needed only on platforms without memfd_create

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
