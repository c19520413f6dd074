"""Loggers, their handlers and files, and how a process sets them up.

`tinyasgi.server` tells what the server does and what went wrong; `tinyasgi.access` gets a line
for each response that has ended (`access`). The root logger is never touched.
"""

import errno
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..config.config import Config
from ..server_log import logger
from ..signals import Stop
from .formatters import JSONFormatter, TextFormatter

__all__ = ["ERROR", "appending", "begin", "opener", "reopen", "set_up", "tell"]
__all__ += ["warn"]

_package_logger = logging.getLogger("tinyasgi")
_server_logger = logging.getLogger("tinyasgi.server")
_access_logger = logging.getLogger("tinyasgi.access")

#: What the last line of a process that could not go on begins with.
ERROR = "tinyasgi: error: "

#: Bytes of the server's log file that can wait for room on the disk.
BUFFER = 1 << 20

#: What `set_up` has set: our handler and our level.
_handler: logging.Handler | None = None
_level = logging.NOTSET
#: The file that `begin` has configured logging from.
_configured: str | None = None


# A process that serves or supervises.


def begin(config: Config) -> None:
    """What has to be there before the app is imported. Raises OptionError.

    With JSON, what Python would write to stderr by itself becomes lines of JSON, too. Exceptions
    that it can only ignore are records in any format: a client may cause them.
    """
    global _configured
    if config.log_config is not None and config.log_config != _configured:
        _configure(config, config.log_config)
        _configured = config.log_config  # a forked worker has it, and maybe the app's on top
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _on_unraisable
    if config.log_format == "json":
        _catch_all()
    with appending(config, "access_log_file") as path:
        # Workers will open it, each for itself. The reader of a FIFO would see its end.
        if path is not None and not stat.S_ISFIFO(_mode(path)):
            open(path, "ab").close()
    set_up(config)


def set_up(config: Config) -> None:
    """Sets up the loggers of this process, as far as its user has not; docs/logs.md has the rule.

    To be called again when the app may have configured logging in the meantime. Raises OptionError.
    """
    global _handler, _level
    before, _handler = _handler, None
    if before is not None:
        _server_logger.removeHandler(before)
        _server_logger.propagate = True
    if _package_logger.disabled:  # by `dictConfig`, with all others that it did not name
        for each in (_package_logger, _server_logger, _access_logger):
            each.disabled = False
    if _package_logger.level in (logging.NOTSET, _level):
        _level = getattr(logging, config.log_level.upper())
        _package_logger.setLevel(_level)
    if config.log_format == "text" or config.log_config is not None:
        configured = _server_logger.hasHandlers()
    else:  # the root logger may have handlers that write text
        configured = bool(_server_logger.handlers or _package_logger.handlers)
    with appending(config, "error_log_file") as path:
        if path is not None or not configured:
            _handler = _Stream(sys.stderr) if path is None else _File(path, encoding="utf-8")
            _handler.setFormatter(_formatter(config, colours=path is None))
            _server_logger.addHandler(_handler)
            _server_logger.propagate = False
    if before is not None:  # not earlier: the reader of a FIFO would see its end
        with suppress(OSError):  # a full disk
            before.close()


def _formatter(config: Config, colours: bool) -> logging.Formatter:
    if config.log_format == "json":
        return JSONFormatter()
    if config.use_colors is not None:
        return TextFormatter(colours and config.use_colors)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return TextFormatter(colours and terminal and not os.environ.get("NO_COLOR"))


def _mode(path: str) -> int:
    """The type of a file; 0 if there is none yet."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


@contextmanager
def appending(config: Config, option: str) -> Iterator[str | None]:
    """For opening the file of an option; None for `-`. Raises OptionError instead of OSError."""
    path: str = getattr(config, option)
    try:
        yield None if path == "-" else path
    except OSError as error:
        raise config.wrong(option, path, f"a file to append to: {error.strerror}") from None


class _Stream(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """A disk that is full, or a reader that has left, is nothing to fail for."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _File(logging.FileHandler, _Stream):
    def _open(self) -> Any:
        """Open it with a buffer that has room for any message.

        On a full disk the rest of a message stays there. It would be lost with a smaller buffer,
        and the next message would follow within the same line.
        """
        return open(self.baseFilename, "a", BUFFER, self.encoding, opener=opener)


def opener(path: str, flags: int) -> int:
    """Open a file for `open`; a FIFO that no process reads raises OSError and is not waited for."""
    if os.name != "posix":
        return os.open(path, flags)
    try:
        number = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no process reads it", path) from None
        raise
    os.set_blocking(number, True)
    return number


