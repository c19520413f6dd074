"""One request and its response, as the app sees them (ASGI HTTP specification)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from inspect import CORO_CREATED, getattr_static, getcoroutinestate
from typing import Any, Final

from ..errors import ClientDisconnected
from ..http.client import ClientInfo
from ..http.request import RequestLine
from ..http.response import NO_BODY
from ..typing import HeaderPairs, Message, Scope
from .states import (
    COMPLETE,
    LOST,
    SENDING_FILE,
    STARTED,
    STREAMING,
    TRAILERS,
    WAITING,
    Phase,
)
from .stream import EXTENSIONS, Stream

#: With `spec_version` 2.4 or later, Starlette's streaming responses do not listen for
#: `http.disconnect`. A response that waits for its next event would then outlive its client. `send`
#: raises ClientDisconnected, although this version does not require it.
ASGI = {"version": "3.0", "spec_version": "2.3"}

# Bytes that an app may send before `send` yields to other tasks, and the cost of one message,
# however short.
SEND_QUOTA: Final = 1 << 20
MESSAGE_COST: Final = 256
#: Iterations of the event loop that `send` waits, so that another task can cancel its task.
CANCEL_TURNS: Final = 10

#: Bytes of request body that may wait for the app before reading pauses.
HIGH_WATER: Final = 64 * 1024

# Progress of the request body.
ARRIVING: Final = 0
ARRIVED: Final = 1
TAKEN: Final = 2  # the app has received all of it

# When the head of a response is written if no body accompanies it.
ON_WAIT: Final = 0  # when the app waits for the first time
SOON: Final = 1  # at the end of this iteration of the event loop: the app has waited before
NEVER: Final = 2  # `send` has raised an exception since: the app will fail, or send a body

_INCOMPLETE = {
    WAITING: "without sending a response",
    STARTED: "without sending http.response.body",
    STREAMING: "before the end of the body (the last message had more_body=True)",
    SENDING_FILE: "while a file was being sent",
    TRAILERS: "without sending http.response.trailers",
}


class Exchange:
    """One request and its response: the app's `receive` and `send`, and their phase.

    An app may continue after its response, so an exchange may outlive its connection. It has a
    `stream` until the phase is COMPLETE or LOST.
    """

    # fmt: off
    __slots__ = (
        "_body",
        "_input",
        "_listeners",
        "_waiters",
        "client",
        "credit",
        "framing",
        "head_flush",
        "line",
        "persistent",
        "phase",
        "request_id",
        "response_headers",
        "scope",
        "sent",
        "started",
        "status",
        "stream",
        "task",
        "trailers",
    )
    # fmt: on

    stream: Stream
    framing: int
    """Framing of the rest of the response body (`response.Framing`)."""
    started: float
    """Time of arrival, in seconds of `time.perf_counter`; set for the access log."""
    client: ClientInfo
    """Source of the request; set for the access log."""
    response_headers: HeaderPairs
    """Response headers, set when the app has sent `http.response.start`."""

    def __init__(self, stream: Stream, scope: Scope, line: RequestLine, persistent: bool) -> None:
        self.stream = stream
        #: None during the first step of an eager task.
        self.task: asyncio.Task[None] | None = None
        scope["asgi"] = ASGI.copy()
        self.scope = scope
        self.line = line  # as received: an app may write to its scope
        self.persistent = persistent  # the connection is kept alive (RFC 9112 §9.3)
        #: Response header with the request id, sent unless the app sets that header.
        self.request_id: tuple[bytes, bytes] | None = None
        self.phase: Phase = WAITING
        self.status = 0
        self.sent = 0  # bytes of response body
        #: When the head is written if no body accompanies it.
        self.head_flush = ON_WAIT
        #: Trailers that the app has sent so far; None: it has not announced any.
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.credit = SEND_QUOTA  # bytes that the app may send before `send` yields
        self._body: bytes | bytearray = b""
        self._input: int = ARRIVED
        self._waiters: tuple[asyncio.Future[None], ...] = ()
        #: Tasks that wait in `receive`, or that have received `http.disconnect`.
        self._listeners: tuple[asyncio.Task[Any] | None, ...] = ()

    async def receive(self) -> Message:
        """Implement ASGI's `receive`. Any number of tasks may call it, at any time."""
        while self.phase < COMPLETE:
            if self.phase is STREAMING and self.stream.stopping:
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
                self.stream.want_body(self)
            elif self.stream.eof:
                break
            await self._listen()
        self._listeners = (*self._listeners, asyncio.current_task())
        return {"type": "http.disconnect"}

    async def _listen(self) -> None:
        """Wait for `wake`. The current task is a listener until then, or until it is cancelled."""
        task = asyncio.current_task()
        self._listeners = (*self._listeners, task)
        try:
            await self.wait()
        finally:
            self._listeners = tuple(each for each in self._listeners if each is not task)

    async def send(self, message: Message) -> None:
        """Implement ASGI's `send`. It waits while the client reads more slowly than the app writes.

        Raises ClientDisconnected if the client has disconnected, unless another task listens for
        that (`drop`). Raises RuntimeError for a message in the wrong order, and TypeError,
        ValueError or KeyError for a wrong value.
        """
        try:
            kind = message["type"]
            phase = self.phase
            if phase is WAITING and kind == "http.response.start":
                status = message["status"]
                self.status = status if type(status) is int else _as_status(status)
                # A tuple, because an iterator can be read only once.
                self.response_headers = tuple(message.get("headers", ()))
                if "trailers" in message:
                    self.trailers = [] if message["trailers"] else None
                self.phase = STARTED
                if self.head_flush == SOON:
                    asyncio.get_running_loop().call_soon(self._flush_head)
            elif kind == "http.response.body" and (phase is STARTED or phase is STREAMING):
                body = message.get("body", b"")
                if type(body) is not bytes:
                    body = _as_bytes(body)
                more = message.get("more_body", False) or self.trailers is not None
                if phase is STARTED:
                    self.stream.write_head(self, self.response_headers, body, more)
                else:
                    self.stream.write_body(self, body, more)
                if self.phase is LOST:
                    await self.drop(body)
                elif more:
                    if self.trailers is not None and not message.get("more_body", False):
                        self.phase = TRAILERS
                    self.credit -= len(body) + MESSAGE_COST
                    if self.credit < 0 or self.stream.paused:
                        await self.take_turns()
            elif phase is LOST and (kind == "http.response.body" or kind in EXTENSIONS):
                await self.drop(message.get("body", b""))
            elif phase is LOST or (
                # An error response, after `receive` has returned `http.disconnect`.
                kind == "http.response.start" and phase < COMPLETE and self.stream.eof
            ):
                raise ClientDisconnected("the client has disconnected")
            elif phase < COMPLETE and kind in EXTENSIONS:
                from . import extensions  # rarely needed

                await extensions.send(self, message)
            else:
                raise RuntimeError(misplaced(kind, phase))
        except BaseException:
            if self.phase is STARTED:
                self.head_flush = NEVER
            raise

    def wait_begins(self) -> None:
        """Write a head without a body, because the app waits for the first time, or has ended."""
        if self.head_flush == ON_WAIT:
            self.head_flush = SOON
            self._flush_head()

    def _flush_head(self) -> None:
        """Write the head without a body. `send` raises its errors, for the next message."""
        if self.phase is STARTED and self.head_flush == SOON:
            with suppress(TypeError, ValueError):
                self.stream.write_head(self, self.response_headers, b"", True)

    async def take_turns(self) -> None:
        """Wait until the write buffer has room, and yield to other tasks."""
        while self.phase < COMPLETE and self.stream.paused:
            await self.wait()
        if self.credit < 0:
            self.credit = SEND_QUOTA
            await asyncio.sleep(0)
        if self.phase is LOST:
            await self.drop()

    async def drop(self, body: bytes = b"") -> None:
        """Drop a piece of the body after a disconnect, or raise ClientDisconnected.

        If another task listens for `http.disconnect`, that task ends the response: it cancels the
        sender. The sender expects this where it waits for data, not in `send`. So `send` drops data
        and returns until the quota is used, as in servers whose `send` never raises.
        """
        listeners = self._listeners
        if listeners and asyncio.current_task() not in listeners:
            self.credit -= len(body) + MESSAGE_COST
            if self.credit >= 0:
                return
            for _ in range(CANCEL_TURNS):
                await asyncio.sleep(0)
        raise ClientDisconnected("the client has disconnected")

    def wait(self) -> asyncio.Future[None]:
        """Return a future that `wake` completes. It exists only while a task waits."""
        future: asyncio.Future[None] = asyncio.Future()  # create_future of uvloop is slower
        if self._waiters:  # those of other tasks, or of tasks that were cancelled
            waiting = [waiter for waiter in self._waiters if not waiter.done()]
            self._waiters = (*waiting, future)
        else:
            self._waiters = (future,)
        return future

    def wake(self) -> None:
        """Wake all tasks that wait in `receive` or `send`, so that they check the state again."""
        for future in self._waiters:
            if not future.done():
                future.set_result(None)
        self._waiters = ()

    def expect_body(self) -> None:
        """Wait for a request body, which `feed` adds."""
        self._input = ARRIVING

    def feed(self, data: bytes, arrived: bool) -> None:
        """Add request body. arrived: the body is complete."""
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
    def waiting(self) -> int:
        """Bytes of request body that wait for the app."""
        return len(self._body)

    @property
    def full(self) -> bool:
        """Reading should pause until the app calls `Stream.want_body`."""
        return self._input == ARRIVING and len(self._body) > HIGH_WATER

    @property
    def unwritten(self) -> bool:
        """More bytes will be written. Only a write shows whether the client still reads."""
        return self.phase < STREAMING or self.framing != NO_BODY

    @property
    def awaited(self) -> bool:
        """A task waits in `receive` or `send`."""
        return any(not future.done() for future in self._waiters)

    def is_health_check(self, path: str | None) -> bool:
        """Return whether the server itself answers the request, on the health path `path`."""
        return self.line.route == path

    def finish(self, phase: Phase, on_finish: Callable[["Exchange"], None] | None) -> None:
        """Enter the phase COMPLETE or LOST, drop the stream, and call `on_finish`, if any."""
        self.phase = phase
        self.credit = SEND_QUOTA
        del self.stream
        if self._waiters:
            self.wake()
        if on_finish is not None:
            on_finish(self)

    def cancel(self) -> None:
        """Abort the response, if it is incomplete, and cancel the app's task."""
        if self.phase < COMPLETE:
            self.stream.abort(self)
        task = self.task or asyncio.current_task()
        assert task is not None
        if getcoroutinestate(task.get_coro()) == CORO_CREATED:  # type: ignore[arg-type]
            # Let the task take its first step, or its code would never run, not even a `finally`.
            task.get_loop().call_soon(task.cancel)
        else:
            task.cancel()

    def ended(self, error: BaseException | None) -> BaseException | None:
        """Finish after the app has returned or raised `error`.

        Returns the exception to report, or None.
        """
        phase = self.phase
        if phase < COMPLETE:
            # Whether `receive` returns `http.disconnect`.
            disconnected = self.stream.eof or (phase is STREAMING and self.stream.stopping)
            self.stream.abort(self)
            if error is None and not disconnected:
                return RuntimeError(f"the app returned {_INCOMPLETE[phase]}")
        elif isinstance(error, asyncio.CancelledError):
            return None
        return None if is_disconnect(error, set()) else error


