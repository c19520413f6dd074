"""What must hold whatever a client sends.

An input's first byte chooses how the app answers, how the connection ends and whether reads are
short. The rest is what the client sends; a byte 0xFF in it ends a read. Both parsers must come to
the same result, and the app must see the same requests when everything arrives in one read.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyasgi.testing import MemoryConnection, connect

__all__ = ["check"]

#: Small, so that short inputs reach them.
LIMITS = {"limit_head_size": 400, "limit_head_fields": 8, "limit_body_size": 100}
#: Most reads when they are short.
READS = 40
#: More seconds than any deadline has.
LONG = 1000

#: What another client sends next; all connections share a parser.
PLAIN = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
#: What a server may send to anybody: whole heads, and bodies that hold nothing of a client's.
RESPONSES = re.compile(
    rb"(?:HTTP/1\.1 100 Continue\r\n\r\n"
    rb"|HTTP/1\.1 [2-5][0-9]{2} [A-Za-z -]+\r\n(?:[a-z-]+: [ -~]*\r\n)+\r\n"
    rb"(?:6\r\nhello\n\r\n(?:0\r\n\r\n)?|[ -~]+\n)?)*"
)


class App:
    """Answers in one of four ways and keeps what it is told."""

    def __init__(self, choice: int) -> None:
        self._reads_first = bool(choice & 1)
        self._streams = bool(choice & 2)
        self.scopes: list[Any] = []
        self.messages: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if self._reads_first:
            await self._read(receive)
        await send({"type": "http.response.start", "status": 200})
        body = {"type": "http.response.body", "body": b"hello\n"}
        await send(body | {"more_body": self._streams})
        if self._streams:
            if not self._reads_first:
                await self._read(receive)
            await send({"type": "http.response.body"})

    async def _read(self, receive: Any) -> None:
        more_body = True
        while more_body:
            message = await receive()
            self.messages.append(message)
            more_body = message.get("more_body", False)


async def check(data: bytes) -> None:
    """Raises AssertionError, or what went wrong, for an input that shows a fault."""
    options, sent = data[0] if data else 0, data[1:]
    reads = list(cut(sent, READS if options & 16 else 1))
    whole = sent.replace(b"\xff", b"")
    with quiet_logs():
        httptools = await outcome(options, reads, "httptools")
        h11 = await outcome(options, reads, "h11")
        _, scopes, _ = await outcome(options, [whole], "httptools")
    assert httptools == h11, f"httptools: {httptools}\nh11: {h11}"
    # The last one is refused before the app sees it when a fault in its body is seen first.
    pieces = httptools[1]
    # Who waits for 100 (Continue) and gets its answer first has the connection closed.
    waits = b"expect" in whole.lower()
    assert waits or scopes in (pieces, pieces[:-1]), f"in pieces: {pieces}\nin one: {scopes}"


def cut(data: bytes, count: int) -> Iterator[bytes]:
    """Data in about `count` pieces, and cut where it has a byte 0xFF."""
    size = len(data) // count + 1
    for piece in data.split(b"\xff"):
        for position in range(0, len(piece), size):
            yield piece[position : position + size]


async def outcome(
    options: int, reads: list[bytes], http: str
) -> tuple[bytes, list[Any], list[Any]]:
    """What the server sends, and the scopes and messages that the app gets."""
    app = App(options)
    async with connect(app, http=http, date_header=False, **LIMITS) as connection:
        await connection.feed(*filter(None, reads))
        await end(connection, options >> 2 & 3)
        sent = bytes(connection.sent)
        assert RESPONSES.fullmatch(sent), f"{http}: {sent!r}"
        assert connection.is_closing(), f"{http}: the connection stays open"
        assert not connection.context.connections, f"{http}: the connection is still known"
        assert not connection.context.running, f"{http}: an exchange is still running"
        fields = connection.context.parser.parse_headers(PLAIN, PLAIN.index(b"Host"))
        assert fields == [(b"host", b"here")], f"{http}: the next connection gets {fields}"
    return sent, app.scopes, app.messages


async def end(connection: MemoryConnection, choice: int) -> None:
    """The client sends no more, breaks off or does nothing; or the server stops."""
    context = connection.context
    if choice == 1:
        await connection.eof()
    elif choice == 2:
        await connection.reset()
    elif choice == 3:
        context.stopping = True
        for known in list(context.connections):
            known.stop()
        await connection.settle()
    # A deadline, the sweep that sees what the peer has read, and the deadline for it to leave.
    for _ in range(3):
        context.ticks += LONG
        for known in list(context.connections):
            known.sweep(context.ticks)
        await connection.settle()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Nothing worse than a warning is logged, and nothing that a terminal would act on."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment]
    loggers = [logging.getLogger(name) for name in ("tinyasgi", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    for record in records:
        text = record.getMessage()
        assert record.levelno <= logging.WARNING, f"{text} {record.exc_info}"
        assert text.isprintable(), repr(text)
