"""What is counted of a server, and the page that shows it: Prometheus' text format, version 0.0.4.

Nothing is done for it in a request unless it is asked for: what counts is put around what is there.
"""

import asyncio
import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from .._version import __version__
from ..http.response import PLAIN_TEXT
from ..net.accept import Acceptor
from ..protocols.context import Context
from ..protocols.exchange import LOST, REFUSED, Exchange
from ..typing import App, Message, Receive, Scope, Send
from .store import (
    ABORTED,
    ACCEPTED,
    CONNECTIONS,
    DURATION,
    DURATIONS,
    FAMILIES,
    IN_FLIGHT,
    LAG,
    LAGS,
    MESSAGES,
    METHODS,
    REQUESTS,
    SENT,
    SESSIONS,
    STATUSES,
    WEBSOCKETS,
    WORKERS,
    Family,
    MetricsStore,
)

__all__ = ["Metrics"]

FORMAT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
#: The status of a WebSocket, which says nothing of how long an answer takes.
SWITCHING = 101

#: Where the cells of a method begin.
_FIRST = {method: REQUESTS + STATUSES * place for place, method in enumerate(METHODS)}
_FIRST_OF_OTHERS = _FIRST["other"]


class Metrics:
    """Counts what happens in a context, in the row of this process; shows the sum of all rows."""

    def __init__(self, context: Context, acceptor: Acceptor, metrics_store: MetricsStore) -> None:
        self._context = context
        self._tally = metrics_store
        self._cells = metrics_store.cells(metrics_store.row)
        self._timer: asyncio.TimerHandle | None = None
        context.app = self._watching(context.app)
        context.on_tick = self._on_tick
        acceptor.connect = self._accepting(acceptor.connect)

    def begin(self) -> None:
        """The app is up."""
        self._cells[WORKERS] = 1.0

    # What happens.

    def counting(self, access: Callable[[Exchange], None] | None) -> Callable[[Exchange], None]:
        """The hook for exchanges that are over, around the one for access lines."""
        cells, clock = self._cells, time.perf_counter

        def count(exchange: Exchange) -> None:
            taken = clock() - exchange.started
            status = exchange.status
            if exchange.phase == LOST:
                cells[ABORTED] += 1.0
                if not 0 <= status < STATUSES:
                    status = 0  # it was never sent
            cells[_FIRST.get(exchange.line.method, _FIRST_OF_OTHERS) + status] += 1.0
            cells[SENT] += exchange.sent
            if status != SWITCHING and exchange.phase != REFUSED:
                cells[DURATION + bisect_left(DURATIONS, taken)] += 1.0
                cells[DURATION + len(DURATIONS) + 1] += taken

        if access is None:
            return count

        def count_and_log(exchange: Exchange) -> None:
            count(exchange)
            access(exchange)

        return count_and_log

    def _watching(self, app: App) -> App:
        """An app around the app."""

        def watch(scope: Scope, receive: Receive, send: Send) -> Any:
            if scope["type"] == "websocket":
                return self._attend(app, scope, receive, send)
            return app(scope, receive, send)

        return watch

    async def _attend(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the messages of a WebSocket, and the WebSocket while it is open."""
        cells, is_open = self._cells, 0.0

        async def counted_receive() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                cells[MESSAGES] += 1.0
            return message

        async def counted_send(message: Message) -> None:
            nonlocal is_open
            await send(message)
            if message["type"] == "websocket.send":
                cells[MESSAGES + 1] += 1.0
            elif message["type"] == "websocket.accept":
                is_open = 1.0
                cells[WEBSOCKETS] += 1.0
                cells[SESSIONS] += 1.0

        try:
            await app(scope, counted_receive, counted_send)
        finally:
            cells[WEBSOCKETS] -= is_open

    def _accepting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """What makes the protocol of a connection."""
        cells = self._cells

        def accept(*header: Any) -> Any:
            cells[ACCEPTED] += 1.0
            return connect(*header)

        return accept

    def _on_tick(self, late: float) -> None:
        """A second has passed, and a bit."""
        late = max(late, 0.0)  # a timer may be early by what a clock can't tell
        self._cells[LAG + bisect_left(LAGS, late)] += 1.0
        self._cells[LAG + len(LAGS) + 1] += late
        self._follow()

    def _follow(self) -> None:
        """Looks now, and again where the context won't tick: for apps that outlive connections."""
        self._look()
        context = self._context
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if context.running and not context.connections:
            self._timer = context.loop.call_later(1.0, self._follow)

    def _look(self) -> None:
        """Writes down how things stand."""
        self._cells[CONNECTIONS] = len(self._context.connections)
        self._cells[IN_FLIGHT] = len(self._context.running)

    # What is told.

    async def page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app that shows it."""
        headers, status, body = [PLAIN_TEXT], 200, b""
        if scope["path"] != "/metrics":
            status, body = 404, b"the metrics are at /metrics\n"
        elif scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b"GET or HEAD\n"
            headers.append((b"allow", b"GET, HEAD"))
        else:
            self._look()
            body = "".join(self._lines()).encode()
            headers = [FORMAT]
        # The next one is for any process, and a connection that stays would keep a clock going.
        headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _lines(self) -> Iterator[str]:
        """The page."""
        parser = type(self._context.parser).__module__.rpartition(".")[2]
        loop = type(self._context.loop).__module__.partition(".")[0]
        yield "# HELP tinyasgi_build_info What serves.\n# TYPE tinyasgi_build_info gauge\n"
        yield f'tinyasgi_build_info{{version="{__version__}",parser="{parser}",loop="{loop}",'
        yield f'implementation="{platform.python_implementation()}",'
        yield f'python="{platform.python_version()}"}} 1.0\n'
        total = self._tally.total()
        for family in FAMILIES:
            yield f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
            values = total[family.cells.start : family.cells.stop]
            if family.bounds:
                yield from _histogram(family, values)
            else:
                yield from _samples(family, values)


def _samples(family: Family, values: list[float]) -> Iterator[str]:
    for place, value in enumerate(values):
        if value or len(values) < STATUSES:  # most statuses never occur
            labels = family.label(place)
            yield f"{family.name}{f'{{{labels}}}' if labels else ''} {value}\n"


def _histogram(family: Family, values: list[float]) -> Iterator[str]:
    *buckets, total = values
    counts = list(accumulate(buckets))
    for bound, count in zip((*family.bounds, "+Inf"), counts, strict=True):
        yield f'{family.name}_bucket{{le="{bound}"}} {count}\n'
    yield f"{family.name}_sum {total}\n{family.name}_count {counts[-1]}\n"
