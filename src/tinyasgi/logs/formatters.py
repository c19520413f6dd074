"""The formats of log lines: text and JSON."""

import functools
import logging
import os
import re
import time
from typing import Any, ClassVar

from ..errors import exception_text, safely

__all__ = ["TIME_FORMAT", "JSONFormatter", "TextFormatter", "iso_time"]

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_UNPRINTABLE = re.compile(r"[^\n\t -~]")


class TextFormatter(logging.Formatter):
    """Time, level and message. Only a record begins at the beginning of a line.

    What follows in its further lines is set in by two spaces, and what can't be printed is escaped:
    nobody whose words come into a message or a traceback can make them look like a record.
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
    """An object in one line, with the keys that docs/logs.md lists, and those of `extra`."""

    _KNOWN: ClassVar = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}

    def __init__(self) -> None:
        import json  # not before it is needed

        super().__init__()
        self._dumps = functools.partial(json.dumps, allow_nan=False, separators=(",", ":"))
        self._worker = os.environ.get("TINYASGI_WORKER")

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": iso_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
        }
        if self._worker is not None:
            values["worker"] = int(self._worker)
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
        except (TypeError, ValueError, RecursionError):  # something of `extra`
            return self._dumps({key: self._plain(value) for key, value in values.items()})

    def _plain(self, value: object) -> object:
        try:
            self._dumps(value)
        except (TypeError, ValueError, RecursionError):
            return safely(repr, value)
        return value


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit
        return f"{safely(str, record.msg)} {safely(repr, record.args)}"


def iso_time(seconds: float) -> str:
    """A time as ISO 8601 has it, with milliseconds and the offset from UTC."""
    whole = int(seconds)
    date_and_time, offset = _second(whole)
    return f"{date_and_time}.{int((seconds - whole) * 1000):03}{offset}"


@functools.lru_cache(4)
def _second(seconds: int) -> tuple[str, str]:
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{offset[:3]}:{offset[3:5]}"
