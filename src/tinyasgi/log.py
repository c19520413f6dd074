"""Logger names, the format of log lines, and how a process sets both up.

`tinyasgi.server` tells what the server does and what went wrong; `tinyasgi.access` gets a line
for each response that has ended (`access`).
"""

import logging
import sys
from typing import ClassVar

from .config import Config

__all__ = ["TIME_FORMAT", "reopen", "set_up"]

_package_logger = logging.getLogger("tinyasgi")
_server_logger = logging.getLogger("tinyasgi.server")
_access_logger = logging.getLogger("tinyasgi.access")

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


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
