"""Properties of a connection for any bytes of a client.

The first byte of an input selects the response of the app, the end of the connection and the size
of the reads. The client sends the other bytes; 0xFF ends a read. Both parsers must have the same
result. The app must see the same requests if all bytes arrive in one read.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyasgi.protocols.states import ServerState
from tinyasgi.testing import MemoryConnection, connect

__all__ = ["check"]

#: Small limits, which short inputs can exceed.
LIMITS = {"limit_head_size": 400, "limit_head_fields": 8, "limit_body_size": 100}
#: Maximum number of short reads.
READS = 40
#: Seconds; more than any timeout.
LONG = 1000

#: The next request of another client. All connections share a parser.
PLAIN = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
#: Valid responses: complete heads, and bodies without bytes of a client.
RESPONSES = re.compile(
    rb"(?:HTTP/1\.1 100 Continue\r\n\r\n"
    rb"|HTTP/1\.1 [2-5][0-9]{2} [A-Za-z -]+\r\n(?:[a-z-]+: [ -~]*\r\n)+\r\n"
    rb"(?:6\r\nhello\n\r\n(?:0\r\n\r\n)?|[ -~]+\n)?)*"
)


class App:
    """App that responds in one of four ways and records scopes and messages."""

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
    """Check an input. Raises AssertionError, or the exception of the server."""
    options, sent = data[0] if data else 0, data[1:]
    reads = list(cut(sent, READS if options & 16 else 1))
    whole = sent.replace(b"\xff", b"")
    with quiet_logs():
        httptools = await outcome(options, reads, "httptools")
        h11 = await outcome(options, reads, "h11")
        _, scopes, _ = await outcome(options, [whole], "httptools")
    assert httptools == h11, f"httptools: {httptools}\nh11: {h11}"
    # If the last request has an error in its body, it may be refused before the app sees it.
    pieces = httptools[1]
    # If a client that waits for 100 (Continue) gets a response instead, the server closes.
    waits = b"expect" in whole.lower()
    assert waits or scopes in (pieces, pieces[:-1]), f"in pieces: {pieces}\nin one: {scopes}"


def cut(data: bytes, count: int) -> Iterator[bytes]:
    """Cut data into about `count` pieces, and at each byte 0xFF."""
    size = len(data) // count + 1
    for piece in data.split(b"\xff"):
        for position in range(0, len(piece), size):
            yield piece[position : position + size]


async def outcome(
    options: int, reads: list[bytes], http: str
) -> tuple[bytes, list[Any], list[Any]]:
    """Return the bytes of the server, and the scopes and messages of the app."""
    app = App(options)
    async with connect(app, http=http, http2=False, date_header=False, **LIMITS) as connection:
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
    """End the connection: half-close, reset or idle client, or shutdown of the server."""
    context = connection.context
    if choice == 1:
        await connection.eof()
    elif choice == 2:
        await connection.reset()
    elif choice == 3:
        context.enter(ServerState.LEAVING)
        context.enter(ServerState.STOPPING)
        for known in list(context.connections):
            known.stop()
        await connection.settle()
    # Timeouts of a WebSocket (two), its stream and its connection, the check that notices what the
    # peer has read, and the timeout for its close.
    for _ in range(8):
        context.ticks += LONG
        for known in list(context.connections):
            if known in context.connections:
                known.check_timeouts(context.ticks)
        await connection.settle()


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Check that the log has no errors, and no control characters for a terminal."""
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
