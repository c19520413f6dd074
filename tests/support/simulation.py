"""A server in virtual time, with clients on a virtual network."""

import inspect
import io
import logging
import select
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from unittest import mock

from tinyasgi import Server

from .network import Listener, Peer, Poll
from .virtual import VirtualLoop, running

__all__ = ["Entry", "Simulation", "footprint", "simulated"]


class Entry:
    """The access line of an exchange."""

    def __init__(self, exchange: Any) -> None:
        self.status: int = exchange.status
        self.sent: int = exchange.sent
        self.phase: int = exchange.phase
        self.text: str = exchange.line.text

    def __repr__(self) -> str:
        return f"<{self.text!r} {self.status} {self.sent} B, phase {self.phase}>"


class Simulation:
    """A `Server` that has started, on a loop whose time a test moves."""

    def __init__(
        self,
        loop: VirtualLoop,
        app: Any,
        failing: Mapping[int, int] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        """failing: system calls that fail, as in `VirtualLoop.failing`."""
        self.loop = loop
        self.listener = Listener(loop)
        loop.failing.update(failing)
        #: Access lines, in order.
        self.log: list[Entry] = []
        #: Request lines and the exceptions with which the app has ended them.
        self.failures: list[tuple[str, BaseException]] = []
        self.records: list[logging.LogRecord] = []
        self.server = Server(
            app,
            sockets=[self.listener],  # type: ignore[list-item]
            access=lambda exchange: self.log.append(Entry(exchange)),
            on_error=lambda text, error: self.failures.append((text, error)),
            **{"lifespan": "off", "date_header": False, "server_header": False, **options},
        )
        self.main = loop.create_task(self._serve())
        loop.settle()

    async def _serve(self) -> None:
        async with self.server:
            await self.server.stopped()

    @property
    def _context(self) -> Any:
        """The context of the server; None if it could not start."""
        return getattr(self.server, "_context", None)

    @property
    def connections(self) -> list[Any]:
        """The protocol objects of the open connections."""
        return list(self._context.connections) if self._context is not None else []

    @property
    def running(self) -> int:
        """The number of exchanges whose app is running."""
        return len(self._context.running) if self._context is not None else 0

    def connect(self) -> Peer:
        """Open a connection, and let the server accept it."""
        peer = self.listener.connect()
        self.loop.settle()
        return peer

    def check(self) -> None:
        """Check that no exception was lost, and that a server that has stopped sets no timer."""
        assert not self.loop.errors, self.loop.errors
        if self.main.done() and not self.running:
            assert not self.loop.timers, self.loop.timers

    def stop(self) -> None:
        """Stop the server, and wait until it has stopped."""
        self.server.stop()
        self.loop.run_until_complete(self.main)


@contextmanager
def simulated(app: Any, **options: Any) -> Iterator[Simulation]:
    """A server in virtual time. It stops at the end of the block and must leave nothing behind."""
    logger = logging.getLogger("tinyasgi")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment]
    with running() as loop, mock.patch.object(select, "poll", lambda: Poll(loop)):
        logger.addHandler(handler)
        try:
            simulation = Simulation(loop, app, **options)
            simulation.records = records
            yield simulation
            if not simulation.main.done():
                simulation.stop()
            assert not simulation.running
            assert not simulation.connections
        finally:
            logger.removeHandler(handler)


def footprint(holder: Any) -> int:
    """Bytes that a connection holds in buffers, also those of its exchange and its transport."""
    seen: set[int] = set()
    pending = [holder]
    total = 0
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, bytes | bytearray | str):
            total += len(found)
        elif isinstance(found, io.BytesIO):
            total += found.getbuffer().nbytes
        elif inspect.isgenerator(found):
            pending += inspect.getgeneratorlocals(found).values()
        elif isinstance(found, list | tuple | set | frozenset | deque):
            pending += found
        elif hasattr(found, "get_write_buffer_size"):
            total += found.get_write_buffer_size()
        elif _holds_data(found):
            pending += [getattr(found, name, None) for name in _attributes(found)]
    return total


def _holds_data(found: Any) -> bool:
    """Return whether an object belongs to one connection."""
    kind = type(found)
    shared = kind.__name__ in ("Context", "Config", "RequestLine", "ClientInfo", "Parser")
    return kind.__module__.startswith("tinyasgi.") and not shared


def _attributes(found: Any) -> list[str]:
    slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*slots, *getattr(found, "__dict__", {})]
