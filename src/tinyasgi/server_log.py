"""The logger of server messages, `tinyasgi.server`. Its methods never raise."""

import logging
import os
from functools import partialmethod

_logger = logging.getLogger("tinyasgi.server")


class _SafeLogger:
    """The methods of `logging.Logger` that the server uses.

    A filter or a handler of the user may raise any exception, even SystemExit. The server writes
    that exception to stderr, together with the message, and keeps running.
    """

    def log(self, level: int, text: str, *args: object, exc_info: object = None) -> None:
        try:
            # stacklevel=2: the record shows the caller, not this method
            _logger.log(level, text, *args, exc_info=exc_info, stacklevel=2)  # type: ignore[arg-type]
        except BaseException as error:
            if logging.lastResort is not None:
                values = {"name": _logger.name, "levelno": logging.ERROR, "levelname": "ERROR"}
                lost = {"msg": f"logging failed: {text}", "args": args}
                failure = {"exc_info": (type(error), error, error.__traceback__)}
                logging.lastResort.handle(logging.makeLogRecord({**values, **lost, **failure}))

    def relay(self, level: int, text: str) -> None:
        """Log a message of the app, also below the level of the server's own messages."""
        record = _logger.makeRecord(_logger.name, level, __file__, 0, "%s", (text,), None)
        try:
            _logger.handle(record)
        except BaseException:
            self.error("logging failed: %s", text)

    debug = partialmethod(log, logging.DEBUG)
    info = partialmethod(log, logging.INFO)
    warning = partialmethod(log, logging.WARNING)
    error = partialmethod(log, logging.ERROR)
    critical = partialmethod(log, logging.CRITICAL)


logger = _SafeLogger()


def is_first_worker() -> bool:
    """Return whether this process is worker 0 or the only one: others need not say the same."""
    return os.environ.get("TINYASGI_WORKER", "0") == "0"
