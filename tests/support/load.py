"""A steady load of small requests, none of which may fail."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.helpers import PATIENCE

__all__ = ["KEPT", "Load"]

REQUEST = b"GET %b HTTP/1.1\r\nHost: here\r\n%b\r\n"
#: Number of keep-alive connections.
KEPT = 10


@dataclass
class Failure:
    """A request without a response. Times are from `time.monotonic`."""

    kind: str
    begun: float
    error: str
    ended: float = field(default_factory=time.monotonic)


@dataclass
class Load:
    """Requests during a `with` block, sent by a thread.

    Half of them are sent on new connections, the other half on keep-alive connections. If a
    connection is closed before a request is sent, the client reconnects, as any client does. Every
    other error is a failure. rate: requests per second.
    """

    port: int
    rate: int = 1000
    path: str = "/"
    answers: Counter[str] = field(default_factory=Counter)
    """Number of responses by body."""
    failures: list[Failure] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._end = threading.Event()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        seconds = time.monotonic() - self._begun
        workers, failures = len(self.answers), Counter(f.kind for f in self.failures)
        print(f"{self.count} responses in {seconds:.1f} s, {workers} workers, failures: {failures}")

    @property
    def count(self) -> int:
        return sum(self.answers.values())

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(KEPT):
                tasks.create_task(self._keep(KEPT * 2 / self.rate))
            begun, sent = time.monotonic(), 0
            while not self._end.is_set():
                due = int((time.monotonic() - begun) * self.rate / 2)
                for _ in range(min(due - sent, self.rate // 10)):
                    tasks.create_task(self._ask_once())
                sent = due
                await asyncio.sleep(0.002)

    async def _ask_once(self) -> None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE / 2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    await self._ask(reader, writer, b"Connection: close\r\n")
                finally:
                    writer.close()
        except Exception as error:
            self.failures.append(Failure("fresh", begun, repr(error)))

    async def _keep(self, pause: float) -> None:
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    ended = False
                    while not (ended or reader.at_eof() or self._end.is_set()):
                        begun = time.monotonic()
                        async with asyncio.timeout(PATIENCE / 2):
                            ended = await self._ask(reader, writer, b"")
                        await asyncio.sleep(max(0.0, pause - (time.monotonic() - begun)))
                finally:
                    writer.close()
            except Exception as error:
                self.failures.append(Failure("kept", begun, repr(error)))

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: bytes
    ) -> bool:
        """Send a request; return whether the response closes the connection."""
        writer.write(REQUEST % (self.path.encode(), fields))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        self.answers[(await reader.readexactly(length)).decode()] += 1
        return b"connection: close" in head.lower()
