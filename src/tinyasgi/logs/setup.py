"""Set-up of the loggers, handlers and log files of a process.

`tinyasgi.server` logs server messages. `tinyasgi.access` logs a line for each finished response
(see `access`). The root logger is never changed.
"""

import errno
import logging
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..config.config import Config
from ..server_log import logger
from ..signals import Stop
from .formatters import JSONFormatter, TextFormatter

_package_logger = logging.getLogger("tinyasgi")
_server_logger = logging.getLogger("tinyasgi.server")
_access_logger = logging.getLogger("tinyasgi.access")
_warnings_logger = logging.getLogger("py.warnings")

#: Ends of the names of files for `fileConfig`.
_INI = (".ini", ".conf", ".cfg")

#: Beginning of the message that ends a failed process.
ERROR_PREFIX = "tinyasgi: error: "

#: Bytes of server messages that are buffered while the disk is full.
FILE_BUFFER_SIZE = 1 << 20

#: The handler and the level that `set_up_loggers` has set.
_handler: logging.Handler | None = None
_level = logging.NOTSET
#: The `log_config` that has been applied.
_applied_config: str | dict[str, Any] | None = None
#: Loggers of other servers. Some apps log with them. The messages of this server do not pass their
#: filters and handlers.
_OTHER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "gunicorn.access")
#: Loggers of other servers that get the handler of `tinyasgi.server`.
_ADOPTED_LOGGERS = ("uvicorn", "gunicorn.error")


# Set-up of a process that serves or supervises.


def set_up_process(config: Config) -> None:
    """Set up logging before the app is imported. Raises OptionError.

    With JSON, messages that Python itself would write to stderr become JSON lines. Exceptions that
    Python ignores become log records in any format, because a client may cause them.
    """
    global _applied_config
    if config.log_config is not None and config.log_config != _applied_config:
        apply_config(config, config.log_config)
        _applied_config = config.log_config  # a forked worker keeps it, with the changes of the app
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable
    if config.log_format == "json":
        _log_output_of_python()
    with log_path(config, "access_log_file") as path:
        # Workers open the file later, but an error should occur now. A FIFO is not opened: after
        # the close, its reader would read the end of the file.
        if path is not None and not stat.S_ISFIFO(_mode(path)):
            open(path, "ab").close()
    set_up_loggers(config)


def set_up_loggers(config: Config) -> None:
    """Set up the loggers of tinyasgi unless the user has; docs/logs.md has the rules.

    Call it again whenever the app may have configured logging since. Raises OptionError.
    """
    global _handler, _level
    before, _handler = _handler, None
    if before is not None:
        _server_logger.removeHandler(before)
        _server_logger.propagate = True
    if _package_logger.disabled:  # by `dictConfig`, as all loggers that it does not name
        for each in (_package_logger, _server_logger, _access_logger):
            each.disabled = False
    if _package_logger.level in (logging.NOTSET, _level):
        _level = getattr(logging, config.log_level.upper())
        _package_logger.setLevel(_level)
    _adopt(None, before)
    if config.log_format == "text" or config.log_config is not None:
        configured = _server_logger.hasHandlers()
    else:  # handlers of the root logger may write text
        configured = bool(_server_logger.handlers or _package_logger.handlers)
    with log_path(config, "error_log_file") as path:
        if path is not None or not configured:
            _handler = _Stream(sys.stderr) if path is None else _File(path, config.capture_output)
            _handler.setFormatter(_formatter(config, colours=path is None))
            _server_logger.addHandler(_handler)
            _server_logger.propagate = False
            _adopt(_handler, None)
    if before is not None:  # closed last: a FIFO without a writer would end its reader
        with suppress(OSError):  # the disk is full
            before.close()


def _adopt(new: logging.Handler | None, old: logging.Handler | None) -> None:
    """Let apps log with the loggers of other servers, unless these have handlers of their own."""
    for each in map(logging.getLogger, _ADOPTED_LOGGERS):
        if old in each.handlers:
            each.removeHandler(old)
            each.propagate = True
        if new is not None and not each.hasHandlers():
            each.addHandler(new)
            each.propagate = False
            if each.level == logging.NOTSET:
                each.setLevel(_level)