def _configure(config: Config, path: str) -> None:
    """Gives the content of a file to `dictConfig`. Raises OptionError."""
    import logging.config  # not before it is needed: 10 ms

    defaults = {"version": 1, "disable_existing_loggers": False}
    try:
        with open(path, encoding="utf-8") as file:
            found = _parse(os.path.splitext(path)[1], file.read())
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        logging.config.dictConfig(defaults | found)
    except Exception as error:  # handlers of any kind may be made here
        cause = error.__cause__ or error
        reason = " ".join(f"{error}: {cause}".split() if cause is not error else str(error).split())
        allowed = f"a logging configuration: {getattr(error, 'strerror', None) or reason}"
        raise config.wrong("log_config", path, allowed) from None


def _parse(kind: str, text: str) -> Any:
    if kind == ".json":
        import json

        return json.loads(text)
    if kind == ".toml":
        import tomllib

        return tomllib.loads(text)
    if kind in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError:
            raise ValueError("YAML takes PyYAML, which is not installed") from None
        return yaml.safe_load(text)
    raise ValueError("its name ends neither in .json nor in .toml or .yaml")


def reopen() -> None:
    """Opens the files of all log handlers again, for whoever has moved them away."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in {handler for each in loggers for handler in each.handlers}:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            try:
                buffer = BUFFER if isinstance(handler, _File) else -1
                file = open(  # noqa: SIM115  # the handler closes it
                    handler.baseFilename,
                    "a",
                    buffer,
                    encoding=handler.encoding,
                    errors=handler.errors,
                    opener=opener,
                )
            except OSError as error:
                path, reason = handler.baseFilename, error.strerror
                logger.error("%s can't be opened again: %s", path, reason)
            else:
                # Not `setStream`: it would keep the old file while the disk is full.
                handler.acquire()
                before, handler.stream = handler.stream, file
                handler.release()
                try:
                    before.close()
                except OSError as error:
                    path, reason = handler.baseFilename, error.strerror
                    logger.error("the last lines of the former %s are lost: %s", path, reason)


def tell(text: str, log_format: str) -> None:
    """Writes to stderr why a process can't go on: maybe a traceback, and a line after ERROR.

    It goes to the error log file, too, if there is one by now.
    """
    traceback, _, message = text.rpartition(ERROR)
    record = _record(logging.ERROR, message.strip())
    record.exc_text = traceback.rstrip() or None
    _write(text, record, log_format)
    if isinstance(_handler, _File):
        _handler.handle(record)


def warn(text: str, log_format: str) -> None:
    """Write a warning to stderr, before logging is set up."""
    _write(f"tinyasgi: warning: {text}", _record(logging.WARNING, text), log_format)


def _record(level: int, text: str) -> logging.LogRecord:
    values = {"name": _server_logger.name, "levelno": level, "msg": text}
    return logging.makeLogRecord({**values, "levelname": logging.getLevelName(level)})


def _write(text: str, record: logging.LogRecord, log_format: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write((JSONFormatter().format(record) if log_format == "json" else text) + "\n")


# What Python would write to stderr by itself.


def _catch_all() -> None:
    """Makes records of it, unless somebody else has."""
    if logging.lastResort is not None:  # for records that nobody handles
        logging.lastResort.setFormatter(JSONFormatter())
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _on_exception
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _on_thread_exception
    warnings.showwarning = _on_warning
    logging.basicConfig = _basic_config


_plain_basic_config = logging.basicConfig


def _basic_config(**options: Any) -> None:
    """`logging.basicConfig`. Who names no format gets that of all lines.

    `logging.warning` and its like call it when the root logger has no handlers.
    """
    if options.keys().isdisjoint({"format", "style", "datefmt", "handlers", "filename"}):
        handler = logging.StreamHandler(options.pop("stream", None))
        handler.setFormatter(JSONFormatter())
        options["handlers"] = [handler]
    _plain_basic_config(**options)


def _on_exception(*error: Any) -> None:
    logger.critical("uncaught exception", exc_info=error)


def _on_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread is not None else "that is gone"
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        logger.error("uncaught exception in thread %s", name, exc_info=error)


def _on_unraisable(args: Any) -> None:
    if isinstance(args.exc_value, UnicodeDecodeError) and isinstance(args.object, bytes):
        return  # a server name of TLS, sent by a client; the handshake fails, and that is told
    if isinstance(args.exc_value, Stop):
        return  # in `__del__`; the process stops all the same
    error = (args.exc_type, args.exc_value, args.exc_traceback)
    what = args.err_msg or "exception ignored in"
    logger.error("%s %r", what, args.object, exc_info=error)


def _on_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    where = {"file": filename, "line": lineno}
    text = f"{category.__name__}: {message}"
    logging.getLogger("py.warnings").warning("%s", text, extra=where)
