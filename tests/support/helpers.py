"""Helpers of many tests: a raw client, small apps, event loops, and the command."""

import asyncio
import functools
import importlib.util
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

import tinyasgi
from tinyasgi.testing import MemoryConnection

__all__ = [
    "ACCESS_LINE",
    "GET",
    "HANDSHAKE",
    "LOOPS",
    "PATIENCE",
    "QUICK_LOOPS",
    "START",
    "Certificates",
    "Client",
    "Command",
    "Response",
    "elapse",
    "hello",
    "workers_option",
]
__all__ += ["in_loop", "quick_loop", "reply", "until", "upload"]

#: Seconds after which a hanging test fails. A passing test never waits this long.
PATIENCE = float(os.environ.get("PATIENCE", "120"))

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
START = {"type": "http.response.start", "status": 200}
#: A default access line, without its time.
ACCESS_LINE = re.compile(
    r'(\S+) "(\S+) (\S+) HTTP/(1\.[01])" (\d+) (\d+) B (\d+\.\d) ms( aborted)?'
)
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

LOOPS = [pytest.param(asyncio.SelectorEventLoop, id="asyncio")]
if importlib.util.find_spec("uvloop"):
    import uvloop

    LOOPS.append(pytest.param(uvloop.Loop, id="uvloop"))


def upload(length: int) -> bytes:
    """Return the head of a request with a body of `length` bytes."""
    return b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % length


# Apps.


async def reply(send: Any, body: bytes = b"", status: int = 200, *fields: Any) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Minimal app, without lifespan support."""
    assert scope["type"] == "http"
    await reply(send, b"hello")


# Loops.


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test in an event loop, which the optional argument `loop` creates."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        async def guarded() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(**arguments)

        with asyncio.Runner(loop_factory=arguments.get("loop", asyncio.new_event_loop)) as runner:
            runner.run(guarded())

    return run


def quick_loop(base: Any, speed: float = 1000) -> Any:
    """Return a class of event loops that shorten all delays and count their pending timers."""

    class QuickLoop(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._handles: set[Any] = set()

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
            def fire() -> None:
                self._handles.discard(handle)
                callback(*args)

            handle = super().call_later(delay / speed, fire, context=context)
            self._handles.add(handle)
            return handle

        @property
        def timers(self) -> int:
            return sum(not handle.cancelled() for handle in self._handles)

    return QuickLoop


#: Event loops in which a second takes 50 ms.
QUICK_LOOPS = [pytest.param(quick_loop(each.values[0], 20), id=each.id) for each in LOOPS]


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def elapse(connection: MemoryConnection, seconds: int) -> bytes:
    """Let seconds pass for an in-memory connection; return all bytes that it has sent.

    On a busy machine, the real clock may add a second.
    """
    for _ in range(seconds):
        if not connection.is_closing():
            connection.context.ticks += 1
            connection.protocol.check_timeouts(connection.context.ticks)
            await connection.settle()
    return bytes(connection.sent)


# Clients.


class Certificates:
    """A certificate for a server, and its CA, which clients trust."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certfile = str(folder / "server.pem")
        server = self.authority.issue_cert("localhost")
        server.private_key_and_cert_chain_pem.write_to_path(self.certfile)
        self.ca_certs = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca_certs)

    def context(self, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Return a context for a client."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.set_alpn_protocols(["http/1.1"])
        if client is not None:
            client.configure_cert(context)
        return context


class Response(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


class Client:
    """A raw connection to a server.

    where: a server, a port, or the path of a unix socket.
    """

    def __init__(self, where: Any, tls: ssl.SSLContext | None = None) -> None:
        if isinstance(where, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE)
            self.sock.connect(where)
        else:
            port = where if isinstance(where, int) else where.port
            self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of a response."""
        status = int(self.file.readline().split()[1])
        lines = iter(self.file.readline, b"\r\n")
        pairs = [line.decode("latin-1").split(":", 1) for line in lines if line]
        return status, {name.lower(): value.strip() for name, value in pairs}

    def response(self, request: bytes = b"") -> Response:
        """Send a request, if given, and read a response."""
        if request:
            self.send(request)
        status, fields = self.head()
        if fields.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
        elif "content-length" in fields:
            body = self.file.read(int(fields["content-length"]))
        else:
            body = self.rest()
        return Response(status, fields, body)

    def chunk(self) -> bytes:
        """Read a chunk. The last chunk is empty."""
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        assert self.file.readline() == b"\r\n"
        return data

    def chunks(self) -> Iterator[bytes]:
        return iter(self.chunk, b"")

    def rest(self) -> bytes:
        """Read until the end of the connection."""
        return self.file.read()


# The command.


def workers_option(workers: str) -> list[str]:
    """The words for so many workers; none for a single process."""
    return ["--workers", workers] if workers else []


_OURS = re.compile("TINYASGI_|WEB_CONCURRENCY")


class Command:
    """A process of `python -m tinyasgi`. The end of the `with` block kills it."""

    def __init__(
        self,
        *words: str,
        cwd: Path,
        stdout: Any = None,
        script: str = "",
        pass_fds: Sequence[int] = (),
        under: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """script: a Python file to run instead. pass_fds: inherited descriptors.

        under: a program that runs the command, with its arguments.
        """
        given = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
        packages = str(Path(tinyasgi.__file__).parents[1])
        self._stdout = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*under, sys.executable, *([script] if script else ["-m", "tinyasgi", *words])],
            cwd=cwd,
            env=given | {"PYTHONPATH": packages, "PYTHONWARNINGS": "error"} | environment,
            stdout=stdout or self._stdout,
            pass_fds=pass_fds,
            process_group=0 if os.name == "posix" else None,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(PATIENCE, self._kill_all)
        self._watchdog.start()
        #: Text read from stderr so far, and text of stdout, which is set by `wait`.
        self.log = self.output = ""

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.wait()

    def _kill_all(self) -> None:
        """Kill the process and its children, which may keep stderr open."""
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Read stderr until the pattern has matched `count` times; return the last match."""
        assert self.process.stderr is not None
        while len(found := list(re.finditer(pattern, self.log, re.MULTILINE))) < count:
            line = self.process.stderr.readline()
            assert line, f"the process exited without a line like {pattern!r}:\n{self.log}"
            self.log += line
        return found[-1]

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    @property
    def port(self) -> int:
        """The port in the startup message."""
        return int(self.wait_for(r"tinyasgi \S+ on https?://[^ ,]*:(\d+)")[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit; return the exit code."""
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            self.log += self.process.stderr.read()
            self.process.stderr.close()
        code = self.process.wait()
        self._watchdog.cancel()
        self._watchdog.join()
        if not self._stdout.closed:
            self._stdout.seek(0)
            self.output = self._stdout.read()
            self._stdout.close()
        return code
