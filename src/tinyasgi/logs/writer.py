"""The cheap writer of access lines: many at once, whole, and nobody waits for their reader."""

import asyncio
import io
import os
import selectors
import sys
import time
from collections.abc import Callable
from typing import Any

from ..config.config import Config
from ..config.kinds import OptionError
from ..protocols.exchange import Exchange
from ..server_log import logger
from .access import Line, default_line, filtered, has_handlers, is_enabled
from .formatters import TIME_FORMAT
from .setup import appending, opener

__all__ = ["AccessLines", "Output"]

#: Seconds between two writes.
FLUSH = 0.1
#: Bytes that a pipe on Linux takes whole or not at all, whoever else writes to it.
WHOLE = 4096
#: Bytes of lines that wait for a slow reader; what comes when there are more is lost.
HELD = 8 << 20
NEWLINE = ord("\n")
#: Seconds for a slow reader at the end.
LAST = 1.0


class AccessLines:
    """Collects the lines of exchanges for 100 ms: 0.6 µs each, a log record costs 10."""

    def __init__(
        self,
        line: Line,
        output: "Output",
        loop: asyncio.AbstractEventLoop,
        records: Callable[[Exchange], None] | None = None,
    ) -> None:
        """records: called instead, while `tinyasgi.access` has handlers of the user."""
        self._line = line
        self._output = output
        self._loop = loop
        self._records = records
        self._lines: list[str] = []
        self._held = bytearray()  # what the output did not take yet
        self._waiting = False
        self._lost = 0

    def __call__(self, exchange: Exchange) -> None:
        if not is_enabled():
            return
        if self._records is not None and has_handlers():
            self._records(exchange)
            return
        line = filtered(exchange, self._line(exchange))
        if line is not None:
            if not self._lines:
                self._loop.call_later(FLUSH, self.flush)
            self._lines.append(line)

    def flush(self, patience: float = 0.0) -> None:
        """Writes what has been collected. patience: seconds that a slow reader is waited for."""
        lines = self._lines
        if lines and len(self._held) > HELD:
            self._lose(len(lines), "they are not read in time")
        elif lines:
            start = time.strftime(TIME_FORMAT + " ") if self._line is default_line else ""
            self._held += (start + f"\n{start}".join(lines) + "\n").encode()
        lines.clear()
        if self._held:
            self._write(patience)

    def _write(self, patience: float = 0.0) -> None:
        try:
            self._output.write(self._held, patience)
        except (OSError, ValueError) as error:  # ValueError: an app has closed stdout
            self._lose(self._held.count(b"\n"), getattr(error, "strerror", None) or str(error))
            self._held.clear()
        else:
            if not self._held:
                self._count()
        self._wait(bool(self._held))

    def _wait(self, for_room: bool) -> None:
        """Goes on, or does not, when the reader has made room."""
        if for_room == self._waiting:
            return
        self._waiting = for_room
        if for_room:
            self._loop.add_reader(self._output, self._write)
        else:
            self._loop.remove_reader(self._output)

    def _lose(self, count: int, reason: str) -> None:
        if not self._lost:
            logger.warning("access lines are lost: %s", reason)
        self._lost += count

    def _count(self) -> None:
        if self._lost:
            logger.warning("access lines that were lost: %d", self._lost)
            self._lost = 0

    def reopen(self) -> None:
        """Opens the file again, for whoever has moved it away."""
        self.flush()
        self._wait(False)
        try:
            self._output.reopen()
        except OptionError as error:
            logger.error("%s", error)
        self._wait(bool(self._held))

    def close(self) -> None:
        """Writes what there is."""
        self.flush(LAST)
        self._wait(False)
        if self._held:
            self._lose(self._held.count(b"\n"), "they are not read in time")
        self._count()
        self._output.close()


class Output:
    """Where access lines go: a file that is appended to, or stdout. Raises OptionError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._path = config.access_log_file
        self._open()

    def _open(self) -> None:
        with appending(self._config, "access_log_file") as path:
            self._file: Any = sys.stdout if path is None else io.FileIO(path, "a", opener=opener)
        self._number = _number(self._file)
        self._room = None if self._number is None else _room(self._number)
        self._in_line = False  # the last write ended within a line
        self._cut = False  # and the rest of that line is lost

    def write(self, lines: bytearray, patience: float = 0.0) -> None:
        """Takes lines and writes them, each whole; leaves what would have to wait for a reader.

        patience: seconds to wait nevertheless, in all. Raises OSError and ValueError.
        """
        if self._number is None:  # there is no stdout, or somebody has put an object in its place
            if self._file is not None:
                self._file.write(lines.decode())
                self._file.flush()
            lines.clear()
            return
        if self._file is sys.stdout:
            self._file.flush()  # what the app has printed is not to be cut by our lines
        deadline = time.monotonic() + patience
        while lines:
            end = len(lines)
            if self._room is not None:
                if not self._room.select(deadline - time.monotonic()):
                    break
                end = lines.rfind(b"\n", 0, WHOLE) + 1 or lines.find(b"\n") + 1
            try:
                if self._cut:
                    os.write(self._number, b"\n")
                    self._cut = self._in_line = False
                written = os.write(self._number, lines[:end])
            except OSError:
                self._cut = self._in_line
                raise
            self._in_line = lines[written - 1] != NEWLINE
            del lines[:written]

    def fileno(self) -> int:
        """Can be read, strange as it is, when there is room for what `write` has left.

        To wait for stdout itself would make uvloop set it to non-blocking, and that for all
        processes that have it.
        """
        assert self._room is not None
        return self._room.fileno()  # type: ignore[attr-defined, no-any-return]

    def reopen(self) -> None:
        """Opens the file again. Raises OptionError; then the old one is kept."""
        if self._path != "-":
            file, room = self._file, self._room
            self._open()
            file.close()
            if room is not None:
                room.close()

    def close(self) -> None:
        if self._path != "-":
            self._file.close()
        if self._room is not None:
            self._room.close()


def _number(file: Any) -> int | None:
    """The descriptor of a file, if it has one."""
    try:
        return file.fileno()  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):
        return None


def _room(number: int) -> selectors.BaseSelector | None:
    """What tells whether a reader has made room; None for what has no reader, as a file."""
    selector = selectors.DefaultSelector()
    try:
        selector.fileno()
        selector.register(number, selectors.EVENT_WRITE)
    except (AttributeError, OSError):  # on Windows there is no such thing
        selector.close()
        return None
    return selector
