"""A steady load of small requests, for tests of what must not fail meanwhile."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.helpers import PATIENCE

__all__ = ["KEPT", "Load"]

REQUEST = b"GET %b HTTP/1.1\r\nHost: here\r\n%b\r\n"
#: Connections that are kept alive.
KEPT = 10


@dataclass
class Failure:
    """A request that got no answer. Times are of `time.monotonic`."""

    kind: str
    begun: float
    error: str
    ended: float = field(default_factory=time.monotonic)


@dataclass
class Load:
    """Requests in a thread while a `with` block runs: half on fresh connections, half on kept ones.

    rate: requests a second. A client that sees the end of a connection before it sends a request
    connects anew, as any client does; all else is a failure.
    """

    port: int
    rate: int = 1000
    path: str = "/"
    answers: Counter[str] = field(default_factory=Counter)
    """The number of answers by their body."""
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
        print(f"{self.count} answers in {seconds:.1f} s by {workers} workers, failed: {failures}")

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
        """Whether the connection ends with the answer."""
        writer.write(REQUEST % (self.path.encode(), fields))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        self.answers[(await reader.readexactly(length)).decode()] += 1
        return b"connection: close" in head.lower()
