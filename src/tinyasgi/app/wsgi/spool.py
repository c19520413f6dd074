"""Request bodies of WSGI apps, in memory and in temporary files."""

import asyncio
import io
import tempfile
from contextlib import suppress
from typing import IO

from ...server_log import logger
from ...typing import Receive

#: Maximum size of a body in memory, in bytes. The rest goes to a file, in pieces of this size.
MEMORY_SIZE = 64 * 1024


class Refused(Exception):
    """A request body that can't be stored: the status of the response, and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Spool:
    """The total size of the temporary files, and its limit in bytes; 0: unlimited."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def check(self, length: int) -> None:
        """Raise Refused if a body of this length exceeds the limit."""
        if self._limit and length > max(self._limit, MEMORY_SIZE):
            raise Refused(
                413, f"request body of {length} bytes exceeds --wsgi-spool-size ({self._limit})"
            )

    def take(self, size: int) -> None:
        """Reserve space for `size` bytes. Raises Refused."""
        if self._limit and self._used + size > self._limit:
            raise Refused(503, "no space for request bodies")
        self._used += size

    def release(self, size: int) -> None:
        """Give reserved space back."""
        self._used -= size


class Body:
    """One request body: up to MEMORY_SIZE in memory, a longer one in an unnamed temporary file."""

    __slots__ = ("_file", "_spool", "_stored", "length")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._file: IO[bytes] | None = None
        self._stored = 0
        self.length = 0

    async def collect(self, receive: Receive) -> IO[bytes] | None:
        """Receive the whole body; return None if the client disconnects before its end.

        Raises Refused.
        """
        message = await receive()
        if not message.get("more_body", True):  # usually the whole body
            self.length = len(message["body"])
            return io.BytesIO(message["body"])
        buffer = io.BytesIO()
        while message["type"] != "http.disconnect":
            self.length += buffer.write(message["body"])
            if not message["more_body"]:
                return await self._whole(buffer)
            if buffer.tell() > MEMORY_SIZE:
                await self._store(buffer.getvalue())
                buffer = io.BytesIO()
            message = await receive()
        return None

    async def _whole(self, buffer: io.BytesIO) -> IO[bytes]:
        """Return the body, which ends with the content of the buffer."""
        if self._file is not None:
            await self._store(buffer.getvalue())
        file = self._file or buffer
        file.seek(0)
        return file

    async def _store(self, data: bytes) -> None:
        """Append to the file, in a thread, because the disk may be slow."""
        self._spool.check(self._stored + len(data))
        self._spool.take(len(data))
        self._stored += len(data)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tinyasgi-")  # noqa: SIM115
            await asyncio.to_thread(_append, self._file, data)
        except OSError as error:
            logger.error("can't write a request body to a temporary file: %s", error)
            raise Refused(503, "no space for request bodies") from error

    def close(self) -> None:
        """Delete the file; the body can no longer be read."""
        if self._stored:
            self._spool.release(self._stored)
        if self._file is not None:
            with suppress(OSError):  # a full disk
                self._file.close()


def _append(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
