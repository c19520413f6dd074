"""Files as response bodies: `http.response.pathsend` and `http.response.zerocopysend`."""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ...http.response import NO_BODY
from ...typing import Message
from ..exchange import Exchange
from ..states import COMPLETE, LOST, SENDING_FILE, STARTED, STREAMING, TRAILERS
from ..stream import FilePart

#: Maximum size of a file that is sent in one write with its head, in bytes.
SMALL = 64 * 1024
#: Bytes that are read at once for a connection without sendfile: seven TLS records. The C library
#: maps and unmaps buffers of 128 KiB, which takes longer than to read them.
BLOCK = 7 * 16 * 1024

_T = TypeVar("_T")


# Opening.


@contextmanager
def open_path(path: str | os.PathLike[str]) -> Iterator[FilePart]:
    """Open a regular file for reading; close it at the end. Raises OSError, TypeError, ValueError.

    It is opened in the event loop, like a file that is sent by sendfile. A FIFO does not block.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"the path of 'http.response.pathsend' must be a str, not {path!r}")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield FilePart(descriptor, 0, _size(descriptor, path))
    finally:
        os.close(descriptor)


def _size(descriptor: int, name: object) -> int:
    """Return the size of a regular file in bytes. Raises OSError."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(name))
    return status.st_size


@contextmanager
def requested_part(message: Message) -> Iterator[FilePart]:
    """Return the part of a file that `http.response.zerocopysend` names.

    Without an offset, the part begins at the position of the file. At the end, the position is
    moved to the byte after the part. Raises OSError, TypeError or ValueError.
    """
    file = message["file"]
    try:
        descriptor = file if type(file) is int else file.fileno()
    except (AttributeError, OSError):
        raise TypeError(f"{file!r} has no file descriptor") from None
    size = _size(descriptor, file)
    offset, count = message.get("offset"), message.get("count")
    start = _position(file) if offset is None else _natural("offset", offset)
    count = max(size - start, 0) if count is None else _natural("count", count)
    if start + count > size and count:
        raise ValueError(f"{file!r} has {size} bytes, not {start + count}")
    yield FilePart(descriptor, start, count)
    if offset is None:
        _position(file, start + count)


def _natural(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} of 'http.response.zerocopysend' must be an int, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} of 'http.response.zerocopysend' must not be negative: {value}")
    return value


def _position(file: Any, new: int | None = None) -> int:
    """Return the position of a file after setting it to `new`, if given.

    A file object may have read ahead, so its own position counts.
    """
    where = (0, os.SEEK_CUR) if new is None else (new, os.SEEK_SET)
    if hasattr(file, "seek"):
        return int(file.seek(*where))
    return os.lseek(file if type(file) is int else file.fileno(), *where)


# Sending.


async def send_file(exchange: Exchange, part: FilePart, more_body: bool) -> None:
    """Send a part of a file as a piece of the body."""
    more = more_body or exchange.trailers is not None
    if exchange.phase is STARTED:
        part = _send_head(exchange, part, more)
    if exchange.phase is STREAMING:
        await _send_rest(exchange, part)
    if exchange.phase is STREAMING and not more:
        exchange.stream.write_body(exchange, b"", False)
    if exchange.phase is LOST:
        await exchange.drop()
    elif exchange.phase is not COMPLETE and not more_body:
        exchange.phase = TRAILERS


def _send_head(exchange: Exchange, part: FilePart, more: bool) -> FilePart:
    """Send the head, with a small file whose content is in memory; return the part that is left."""
    descriptor, offset, count = part
    body = b""
    if is_cached(part) and 0 < count <= SMALL:  # in this order: the file may not be readable
        body = os.pread(descriptor, count, offset)
        if len(body) < count:
            raise too_short(count - len(body))
    is_last = len(body) == count and not more
    length = None if more else count
    exchange.stream.write_head(exchange, exchange.response_headers, body, not is_last, length)
    return FilePart(descriptor, offset + len(body), count - len(body))


async def _send_rest(exchange: Exchange, part: FilePart) -> None:
    """Send a part of a file after the head. If that fails, the response is aborted."""
    if not part.size or exchange.framing == NO_BODY:
        return
    exchange.phase = SENDING_FILE
    try:
        write = exchange.stream.file_writer or _copy
        await write(exchange, part)
    except BaseException:  # also if the task is cancelled
        if exchange.phase is SENDING_FILE:
            exchange.stream.abort(exchange)
        raise
    if exchange.phase is SENDING_FILE:
        exchange.phase = STREAMING
        if exchange.stream.stopping:  # `receive` returns `http.disconnect` now, not during a file
            exchange.wake()


async def _copy(exchange: Exchange, part: FilePart) -> None:
    """Read a part of a file, and write it to the stream."""
    descriptor, offset, count = part
    while count and exchange.phase is SENDING_FILE:
        block = FilePart(descriptor, offset, min(count, BLOCK))
        data = await unblocked(block, os.pread, descriptor, block.size, offset)
        if not data:
            raise too_short(count)
        if exchange.phase is SENDING_FILE:  # still
            exchange.stream.write_body(exchange, data, True)
            exchange.credit -= len(data)
            await exchange.take_turns()
        offset += len(data)
        count -= len(data)


def too_short(missing: int) -> OSError:
    """Return the error for a file that has become shorter."""
    return OSError(errno.EIO, f"the file has become {missing} bytes shorter while it was sent")


async def unblocked(part: FilePart, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function that reads a part of a file: in a thread if it would wait for the disk.

    A cancelled task waits for the thread, because the descriptor must stay open until then.
    """
    if is_cached(part):
        return function(*args)
    future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        raise


def is_cached(part: FilePart) -> bool:
    """Return whether the end of a part is in memory, as far as the system tells. Raises OSError.

    Files are read ahead, so the beginning is in memory, too.
    """
    if not hasattr(os, "RWF_NOWAIT") or not part.size:  # only Linux has it
        return not part.size
    last = part.offset + part.size - 1
    try:
        os.preadv(part.descriptor, [bytearray(1)], last, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system without it
            return False
        raise
    return True
