"""Recording of metrics, and the page that shows them in Prometheus' text format 0.0.4.

Without `metrics_bind` requests cost nothing extra, because `Metrics` wraps the app and the
callbacks only if it is created.
"""

import asyncio
import platform
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import Any

from .._version import __version__
from ..http.response import PLAIN_TEXT
from ..protocols.context import Context
from ..protocols.exchange import Exchange
from ..protocols.states import LOST, REFUSED
from ..typing import App, Message, Receive, Scope, Send
from . import store
from .store import DURATIONS, LAGS, METHODS, STATUSES, Family, MetricsStore

CONTENT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
#: The status of a WebSocket. The duration of a session is not a response time.
SWITCHING_PROTOCOLS = 101

#: Index of the first value of each method.
_FIRST = {method: store.REQUESTS + len(STATUSES) * n for n, method in enumerate(METHODS)}
_FIRST_OF_OTHERS = _FIRST["other"]
_DURATION_SUM = store.DURATION + len(DURATIONS) + 1
_LAG_SUM = store.LAG + len(LAGS) + 1


class Metrics:
    """Metrics of a context in the shard of this process, and the page with the sums."""

    _context: Context

    def __init__(self, metrics_store: MetricsStore) -> None:
        self._store = metrics_store
        self._values = metrics_store.values(metrics_store.shard)
        self._timer: asyncio.TimerHandle | None = None

    def start(self, context: Context) -> None:
        """Count this process as a worker. Called after lifespan startup.

        context: a context that calls `observed`, `count` and `on_tick`.
        """
        self._context = context
        self._values[store.WORKERS] = 1.0

    # Events.

    def count(self, exchange: Exchange) -> None:
        """Count a finished exchange."""
        values = self._values
        duration = time.perf_counter() - exchange.started
        status = exchange.status
        if exchange.phase is LOST:
            values[store.ABORTED] += 1.0
            if not 0 <= status < len(STATUSES):
                status = 0  # not sent, so not validated
        values[_FIRST.get(exchange.line.method, _FIRST_OF_OTHERS) + status] += 1.0
        values[store.SENT] += exchange.sent
        if status != SWITCHING_PROTOCOLS and exchange.phase is not REFUSED:
            values[store.DURATION + bisect_left(DURATIONS, duration)] += 1.0
            values[_DURATION_SUM] += duration

    def observed(self, app: App) -> App:
        """Wrap the app to observe its WebSockets."""

        def observed(scope: Scope, receive: Receive, send: Send) -> Any:
            if scope["type"] == "websocket":
                return self._run_websocket(app, scope, receive, send)
            return app(scope, receive, send)

        return observed

    async def _run_websocket(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; count the messages of a WebSocket, and the session while it is open."""
        values, is_open = self._values, 0.0

        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                values[store.MESSAGES_RECEIVED] += 1.0
            return message

        async def counted_send(message: Message) -> None:
            nonlocal is_open
            await send(message)
            if message["type"] == "websocket.send":
                values[store.MESSAGES_SENT] += 1.0
            elif message["type"] == "websocket.accept":
                is_open = 1.0
                values[store.WEBSOCKETS] += 1.0
                values[store.SESSIONS] += 1.0

        try:
            await app(scope, counted_receive, counted_send)
        finally:
            values[store.WEBSOCKETS] -= is_open

    def count_connection(self) -> None:
        """Count an accepted connection."""
        self._values[store.ACCEPTED] += 1.0

    def on_tick(self, late: float) -> None:
        """Record the event loop lag. late: seconds by which a timer of one second was late."""
        late = max(late, 0.0)  # a timer may be early by the resolution of the clock
        self._values[store.LAG + bisect_left(LAGS, late)] += 1.0
        self._values[_LAG_SUM] += late
        self._poll_gauges()

    def _poll_gauges(self) -> None:
        """Update the gauges now, and each second while apps run but the context does not tick.

        A context ticks while it has connections. An app may outlive its connection.
        """
        self._update_gauges()
        context = self._context
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if context.running and not context.connections:
            self._timer = context.loop.call_later(1.0, self._poll_gauges)

    def _update_gauges(self) -> None:
        self._values[store.CONNECTIONS] = len(self._context.connections)
        self._values[store.IN_FLIGHT] = len(self._context.running)

    # The page.

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI app that serves `/metrics`."""
        headers, status, body = [PLAIN_TEXT], 200, b""
        if scope["path"] != "/metrics":
            status, body = 404, b"the metrics are at /metrics\n"
        elif scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"use GET or HEAD\n"
            headers.append((b"allow", b"GET, HEAD"))
        else:
            self._update_gauges()
            body = "".join(self._text()).encode()
            headers = [CONTENT_TYPE]
        # Another process may answer the next scrape. An idle connection would keep a timer running.
        headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _text(self) -> Iterator[str]:
        build = {
            "version": __version__,
            "parser": type(self._context.parser).__module__.rpartition(".")[2],
            "loop": type(self._context.loop).__module__.partition(".")[0],
            "implementation": platform.python_implementation(),
            "python": platform.python_version(),
        }
        yield "# HELP tinyasgi_build_info Versions of the server; the value is always 1.\n"
        yield f"# TYPE tinyasgi_build_info gauge\ntinyasgi_build_info{_label_text(build)} 1.0\n"
        totals = self._store.totals()
        for family in store.FAMILIES:
            yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
            values = totals[family.indexes.start : family.indexes.stop]
            yield from _histogram(family, values) if family.bounds else _samples(family, values)


def _label_text(labels: Mapping[str, object]) -> str:
    """Format the labels of a sample. Return an empty text without labels."""
    text = ",".join([f'{name}="{value}"' for name, value in labels.items()])
    return f"{{{text}}}" if text else ""


def _samples(family: Family, values: Sequence[float]) -> Iterator[str]:
    for labels, value in zip(product(*family.labels.values()), values, strict=True):
        if value or "status" not in family.labels:  # most statuses never occur
            text = _label_text(dict(zip(family.labels, labels, strict=True)))
            yield f"{family.name}{text} {value}\n"


def _histogram(family: Family, values: Sequence[float]) -> Iterator[str]:
    *buckets, total = values
    counts = list(accumulate(buckets))
    for bound, count in zip((*family.bounds, "+Inf"), counts, strict=True):
        yield f'{family.name}_bucket{{le="{bound}"}} {count}\n'
    yield f"{family.name}_sum {total}\n{family.name}_count {counts[-1]}\n"
