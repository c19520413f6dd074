"""The cheap writer of access lines: many at once, whole, and nobody waits for their reader."""

import asyncio
import io
import logging
import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import Any

from .access import Line, default_line
from .exchange import Exchange
from .log import TIME_FORMAT, appending
from .options import OptionError

__all__ = ["AccessLines", "Output"]

logger = logging.getLogger("tinyasgi.server")

#: Seconds between two writes.
FLUSH = 0.1
#: Bytes that a pipe on Linux takes whole or not at all, whoever else writes to it.
WHOLE = 4096
#: Bytes of lines that wait for a slow reader; what comes when there are more is lost.
HELD = 1 << 20
#: Seconds for a slow reader at the end.
LAST = 1.0


class AccessLines:
    """Collects the lines of exchanges for 100 ms: 2 µs each, a log record costs 10."""

    def __init__(self, line: Line, output: "Output", loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._output = output
        self._loop = loop
        self._lines: list[str] = []
        self._held = b""  # what the output did not take yet
        self._due = False
        self._lost = 0

    def __call__(self, exchange: Exchange) -> None:
        if not self._due:
            self._plan()
        self._lines.append(self._line(exchange))

    def _plan(self) -> None:
        self._due = True
        self._loop.call_later(FLUSH, self._on_time)

    def _on_time(self) -> None:
        self._due = False
        self.flush()
        if self._held:
            self._plan()

    def flush(self, patience: float = 0.0) -> None:
        """Writes what has been collected. patience: seconds that a slow reader is waited for."""
        lines, self._lines = self._lines, []
        if lines and len(self._held) > HELD:
            self._lose(len(lines), "they are not read in time")
        elif lines:
            start = time.strftime(TIME_FORMAT + " ") if self._line is default_line else ""
            self._held += (start + f"\n{start}".join(lines) + "\n").encode()
        if not self._held:
            return
        try:
            self._held = self._output.write(self._held, patience)
        except OSError as error:
            self._lose(self._held.count(b"\n"), error.strerror or str(error))
            self._held = b""
        else:
            if not self._held:
                self._count()

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
        try:
            self._output.reopen()
        except OptionError as error:
            logger.error("%s", error)

    def close(self) -> None:
        """Writes what there is."""
        self.flush(LAST)
        if self._held:
            self._lose(self._held.count(b"\n"), "they are not read in time")
        self._count()
        self._output.close()


class Output:
    """Where access lines go: a file that is appended to, or stdout. Raises OptionError.

    path: `-` is stdout.
    """

    def __init__(self, path: str) -> None:
        self._path = path if path == "-" else os.path.abspath(path)
        self._open()

    def _open(self) -> None:
        with appending("access_log_file", self._path) as path:
            self._file: Any = sys.stdout if path is None else io.FileIO(path, "a")
        self._number = _number(self._file)
        self._poll = None if self._number is None else _poll(self._number)

    def write(self, lines: bytes, patience: float = 0.0) -> bytes:
        """Writes lines, each of them whole; what would have to wait for a reader is returned.

        patience: seconds to wait nevertheless. Raises OSError.
        """
        if self._number is None:  # there is no stdout, or somebody has put an object in its place
            if self._file is not None:
                self._file.write(lines.decode())
                self._file.flush()
            return b""
        if self._file is sys.stdout:
            self._file.flush()  # what the app has printed is not to be cut by our lines
        done = 0
        while done < len(lines):
            end = len(lines)
            if self._poll is not None:
                if not self._poll.poll(patience * 1000):
                    break
                end = lines.rfind(b"\n", done, done + WHOLE) + 1 or lines.find(b"\n", done) + 1
            with suppress(BlockingIOError):
                done += os.write(self._number, lines[done:end])
                continue
            break
        return lines[done:]

    def reopen(self) -> None:
        """Opens the file again. Raises OptionError; then the old one is kept."""
        if self._path != "-":
            before = self._file
            self._open()
            before.close()

    def close(self) -> None:
        if self._path != "-":
            self._file.close()


def _number(file: Any) -> int | None:
    """The descriptor of a file, if it has one."""
    try:
        return file.fileno()  # type: ignore[no-any-return]
    except (AttributeError, OSError, ValueError):
        return None


def _poll(number: int) -> Any:
    """What tells whether a reader has room for more; None for what has no reader, as a file."""
    if not hasattr(select, "poll") or stat.S_ISREG(os.fstat(number).st_mode):
        return None
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return poll
