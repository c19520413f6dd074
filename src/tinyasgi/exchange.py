"""One request and its response, as the app sees them (ASGI HTTP specification 2.5)."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from .typing import Message, Scope

__all__ = ["ClientDisconnected", "Connection", "Exchange", "Phase"]


class ClientDisconnected(OSError):
    """What `send()` raises once the client has left.

    An app may let it pass: the server takes it for the normal end of an exchange.
    """


class Phase:
    """Where an exchange stands: plain numbers, for they are compared at every message."""

    WAITING: Final = 0  # the app has sent nothing yet
    STARTED: Final = 1  # http.response.start is kept until the first body comes
    STREAMING: Final = 2  # the head has been written, more body is to come
    COMPLETE: Final = 3  # the response has been written to its end
    LOST: Final = 4  # the response can't be written any more


_PHASES = ("at the start", "after http.response.start", "within the body", "after the end")


class Connection(Protocol):
    """What an exchange asks of the connection that carries it."""

    paused: bool
    """More is written than the peer takes: who streams waits until `Exchange.wake`."""
    eof: bool
    """The peer sends no more; it may still read."""

    @property
    def stopping(self) -> bool:
        """The server stops: who streams is to say goodbye."""
        ...

    def write_head(
        self,
        exchange: "Exchange",
        status: int,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
        more_body: bool,
    ) -> None:
        """Writes the head and the first piece of the body. Raises TypeError or ValueError."""
        ...

    def write_body(self, exchange: "Exchange", body: bytes, more_body: bool) -> None:
        """Writes a further piece of the body. Raises ValueError."""
        ...

    def abort(self, exchange: "Exchange") -> None:
        """Ends a response that stays incomplete, so that the client sees that it is."""
        ...

    def want_body(self, exchange: "Exchange") -> None:
        """The app waits for body that has not arrived."""
        ...


class Exchange:
    """The two awaitables that an app is called with, and the phase that they move along.

    It may outlive its response and its connection: `connection` is there up to the phases
    COMPLETE and LOST.
    """

    __slots__ = (
        "_arrived",
        "_body",
        "_fields",
        "_taken",
        "_waiters",
        "cancelled",
        "connection",
        "framing",
        "method",
        "persistent",
        "phase",
        "scope",
        "sent",
        "started",
        "status",
        "target",
        "task",
        "version",
        "wants_continue",
    )

    connection: Connection
    task: asyncio.Task[None]
    framing: int
    """How the rest of the response body is framed (`encoder.Framing`)."""
    started: float
    """When the request arrived, in seconds of `time.perf_counter`; set for the access log."""
    _fields: Iterable[tuple[bytes, bytes]]

    def __init__(
        self, connection: Connection, scope: Scope, method: str, target: bytes, version: str
    ) -> None:
        self.connection = connection
        self.scope = scope
        # As received: an app may write to its scope.
        self.method = method
        self.target = target
        self.version = version
        self.phase = 0
        self.status = 0
        self.sent = 0  # bytes of response body
        self.persistent = True  # the connection may carry another exchange (RFC 9112 §9.3)
        self.wants_continue = False  # the client waits for 100 (Continue) to send the body
        self.cancelled = False
        self._body = b""
        self._arrived = True  # the request body has, to its end
        self._taken = False  # the app has got all of it
        self._waiters: set[asyncio.Future[None]] | None = None

    async def receive(self) -> Message:
        """ASGI's `receive`: any number of tasks may call it, at any time."""
        while self.phase < Phase.COMPLETE:
            if self.phase == Phase.STREAMING and self.connection.stopping:
                break
            if self._body or (self._arrived and not self._taken):
                body, self._body = self._body, b""
                self._taken = self._arrived
                return {"type": "http.request", "body": body, "more_body": not self._arrived}
            if not self._arrived:
                self.connection.want_body(self)
            elif self.connection.eof:
                break
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`. It waits while the client reads more slowly than the app writes.

        Raises ClientDisconnected; RuntimeError for a message out of order; TypeError, ValueError
        or KeyError for one with a wrong value.
        """
        kind = message["type"]
        phase = self.phase
        if phase == Phase.LOST:
            raise ClientDisconnected("the client has left")
        if kind == "http.response.body" and (phase in (Phase.STARTED, Phase.STREAMING)):
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            more_body = message.get("more_body", False)
            connection = self.connection
            if phase == Phase.STARTED:
                connection.write_head(self, self.status, self._fields, body, more_body)
            else:
                connection.write_body(self, body, more_body)
            while connection.paused and self.phase == Phase.STREAMING:
                await self._wait()
                if self.phase == Phase.LOST:
                    raise ClientDisconnected("the client has left")
        elif kind == "http.response.start" and phase == Phase.WAITING:
            self.status = message["status"]
            self._fields = message.get("headers", ())
            self.phase = Phase.STARTED
        else:
            raise RuntimeError(f"{kind!r} can't be sent {_PHASES[phase]} of a response")

    async def _wait(self) -> None:
        """Until `wake`; a future exists only while a task waits."""
        if self._waiters is None:
            self._waiters = set()
        future = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        try:
            await future
        finally:
            self._waiters.discard(future)

    def wake(self) -> None:
        """Lets every task that waits in `receive` or `send` look again."""
        for future in self._waiters or ():
            if not future.done():
                future.set_result(None)

    def expect_body(self) -> None:
        """The request has a body, which `feed` will bring."""
        self._arrived = False

    def feed(self, data: bytes, arrived: bool) -> int:
        """Takes request body from the connection; the bytes that the app has still to take.

        arrived: this is the end of it.
        """
        self._body = self._body + data if self._body else data
        self._arrived = arrived
        if self._waiters:
            self.wake()
        return len(self._body)

    @property
    def incomplete(self) -> bool:
        """Whether the response has yet to end."""
        return self.phase < Phase.COMPLETE

    @property
    def awaited(self) -> bool:
        """Whether a task waits in `receive` or `send`."""
        return bool(self._waiters)

    def finish(self, phase: int) -> None:
        """COMPLETE or LOST: from here on the exchange does without its connection."""
        self.phase = phase
        self._body = b""
        del self.connection
        self.wake()

    def cancel(self) -> None:
        """The server ends the app's task."""
        self.cancelled = True
        self.task.cancel()

    def ended(self, error: BaseException | None) -> BaseException | None:
        """The app returned, or raised `error`: what there is to report of it, if anything."""
        phase = self.phase
        if phase < Phase.COMPLETE:
            self.connection.abort(self)
            if error is None:
                return RuntimeError(f"the app returned {_PHASES[phase]} of its response")
        if isinstance(error, asyncio.CancelledError) and self.cancelled:
            return None
        if phase == Phase.LOST and any(isinstance(e, ClientDisconnected) for e in _chain(error)):
            return None
        return error


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of 'http.response.body' must be bytes, not {type(body).__name__}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, those it was raised from or within, and those it groups."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _chain(member)
        error = error.__cause__ or error.__context__
