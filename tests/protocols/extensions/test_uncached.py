"""Files that are not in memory are read in threads, because reading waits for the disk."""

import asyncio
import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, PATIENCE, Certificates, Client, in_loop
from tinyasgi.protocols.extensions.files import is_cached, unblocked
from tinyasgi.protocols.stream import FilePart
from tinyasgi.testing import serve

START = {"type": "http.response.start", "status": 200}
CONTENT = bytes(range(256)) * 8000


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return str(file)


def refuse(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reading without waiting fail."""

    def preadv(*_: object) -> int:
        raise OSError(number, "planted")

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("size", [100, len(CONTENT)])
def test_file_is_sent(
    path: str, kind: str, number: int, size: int, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(number, monkeypatch)
    readers: set[int] = set()
    os.truncate(path, size)

    def recorded(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            readers.add(threading.get_ident())
            return function(*arguments)

        return call

    for name in ("pread", "sendfile"):
        monkeypatch.setattr(os, name, recorded(getattr(os, name)))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": path})
        loops.append(threading.get_ident())

    loops: list[int] = []
    options = {"ssl_certfile": tls.certfile} if kind == "tls" else {}
    context = tls.context() if kind == "tls" else None
    with serve(app, lifespan="off", **options) as server, Client(server, context) as client:
        for _ in range(2):
            assert client.response(GET).body == CONTENT[:size]
    assert readers and not readers & {*loops}


def test_file_that_cannot_be_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(errno.EIO, monkeypatch)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": path})

    with serve(app, lifespan="off") as server, Client(server) as client, server.expect(OSError):
        assert client.response(GET).status == 500


def test_the_last_byte_is_looked_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def preadv(descriptor: int, buffers: Any, offset: int, flags: int) -> int:
        assert (descriptor, flags) == (7, os.RWF_NOWAIT)
        looked.append(offset)
        return len(buffers[0])

    monkeypatch.setattr(os, "preadv", preadv)
    assert is_cached(FilePart(7, 100, 50))
    assert looked == [149]
    assert is_cached(FilePart(7, 100, 0))  # nothing to read
    assert looked == [149]


def test_system_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "RWF_NOWAIT")
    assert not is_cached(FilePart(7, 0, 1))
    assert is_cached(FilePart(7, 0, 0))


@in_loop
async def test_a_cancelled_task_waits_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor must stay open until the thread has read from it."""
    refuse(errno.EAGAIN, monkeypatch)
    begun, go = threading.Event(), threading.Event()

    def read() -> int:
        begun.set()
        assert go.wait(PATIENCE)
        return 1

    task = asyncio.ensure_future(unblocked(FilePart(7, 0, 1), read))
    await asyncio.to_thread(begun.wait, PATIENCE)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_position_of_a_descriptor(path: str) -> None:
    """Without an offset, a descriptor is sent from its position, which moves."""
    descriptor = os.open(path, os.O_RDONLY)
    positions = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        os.lseek(descriptor, 10, os.SEEK_SET)
        zero = {"type": "http.response.zerocopysend", "file": descriptor}
        await send({**zero, "count": 5, "more_body": True})
        positions.append(os.lseek(descriptor, 0, os.SEEK_CUR))
        await send(zero)
        positions.append(os.lseek(descriptor, 0, os.SEEK_CUR))

    try:
        with serve(app, lifespan="off") as server, Client(server) as client:
            assert client.response(GET).body == CONTENT[10:]
    finally:
        os.close(descriptor)
    assert positions == [15, len(CONTENT)]


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("size", [1, 100])
def test_small_parts_are_sent_once(path: str, kind: str, size: int, tls: Certificates) -> None:
    """The first part is written with the head, in the same write."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        with open(path, "rb") as file:
            zero = {"type": "http.response.zerocopysend", "file": file, "count": size}
            await send({**zero, "offset": 5, "more_body": True})
            await send({**zero, "offset": 7, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    options = {"ssl_certfile": tls.certfile} if kind == "tls" else {}
    context = tls.context() if kind == "tls" else None
    with serve(app, lifespan="off", **options) as server, Client(server, context) as client:
        for _ in range(2):
            expected = CONTENT[5 : 5 + size] + CONTENT[7 : 7 + size] + b"end"
            assert client.response(GET).body == expected


def test_response_after_a_file_is_sent_at_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY is off only while a file is sent."""
    values: list[int] = []

    class Recorder(socket.socket):
        def setsockopt(self, level: int, name: int, value: Any) -> None:  # type: ignore[override]
            if name == socket.TCP_NODELAY:
                values.append(int(value))
            super().setsockopt(level, name, value)

    monkeypatch.setattr("tinyasgi.protocols.extensions.sendfile.socket.socket", Recorder)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": path})

    with serve(app, lifespan="off") as server, Client(server) as client:
        assert client.response(GET).body == CONTENT
        assert client.response(GET).body == CONTENT
    assert [each for each in values if each == 0] == [0, 0]
    assert values[-1] == 1