def misplaced(kind: str, phase: Phase) -> str:
    """Describe a message that can't be sent in this phase."""
    if phase is WAITING and (kind == "http.response.body" or kind in EXTENSIONS):
        return f"{kind!r} was sent before 'http.response.start'"
    if phase >= COMPLETE:
        return f"{kind!r} was sent after the response was complete"
    if phase is SENDING_FILE:
        return f"{kind!r} was sent while a file was being sent"
    if kind == "http.response.trailers":
        return f"{kind!r} was sent before the end of the body, or was not announced (trailers=True)"
    if phase is TRAILERS:
        return f"{kind!r} was sent after the end of the body"
    if kind == "http.response.pathsend":
        return f"{kind!r} was sent after 'http.response.body'"
    if kind == "http.response.start":
        return f"{kind!r} was sent twice"
    return f"unsupported message type: {kind!r}"


def _as_status(status: object) -> int:
    """Convert a status that is not exactly an int, such as HTTPStatus. Raises ValueError."""
    if isinstance(status, int | float) and status == int(status):
        return int(status)
    raise ValueError(f"the status of 'http.response.start' must be an int, not {status!r}")


def _as_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of 'http.response.body' must be bytes, not {type(body).__name__}")


def is_disconnect(error: BaseException | None, seen: set[int], codes: tuple[int, ...] = ()) -> bool:
    """Return whether an error only reports a disconnect.

    That is a ClientDisconnected, an error raised from one, or a group of such errors. An error
    raised while a ClientDisconnected was handled is an error of its own.

    seen: ids of the errors that led to this one, because causes and groups may form a cycle. codes:
    values of the attribute `code` of errors that a framework raises for `websocket.disconnect`.
    """
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # getattr_static, because a property of the app may raise
        if isinstance(error, ClientDisconnected) or getattr_static(error, "code", None) in codes:
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(is_disconnect(each, seen.copy(), codes) for each in error.exceptions)
        error = error.__cause__
    return False
