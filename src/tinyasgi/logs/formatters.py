"""Formatters of log records: text and JSON."""

import functools
import logging
import os
import re
import time
from typing import Any, ClassVar

from ..errors import exception_text, safely

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_UNPRINTABLE = re.compile(r"[^\n\t -~]")


class TextFormatter(logging.Formatter):
    """Formatter of records as text: time, level and message.

    Continuation lines are indented by two spaces and unprintable characters are escaped. So text
    from a client, in a message or a traceback, cannot look like a record of its own.

    colours: colour the level, with ANSI escape sequences.
    """

    _COLOURS: ClassVar = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

    def __init__(self, colours: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", TIME_FORMAT)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = _UNPRINTABLE.sub(_escape, super().format(record)).replace("\n", "\n  ")
        if self._colours:
            level = record.levelname
            colour = self._COLOURS.get(level, "32")
            text = text.replace(level, f"\x1b[{colour}m{level}\x1b[0m", 1)
        return text


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return character if character.isprintable() else ascii(character)[1:-1]


class JSONFormatter(logging.Formatter):
    """Formatter of records as JSON objects, one per line.

    docs/logs.md lists the keys. Attributes from `extra` become keys, too.
    """

    _KNOWN: ClassVar = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}

    def __init__(self) -> None:
        import json  # lazy: needed only for JSON

        super().__init__()
        self._dumps = functools.partial(json.dumps, allow_nan=False, separators=(",", ":"))

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": iso_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **process_keys(),  # not cached: a worker may inherit the formatter by a fork
        }
        if record.exc_info and record.exc_info[0] is not None:
            values["exception"] = exception_text(record.exc_info[1])
            values["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            values["traceback"] = record.exc_text
        if record.stack_info:
            values["stack"] = record.stack_info
        for key, value in vars(record).items():
            if key not in self._KNOWN:
                values.setdefault(key, value)
        try:
            return self._dumps(values)
        except (TypeError, ValueError, RecursionError):  # JSON cannot represent a value of `extra`
            return self._dumps({key: self._plain(value) for key, value in values.items()})

    def _plain(self, value: object) -> object:
        """Return a value that JSON can represent: the value itself, or its `repr`."""
        try:
            self._dumps(value)
        except (TypeError, ValueError, RecursionError):
            return safely(repr, value)
        return value


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments do not match the message
        return f"{safely(str, record.msg)} {safely(repr, record.args)}"


def process_keys() -> dict[str, int]:
    """Return the process id and, in a worker, its slot."""
    worker = os.environ.get("TINYASGI_WORKER")
    return {"pid": os.getpid()} | ({"worker": int(worker)} if worker is not None else {})


def iso_time(seconds: float) -> str:
    """Format a Unix time as ISO 8601 local time, with milliseconds and the offset from UTC."""
    whole = int(seconds)
    date_and_time, offset = _iso_second(whole)
    return f"{date_and_time}.{int((seconds - whole) * 1000):03}{offset}"


@functools.lru_cache(4)
def _iso_second(seconds: int) -> tuple[str, str]:
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{offset[:3]}:{offset[3:5]}"
