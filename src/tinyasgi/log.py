"""Logger names, the format of log lines, the access line and its cheap writer.

`tinyasgi.server` tells what the server does and what went wrong; `tinyasgi.access` gets a line
for each response that has ended.
"""

import asyncio
import contextlib
import logging
import sys
import time
from typing import ClassVar, TextIO

from .config import Config
from .exchange import COMPLETE, Exchange

__all__ = ["AccessLines", "access_line", "record_access", "reopen", "set_up", "wants_records"]

_package_logger = logging.getLogger("tinyasgi")
_server_logger = logging.getLogger("tinyasgi.server")
_access_logger = logging.getLogger("tinyasgi.access")

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
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
    _access_logger.info(access_line(exchange))


def wants_records(config: Config) -> bool:
    """Whether somebody would see records of `tinyasgi.access`."""
    return config.access_log and _access_logger.isEnabledFor(logging.INFO)


def set_up(config: Config) -> bool:
    """Sets up the loggers of a process that serves, as far as its user has not.

    The root logger is left alone. Returns whether the user has given `tinyasgi.access` a handler.
    """
    configured = bool(_access_logger.handlers or _package_logger.handlers)
    for logger in (_package_logger, _server_logger, _access_logger):
        # An app's `dictConfig` disables by default what it does not name.
        logger.disabled = False
    _package_logger.setLevel(config.log_level.upper())
    if not _server_logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        colours = sys.stderr.isatty() if config.use_colors is None else config.use_colors
        handler.setFormatter(_Formatter(colours))
        _server_logger.addHandler(handler)
        _server_logger.propagate = False
    return configured


def reopen() -> None:
    """Opens the files of all log handlers again, for whoever has moved them away."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            file = open(  # noqa: SIM115  # the handler closes it
                handler.baseFilename, "a", encoding=handler.encoding, errors=handler.errors
            )
            if before := handler.setStream(file):
                before.close()


class _Formatter(logging.Formatter):
    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

    def __init__(self, colours: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", TIME_FORMAT)
        self._colours = colours

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        if self._colours:
            colour = self._COLOURS.get(record.levelname, "32")
            record.levelname = f"\x1b[{colour}m{record.levelname}\x1b[0m"
        return super().formatMessage(record)
