"""One request and its response, as the app sees them (ASGI HTTP specification)."""

import asyncio
from inspect import CORO_CREATED, getattr_static, getcoroutinestate
from typing import Any, Final, Protocol

from ..errors import ClientDisconnected
from ..http.client import ClientInfo
from ..http.request import RequestLine
from ..http.response import NO_BODY
from ..typing import HeaderPairs, Message, Scope

__all__ = ["COMPLETE", "LOST", "REFUSED", "STARTED", "STREAMING", "WAITING"]
__all__ += ["Carrier", "Exchange", "is_disconnect"]

#: From 2.4 on Starlette does not listen for `http.disconnect` while it streams: a stream that waits
#: for its next event would outlive its client. `send` raises as 2.4 has it, all the same.
ASGI = {"version": "3.0", "spec_version": "2.3"}

# Where an exchange stands: plain numbers, for they are compared at every message.
WAITING: Final = 0  # the app has sent nothing yet
STARTED: Final = 1  # http.response.start is kept until the first body comes
STREAMING: Final = 2  # the head has been written, more body is to come
COMPLETE: Final = 3  # the response has been written to its end
LOST: Final = 4  # the response can't be written any more
REFUSED: Final = 5  # the server has answered, and never called the app

# An app may send so many bytes without a wait before others get their turn, and a message alone
# counts for some.
TURN: Final = 1 << 20
MESSAGE: Final = 256
# Turns of the event loop in which a listener can cancel a task that sends without a wait.
TURNS: Final = 10

#: Bytes of request body that may wait for the app before reading pauses.
HIGH_WATER: Final = 64 * 1024

# How far the request body has come.
ARRIVING: Final = 0
ARRIVED: Final = 1
TAKEN: Final = 2  # by the app, to its end

_PHASES = ("at the start", "after http.response.start", "within the body", "after the end")


class Carrier(Protocol):
    """What an exchange asks of the connection that carries it: the seam between the two."""

    client: ClientInfo
    """Where the request comes from."""
    paused: bool
    """More is written than the peer takes: who streams waits until `Exchange.wake`."""
    eof: bool
    """The peer sends no more; it may still read."""

    @property
    def stopping(self) -> bool:
        """The server stops: who streams is to say goodbye."""

    def write_head(
        self, exchange: "Exchange", headers: HeaderPairs, body: bytes, more_body: bool
    ) -> None:
        """Writes the head and the first piece of the body. Raises TypeError or ValueError."""

    def write_body(self, exchange: "Exchange", body: bytes, more_body: bool) -> None:
        """Writes a further piece of the body. Raises ValueError."""

    def abort(self, exchange: "Exchange") -> None:
        """Ends a response that stays incomplete: the client gets a 500, or sees the break."""

    def want_body(self, exchange: "Exchange") -> None:
        """The app waits for body that has not arrived."""