def _formatter(config: Config, colours: bool) -> logging.Formatter:
    if config.log_format == "json":
        return JSONFormatter()
    if config.use_colors is not None:
        return TextFormatter(colours and config.use_colors)
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return TextFormatter(colours and terminal and not os.environ.get("NO_COLOR"))


# Log files.


def _mode(path: str) -> int:
    """Return the type and mode of a file; 0 if it does not exist."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


@contextmanager
def log_path(config: Config, option: str) -> Iterator[str | None]:
    """Yield the path of a log file, None for `-`; raise its OSError as an OptionError."""
    path: str = getattr(config, option)
    try:
        yield None if path == "-" else path
    except OSError as error:
        raise config.error(option, path, f"can't be opened: {error.strerror}") from None


class _Stream(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore a full disk and a closed pipe; report other errors."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


class _File(logging.FileHandler, _Stream):
    """A log file. captures: stdout and stderr are written to it, too."""

    def __init__(self, path: str, captures: bool = False) -> None:
        super().__init__(path, encoding="utf-8")
        self.captures = captures
        self.capture()

    def capture(self) -> None:
        """Redirect stdout and stderr to the file, which may have been opened again."""
        file: Any = self.stream
        for standard, number in ((sys.stdout, 1), (sys.stderr, 2)):
            if self.captures and standard is not None:
                with suppress(OSError):  # a closed pipe
                    standard.flush()
                os.dup2(file.fileno(), number)

    def _open(self) -> Any:
        """Open the file with a buffer that holds any message.

        When the disk is full, the rest of a message stays in the buffer. With a smaller buffer the
        rest would be lost, and the next message would continue the same line.
        """
        return _open_to_append(self)


def _open_to_append(handler: logging.FileHandler) -> Any:
    path, errors = handler.baseFilename, handler.errors
    buffering = FILE_BUFFER_SIZE if isinstance(handler, _File) else -1
    return open(path, "a", buffering, handler.encoding, errors, opener=opener)


def opener(path: str, flags: int) -> int:
    """Open a file, as the `opener` of `open`. Raises OSError for a FIFO that no process reads.

    A plain `open` would wait for a reader.
    """
    if os.name != "posix":
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "no process reads it", path) from None
        raise
    os.set_blocking(descriptor, True)
    return descriptor


def reopen_files() -> None:
    """Reopen the files of all log handlers, because log rotation has renamed them."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in {handler for each in loggers for handler in each.handlers}:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            _reopen_file(handler)


def _reopen_file(handler: logging.FileHandler) -> None:
    path = handler.baseFilename
    try:
        file = _open_to_append(handler)
    except OSError as error:
        logger.error("can't reopen %s: %s", path, error.strerror)
        return
    handler.acquire()
    # Not `setStream`, which would keep the old file while the disk is full.
    before: Any = handler.stream
    handler.stream = file
    if isinstance(handler, _File):
        handler.capture()
    handler.release()
    try:
        before.close()
    except OSError as error:
        logger.error("the last lines of the old %s are lost: %s", path, error.strerror)


# `--log-config`.


def apply_config(config: Config, given: str | dict[str, Any]) -> None:
    """Pass the content of a file, or a dict, to `logging.config`. Raises OptionError."""
    import logging.config  # lazy: 10 ms

    defaults = {"version": 1, "disable_existing_loggers": False}
    try:
        if isinstance(given, str) and given.endswith(_INI):
            logging.config.fileConfig(given, disable_existing_loggers=False)
            return
        found = _read(given) if isinstance(given, str) else given
        if not isinstance(found, dict):
            raise ValueError("the top level must be a mapping")
        logging.config.dictConfig(defaults | found)
    except Exception as error:  # `dictConfig` may call any class
        cause = error.__cause__ or error
        reason = " ".join(f"{error}: {cause}".split() if cause is not error else str(error).split())
        text = f"can't be used: {getattr(error, 'strerror', None) or reason}"
        raise config.error("log_config", given, text) from None


