"""The server's log, `tinyasgi.server`: writing to it never raises."""

import logging

__all__ = ["logger"]

_logger = logging.getLogger("tinyasgi.server")


class _Logger:
    """The methods of a logger that the server uses.

    A filter or a handler of the user may raise anything, even SystemExit. The server goes on, and
    writes the exception to stderr together with the message.
    """

    def log(self, level: int, text: str, *args: object, exc_info: object = None) -> None:
        self._log(level, text, args, exc_info)

    def info(self, text: str, *args: object) -> None:
        self._log(logging.INFO, text, args)

    def warning(self, text: str, *args: object) -> None:
        self._log(logging.WARNING, text, args)

    def error(self, text: str, *args: object, exc_info: object = None) -> None:
        self._log(logging.ERROR, text, args, exc_info)

    def critical(self, text: str, *args: object, exc_info: object = None) -> None:
        self._log(logging.CRITICAL, text, args, exc_info)

    def _log(
        self, level: int, text: str, args: tuple[object, ...], exc_info: object = None
    ) -> None:
        try:
            # The caller is two frames up.
            _logger.log(level, text, *args, exc_info=exc_info, stacklevel=3)  # type: ignore[arg-type]
        except BaseException as error:
            if logging.lastResort is not None:
                values = {"name": _logger.name, "levelno": logging.ERROR, "levelname": "ERROR"}
                lost = {"msg": f"logging failed: {text}", "args": args}
                failure = {"exc_info": (type(error), error, error.__traceback__)}
                logging.lastResort.handle(logging.makeLogRecord({**values, **lost, **failure}))


logger = _Logger()
