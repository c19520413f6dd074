"""Request bodies for WSGI apps, each complete before a thread is taken."""

import asyncio
import io
import tempfile
from contextlib import suppress
from typing import IO

from ...server_log import logger
from ...typing import Receive

__all__ = ["Body", "Refused", "Spool"]

#: Bytes of an unfinished body in memory. The rest is written to a file in pieces of this size.
MEMORY = 64 * 1024


class Refused(Exception):
    """A request body that is not stored: the status of the response, and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Spool:
    """The total size of the temporary files of request bodies, and its limit.

    limit: bytes, 0 for no limit.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def check(self, length: int) -> None:
        """Raise Refused if a body of this length can never be stored."""
        if self._limit and length > max(self._limit, MEMORY):
            raise Refused(
                413, f"request body of {length} bytes exceeds --limit-body-size ({self._limit})"
            )

    def take(self, size: int) -> None:
        """Reserve space. Raises Refused."""
        if self._limit and self._used + size > self._limit:
            raise Refused(503, "no space for request bodies")
        self._used += size

    def release(self, size: int) -> None:
        """Return reserved space."""
        self._used -= size


class Body:
    """One request body: in memory up to MEMORY bytes, else in a temporary file without a name."""

    __slots__ = ("_file", "_spool", "_stored", "length")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._file: IO[bytes] | None = None
        self._stored = 0
        self.length = 0

    async def collect(self, receive: Receive) -> IO[bytes] | None:
        """Receive the whole body. Returns None if the client disconnects before its end.

        Raises Refused.
        """
        message = await receive()
        if not message.get("more_body", True):  # all of it at once, as a rule
            self.length = len(message["body"])
            return io.BytesIO(message["body"])
        buffer = io.BytesIO()
        while message["type"] != "http.disconnect":
            self.length += buffer.write(message["body"])
            if not message["more_body"]:
                return await self._whole(buffer)
            if buffer.tell() > MEMORY:
                await self._store(buffer.getvalue())
                buffer = io.BytesIO()
            message = await receive()
        return None

    async def _whole(self, buffer: io.BytesIO) -> IO[bytes]:
        """The body, which ends with the content of the buffer."""
        if self._file is not None:
            await self._store(buffer.getvalue())
        file = self._file or buffer
        file.seek(0)
        return file

    async def _store(self, data: bytes) -> None:
        """Append to the file, in a thread: a disk may be slow."""
        self._spool.check(self._stored + len(data))
        self._spool.take(len(data))
        self._stored += len(data)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tinyasgi-")  # noqa: SIM115
            await asyncio.to_thread(_append, self._file, data)
        except OSError as error:
            logger.error("a request body can't be stored in a temporary file: %s", error)
            raise Refused(503, "no space for request bodies") from error

    def close(self) -> None:
        """Delete the file. The body can't be read any more."""
        if self._stored:
            self._spool.release(self._stored)
        if self._file is not None:
            with suppress(OSError):  # what was never written
                self._file.close()


def _append(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