class Exchange:
    """The two awaitables that an app is called with, and the phase that they move along.

    It may outlive its response and its connection: `connection` is there until the phase is
    COMPLETE or LOST.
    """

    # fmt: off
    __slots__ = (
        "_body",
        "_credit",
        "_input",
        "_listeners",
        "_waiters",
        "client",
        "connection",
        "framing",
        "line",
        "persistent",
        "phase",
        "response_headers",
        "scope",
        "sent",
        "started",
        "status",
        "task",
    )
    # fmt: on

    connection: Carrier
    framing: int
    """How the rest of the response body is framed (`response.Framing`)."""
    started: float
    """When the request arrived, in seconds of `time.perf_counter`; set for the access log."""
    client: ClientInfo
    """The source of the request; set for the access log."""
    response_headers: HeaderPairs
    """Of the response, once the app has said them."""

    def __init__(
        self, connection: Carrier, scope: Scope, line: RequestLine, persistent: bool
    ) -> None:
        self.connection = connection
        #: None during the first step of an eager task.
        self.task: asyncio.Task[None] | None = None
        scope["asgi"] = ASGI.copy()
        self.scope = scope
        self.line = line  # as received: an app may write to its scope
        self.persistent = persistent  # the connection may carry another exchange (RFC 9112 §9.3)
        self.phase: int = WAITING
        self.status = 0
        self.sent = 0  # bytes of response body
        self._credit = TURN
        self._body: bytes | bytearray = b""
        self._input: int = ARRIVED
        self._waiters: tuple[asyncio.Future[None], ...] = ()
        #: Tasks that wait in `receive`, or that it has given `http.disconnect`.
        self._listeners: tuple[asyncio.Task[Any] | None, ...] = ()

    async def receive(self) -> Message:
        """ASGI's `receive`: any number of tasks may call it, at any time."""
        while self.phase < COMPLETE:
            if self.phase == STREAMING and self.connection.stopping:
                break
            if self._body or self._input == ARRIVED:
                body, self._body = self._body, b""
                if type(body) is not bytes:
                    body = bytes(body)
                more_body = self._input == ARRIVING
                if not more_body:
                    self._input = TAKEN
                return {"type": "http.request", "body": body, "more_body": more_body}
            if self._input == ARRIVING:
                self.connection.want_body(self)
            elif self.connection.eof:
                break
            await self._listen()
        self._listeners = (*self._listeners, asyncio.current_task())
        return {"type": "http.disconnect"}

    async def _listen(self) -> None:
        """Wait until `wake`; a task that is cancelled here does not listen any more."""
        task = asyncio.current_task()
        self._listeners = (*self._listeners, task)
        try:
            await self._wait()
        finally:
            self._listeners = tuple(each for each in self._listeners if each is not task)

    async def send(self, message: Message) -> None:
        """ASGI's `send`. It waits while the client reads more slowly than the app writes.

        Raises ClientDisconnected once the client has left, unless another task listens for that
        (`_drop`); RuntimeError for a message out of order; TypeError, ValueError or KeyError for
        one with a wrong value.
        """
        kind = message["type"]
        phase = self.phase
        if phase == WAITING and kind == "http.response.start":
            status = message["status"]
            self.status = status if type(status) is int else _as_status(status)
            self.response_headers = tuple(
                message.get("headers", ())
            )  # an iterator can be read only once
            self.phase = STARTED
        elif kind == "http.response.body" and WAITING < phase < COMPLETE:
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            more_body = message.get("more_body", False)
            if phase == STARTED:
                self.connection.write_head(self, self.response_headers, body, more_body)
            else:
                self.connection.write_body(self, body, more_body)
            if self.phase == LOST:
                await self._drop(body)
            elif more_body:
                self._credit -= len(body) + MESSAGE
                if self._credit < 0 or self.connection.paused:
                    await self._take_turns()
        elif phase == LOST and kind == "http.response.body":
            await self._drop(message.get("body", b""))
        elif phase == LOST or (
            # An error response, by an app that has found out by `receive`.
            kind == "http.response.start" and phase < COMPLETE and self.connection.eof
        ):
            raise ClientDisconnected("the client has left")
        else:
            raise RuntimeError(f"{kind!r} can't be sent {_PHASES[phase]} of a response")

    async def _take_turns(self) -> None:
        """Waits for a client that reads more slowly, and lets others have their turn."""
        while self.phase == STREAMING and self.connection.paused:
            await self._wait()
        if self._credit < 0:
            self._credit = TURN
            await asyncio.sleep(0)
        if self.phase == LOST:
            await self._drop(b"")

    async def _drop(self, body: bytes) -> None:
        """Drop a piece of a body whose client has left. Raises ClientDisconnected.

        If another task listens for `http.disconnect`, that one decides how the response ends. It
        cancels the sender, which expects that where it waits for more to send, not in `send`. So
        the sender goes on, as with servers whose `send` never raises, for as much as it may send
        without a wait.
        """
        listeners = self._listeners
        if listeners and asyncio.current_task() not in listeners:
            self._credit -= len(body) + MESSAGE
            if self._credit >= 0:
                return
            for _ in range(TURNS):
                await asyncio.sleep(0)
        raise ClientDisconnected("the client has left")

    def _wait(self) -> asyncio.Future[None]:
        """What to await until `wake`; a future exists only while a task waits."""
        future = asyncio.get_running_loop().create_future()
        if self._waiters:  # those of other tasks, or of tasks that were cancelled
            waiting = [waiter for waiter in self._waiters if not waiter.done()]
            self._waiters = (*waiting, future)
        else:
            self._waiters = (future,)
        return future

    def wake(self) -> None:
        """Lets every task that waits in `receive` or `send` look again."""
        for future in self._waiters:
            if not future.done():
                future.set_result(None)
        self._waiters = ()

    def expect_body(self) -> None:
        """The request has a body, which `feed` will bring."""
        self._input = ARRIVING

    def feed(self, data: bytes, arrived: bool) -> None:
        """Take request body from the connection.

        arrived: this is the end of it.
        """
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytearray):
            self._body += data
        else:  # a bytearray grows without being copied for each read
            self._body = bytearray(self._body + data)
        if arrived:
            self._input = ARRIVED
        if self._waiters:
            self.wake()

    @property
    def full(self) -> bool:
        """More body is to come than the app has room for; it asks for that by `want_body`."""
        return self._input == ARRIVING and len(self._body) > HIGH_WATER

    @property
    def unwritten(self) -> bool:
        """More of the response is to be written; writing shows whether the client still reads."""
        return self.phase != STREAMING or self.framing != NO_BODY

    @property
    def awaited(self) -> bool:
        """Whether a task waits in `receive` or `send`."""
        return any(not future.done() for future in self._waiters)

    def leave(self, phase: int) -> None:
        """COMPLETE or LOST: from here on the exchange does without its connection."""
        self.phase = phase
        self._credit = TURN
        del self.connection
        if self._waiters:
            self.wake()

    def cancel(self) -> None:
        """End the response where it stands, and cancel the app's task."""
        if self.phase < COMPLETE:
            self.connection.abort(self)
        task = self.task or asyncio.current_task()
        assert task is not None
        if getcoroutinestate(task.get_coro()) == CORO_CREATED:  # type: ignore[arg-type]
            # It would never run, not even its `finally`: let it take its first step.
            task.get_loop().call_soon(task.cancel)
        else:
            task.cancel()

    def ended(self, error: BaseException | None) -> BaseException | None:
        """The app returned, or raised `error`: what there is to report of it, if anything."""
        phase = self.phase
        if phase < COMPLETE:
            stopping = phase == STREAMING and self.connection.stopping
            told = stopping or self.connection.eof  # `receive` has `http.disconnect` for the app
            self.connection.abort(self)
            if error is None and not told:
                return RuntimeError(f"the app returned {_PHASES[phase]} of its response")
        elif isinstance(error, asyncio.CancelledError):
            return None
        return None if is_disconnect(error, set()) else error


def _as_status(status: object) -> int:
    """Convert what an app uses for a status, such as HTTPStatus. Raises ValueError."""
    if isinstance(status, int | float) and status == int(status):
        return int(status)
    raise ValueError(f"the status of 'http.response.start' must be an int, not {status!r}")


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of 'http.response.body' must be bytes, not {type(body).__name__}")


def is_disconnect(error: BaseException | None, seen: set[int], codes: tuple[int, ...] = ()) -> bool:
    """Tell whether an error is nothing but a disconnect.

    It is a ClientDisconnected, was raised from one, or is a group of such errors. An error that
    was raised while a ClientDisconnected was handled is an error of its own. seen: the ids of
    errors on the way to this one, as causes and groups may form a cycle. codes: an error with
    one of these as its `code` is a framework's exception for `websocket.disconnect`.
    """
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # By no property of the app: it might raise.
        if isinstance(error, ClientDisconnected) or getattr_static(error, "code", None) in codes:
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(is_disconnect(each, seen.copy(), codes) for each in error.exceptions)
        error = error.__cause__
    return False