def other_loggers() -> list[str]:
    """Return the configured loggers of other servers. Their configuration has no effect."""
    known = logging.root.manager.loggerDict
    loggers = [logging.getLogger(name) for name in _OTHER_LOGGERS if name in known]
    return [each.name for each in loggers if _is_configured(each)]


def _is_configured(each: logging.Logger) -> bool:
    level = each.level if each.name not in _ADOPTED_LOGGERS else logging.NOTSET
    return bool({*each.handlers} - {_handler} or each.filters or each.disabled or level)


def _read(path: str) -> Any:
    """Return the content of a file for `dictConfig`. Raises OSError and ValueError."""
    suffix = os.path.splitext(path)[1]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if suffix == ".json":
        import json

        return json.loads(text)
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError:
            raise ValueError("reading YAML needs PyYAML: pip install pyyaml") from None
        return yaml.safe_load(text)
    raise ValueError("the file name must end in .json, .toml, .yaml or .ini")


# Messages on stderr before and after the loggers are set up.


def report_failure(text: str, log_format: str) -> None:
    """Write to stderr why the process ends: an optional traceback, ERROR_PREFIX and a message.

    The error log file gets the text, too, if it is open.
    """
    traceback, _, message = text.rpartition(ERROR_PREFIX)
    record = _record(logging.ERROR, message.strip())
    record.exc_text = traceback.rstrip() or None
    _write(text, record, log_format)
    if isinstance(_handler, _File) and not _handler.captures:
        _handler.handle(record)


def report_warning(text: str, log_format: str) -> None:
    """Write a warning to stderr, before the loggers are set up."""
    _write(f"tinyasgi: warning: {text}", _record(logging.WARNING, text), log_format)


def _record(level: int, text: str) -> logging.LogRecord:
    values = {"name": _server_logger.name, "levelno": level, "msg": text}
    return logging.makeLogRecord({**values, "levelname": logging.getLevelName(level)})


def _write(text: str, record: logging.LogRecord, log_format: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write((JSONFormatter().format(record) if log_format == "json" else text) + "\n")


# Messages that Python itself would write to stderr.


def _log_output_of_python() -> None:
    """Log uncaught exceptions and warnings, unless the app has hooks of its own."""
    if logging.lastResort is not None:  # writes records of loggers without handlers
        logging.lastResort.setFormatter(JSONFormatter())
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _log_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _log_uncaught_in_thread
    logging.captureWarnings(True)
    if not _warnings_logger.handlers:
        _warnings_logger.addHandler(_WarningsHandler())


class _WarningsHandler(logging.Handler):
    """Handler that passes captured warnings to `lastResort` if no other handler gets them.

    Without this handler, `captureWarnings` adds a NullHandler, and the warnings would be lost.
    """

    def emit(self, record: logging.LogRecord) -> None:
        others = {*_warnings_logger.handlers, *logging.root.handlers} - {self}
        if not others and logging.lastResort is not None:
            logging.lastResort.handle(record)


def _log_uncaught(*error: Any) -> None:
    logger.critical("uncaught exception", exc_info=error)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        where = f"thread {args.thread.name}" if args.thread is not None else "a finished thread"
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        logger.error("uncaught exception in %s", where, exc_info=error)


def _log_unraisable(args: Any) -> None:
    if isinstance(args.exc_value, UnicodeDecodeError) and isinstance(args.object, bytes):
        return  # a client's invalid TLS server name; the failed handshake is logged anyway
    if isinstance(args.exc_value, Stop):
        return  # a signal during `__del__`; the process stops anyway
    error = (args.exc_type, args.exc_value, args.exc_traceback)
    logger.error("%s %r", args.err_msg or "exception ignored in", args.object, exc_info=error)
