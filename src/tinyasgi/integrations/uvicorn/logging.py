"""Formatters for the loggers of uvicorn, and the functions that write to these loggers."""

import copy
import logging
import sys
from http import HTTPStatus
from typing import Any, ClassVar, Literal

from ...logs.access import KEYS
from ...protocols.exchange import Exchange

TRACE_LOG_LEVEL = 5
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

logger = logging.getLogger("uvicorn.error")
access_logger = logging.getLogger("uvicorn.access")
_server_logger = logging.getLogger("tinyasgi.server")


class DefaultFormatter(logging.Formatter):
    """Formatter with the field `levelprefix`: the level, a colon and spaces.

    use_colors: colour the level, with ANSI escape sequences; None: if stderr is a terminal.
    """

    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style)
        self.use_colors = sys.stderr.isatty() if use_colors is None else use_colors

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        level, spaces = record.levelname, " " * (8 - len(record.levelname))
        if self.use_colors:
            level = f"\x1b[{self._COLOURS.get(level, '32')}m{level}\x1b[0m"
        record = copy.copy(record)
        record.levelprefix = f"{level}:{spaces}"
        return super().formatMessage(record)


ColourizedFormatter = DefaultFormatter


class AccessFormatter(DefaultFormatter):
    """Formatter with the fields `client_addr`, `request_line` and `status_code`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record = copy.copy(record)
        values: Any = record.args
        record.client_addr, method, path, version, status = values
        record.request_line = f"{method} {path} HTTP/{version}"
        record.status_code = f"{status} {_PHRASES.get(status, '')}"
        return super().formatMessage(record)


def log_exchange(exchange: Exchange) -> None:
    """Log a request with the arguments that filters and formatters for uvicorn expect."""
    method, path, query, version, status = (
        KEYS[key](exchange) for key in ("method", "path", "query", "version", "status")
    )
    target = f"{path}?{query}" if query else path
    text = '%s - "%s %s HTTP/%s" %d'
    access_logger.info(text, exchange.client.name, method, target, version, status)


class _ServerMessages(logging.Handler):
    """Passes records of `tinyasgi.server` on to `uvicorn.error`."""

    def emit(self, record: logging.LogRecord) -> None:
        if logger.isEnabledFor(record.levelno):
            record.name = logger.name
            logger.handle(record)


_handler = _ServerMessages()


def redirect_messages() -> None:
    """Let messages of the server appear in `uvicorn.error`."""
    if _handler not in _server_logger.handlers:
        _server_logger.addHandler(_handler)
        _server_logger.setLevel(logging.DEBUG)
        _server_logger.propagate = False
