"""The access line: what it says of an exchange, and its cheap writer."""

import asyncio
import contextlib
import logging
import time
from typing import TextIO

from .config import Config
from .exchange import COMPLETE, Exchange
from .log import TIME_FORMAT

__all__ = ["AccessLines", "access_line", "record_access", "wants_records"]

logger = logging.getLogger("tinyasgi.access")

#: Seconds between two writes of access lines.
FLUSH = 0.1


def access_line(exchange: Exchange) -> str:
    """Client, request line, status, bytes of body, milliseconds, and whether it was cut off."""
    taken = (time.perf_counter() - exchange.started) * 1000
    client, text, status = exchange.connection.origin.name, exchange.line.text, exchange.status
    mark = "" if exchange.phase == COMPLETE else " aborted"
    return f'{client} "{text}" {status} {exchange.sent} B {taken:.1f} ms{mark}'


class AccessLines:
    """Writes access lines to a stream, those of 100 ms together: 2 µs each, a record costs 10."""

    def __init__(self, stream: TextIO, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop
        self._lines: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        if not self._lines:
            self._loop.call_later(FLUSH, self.flush)
        self._lines.append(access_line(exchange))

    def flush(self) -> None:
        """Writes what has been collected."""
        if self._lines:
            start = time.strftime(TIME_FORMAT + " ")
            text = start + f"\n{start}".join(self._lines) + "\n"
            self._lines.clear()
            with contextlib.suppress(OSError):  # whoever read the stream is gone
                self._stream.write(text)
                self._stream.flush()


def record_access(exchange: Exchange) -> None:
    """Makes an ordinary log record of an exchange."""
    logger.info(access_line(exchange))


def wants_records(config: Config) -> bool:
    """Whether somebody would see records of `tinyasgi.access`."""
    return config.access_log and logger.isEnabledFor(logging.INFO)
