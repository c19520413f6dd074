"""Writer of access lines: collects lines, writes them in blocks, and never waits for a reader."""

import asyncio
import io
import os
import select
import selectors
import sys
import time
from collections.abc import Callable
from typing import Any

from ..config.config import Config
from ..config.kinds import OptionError
from ..protocols.exchange import Exchange
from ..server_log import logger
from .access import LineFormatter, default_line, filtered, has_handlers, is_enabled
from .formatters import TIME_FORMAT
from .setup import log_path, opener

#: Seconds for which lines are collected before they are written.
FLUSH_INTERVAL = 0.1
#: Maximum size of an atomic write to a pipe, in bytes (POSIX).
PIPE_BUF: int = getattr(select, "PIPE_BUF", 4096)
#: Bytes of lines that wait for a slow reader. Further lines are dropped.
MAX_PENDING = 8 << 20
#: Seconds to wait for a slow reader when the log is closed.
CLOSE_TIMEOUT = 1.0

NEWLINE = ord("\n")
TOO_SLOW = "the reader is too slow"


class AccessLog:
    """Access log of a process. A line costs 1.3 µs of CPU time; a log record would cost 10 µs."""

    def __init__(
        self,
        format_line: LineFormatter,
        file: "AccessLogFile",
        loop: asyncio.AbstractEventLoop,
        log_record: Callable[[Exchange], None] | None = None,
    ) -> None:
        """log_record: replaces the file while `tinyasgi.access` has handlers of the user."""
        self._format_line = format_line
        self._file = file
        self._loop = loop
        self._log_record = log_record
        self._lines: list[str] = []
        self._pending = bytearray()  # lines that the file has not taken yet
        self._is_waiting = False
        self._dropped = 0

    def __call__(self, exchange: Exchange) -> None:
        if not is_enabled():
            return
        if self._log_record is not None and has_handlers():
            self._log_record(exchange)
            return
        line = filtered(exchange, self._format_line(exchange))
        if line is not None:
            if not self._lines:
                self._loop.call_later(FLUSH_INTERVAL, self.flush)
            self._lines.append(line)

    def flush(self, timeout: float = 0.0) -> None:
        """Write the collected lines. timeout: seconds to wait for a slow reader."""
        lines = self._lines
        if lines and len(self._pending) > MAX_PENDING:
            self._drop(len(lines), TOO_SLOW)
        elif lines:
            start = time.strftime(TIME_FORMAT + " ") if self._format_line is default_line else ""
            self._pending += (start + f"\n{start}".join(lines) + "\n").encode()
        lines.clear()
        if self._pending:
            self._write(timeout)

    def _write(self, timeout: float = 0.0) -> None:
        try:
            self._file.write(self._pending, timeout)
        except (OSError, ValueError) as error:  # ValueError: the app has closed stdout
            self._drop_pending(getattr(error, "strerror", None) or str(error))
        else:
            if not self._pending:
                self._report_dropped()
        self._wait_for_reader(bool(self._pending))

    def _wait_for_reader(self, wait: bool) -> None:
        """Call `_write` when the reader has made room, or stop doing so."""
        if wait == self._is_waiting:
            return
        self._is_waiting = wait
        if wait:
            self._loop.add_reader(self._file, self._write)
        else:
            self._loop.remove_reader(self._file)

    def _drop_pending(self, reason: str) -> None:
        self._drop(self._pending.count(b"\n"), reason)
        self._pending.clear()

    def _drop(self, count: int, reason: str) -> None:
        if not self._dropped:
            logger.warning("dropping access log lines: %s", reason)
        self._dropped += count

    def _report_dropped(self) -> None:
        if self._dropped:
            logger.warning("dropped %d access log lines", self._dropped)
            self._dropped = 0

    def reopen(self) -> None:
        """Reopen the file, because log rotation has renamed it. On failure keep the old file."""
        self.flush()
        self._wait_for_reader(False)
        try:
            self._file.reopen()
        except OptionError as error:
            logger.error("%s", error)
        self._wait_for_reader(bool(self._pending))

    def close(self) -> None:
        """Write the remaining lines and close the file."""
        self.flush(CLOSE_TIMEOUT)
        self._wait_for_reader(False)
        if self._pending:
            self._drop_pending(TOO_SLOW)
        self._report_dropped()
        self._file.close()


class AccessLogFile:
    """File of the access log, opened to append, or stdout. The constructor raises OptionError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._path = config.access_log_file
        self._open()

    def _open(self) -> None:
        with log_path(self._config, "access_log_file") as path:
            file: Any = sys.stdout if path is None else io.FileIO(path, "a", opener=opener)
            descriptor = _descriptor(file)
            try:
                selector = None if descriptor is None else _write_selector(descriptor)
            except OSError:  # no attribute has changed: `reopen` keeps the old file
                if path is not None:
                    file.close()
                raise
        self._file, self._descriptor, self._selector = file, descriptor, selector
        self._in_line = False  # the last write ended within a line
        self._is_cut = False  # and the rest of that line was lost

    def write(self, lines: bytearray, timeout: float = 0.0) -> None:
        """Write lines and remove them from `lines`; keep lines that a slow reader has no room for.

        timeout: seconds to wait for the reader, in total. Raises OSError and ValueError.
        """
        if self._descriptor is None:  # stdout is closed or replaced by a Python object
            if self._file is not None:
                self._file.write(lines.decode())
                self._file.flush()
            lines.clear()
            return
        if self._file is sys.stdout:
            self._file.flush()  # first the output of the app, so that no line splits it
        deadline = time.monotonic() + timeout
        while lines:
            end = len(lines)
            if self._selector is not None:
                if not self._selector.select(deadline - time.monotonic()):
                    break
                end = lines.rfind(b"\n", 0, PIPE_BUF) + 1 or lines.find(b"\n") + 1
            self._write_some(self._descriptor, lines, end)

    def _write_some(self, descriptor: int, lines: bytearray, end: int) -> None:
        """Write up to `end` bytes. After a write error, begin a new line first."""
        try:
            if self._is_cut:
                os.write(descriptor, b"\n")
                self._is_cut = self._in_line = False
            written = os.write(descriptor, lines[:end])
        except OSError:
            self._is_cut = self._in_line
            raise
        self._in_line = lines[written - 1] != NEWLINE
        del lines[:written]

    def fileno(self) -> int:
        """Return a descriptor that is readable when the reader has made room.

        It is the descriptor of a selector. If uvloop watched stdout itself, it would set stdout to
        non-blocking for all processes that share it.
        """
        assert self._selector is not None
        return self._selector.fileno()  # type: ignore[attr-defined, no-any-return]

    def reopen(self) -> None:
        """Reopen the file. Raises OptionError; then the old file stays in use."""
        if self._path != "-":
            file, selector = self._file, self._selector
            self._open()
            file.close()
            if selector is not None:
                selector.close()

    def close(self) -> None:
        if self._path != "-":
            self._file.close()
        if self._selector is not None:
            self._selector.close()


def _descriptor(file: Any) -> int | None:
    try:
        return file.fileno()  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):
        return None


def _write_selector(descriptor: int) -> selectors.BaseSelector | None:
    """Return a selector that waits for room in a pipe or socket; None for a regular file."""
    selector = selectors.DefaultSelector()
    try:
        selector.fileno()
        selector.register(descriptor, selectors.EVENT_WRITE)
    except (AttributeError, OSError):  # AttributeError: on Windows
        selector.close()
        return None
    return selector
