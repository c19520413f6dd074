"""A WSGI app (PEP 3333) as an ASGI 3 app: a thread calls it, the loop sends and receives."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from operator import length_hint
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

from ...errors import ClientDisconnected
from ...http.response import PLAIN_TEXT
from ...typing import Message, Receive, Scope, Send
from .environ import Environ, environ
from .spool import Body, Refused, Spool
from .threads import LoopWaker, Threads

__all__ = ["WSGI"]

WSGIApp: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

#: Bytes of response that a thread may be ahead of what was sent, and what a piece counts besides.
AHEAD = 256 * 1024
PIECE = 128
#: Pieces are joined until they have so many bytes: to copy large ones costs more than it saves.
JOIN = 32 * 1024

# What a thread posts besides messages and pieces of body.
WATCH: Final = "watch"  # asks to be told when the client leaves
SENT: Final = "sent"  # asks to be told when all that was posted before is sent
END: Final = "end"  # the call is over

#: What PEP 3333 leaves to the server (RFC 9110 §7.6.1).
# fmt: off
_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"trailers", b"transfer-encoding", b"upgrade",
})
# fmt: on
#: Iterators that know how much is left: a body of one piece is whole with it.
_COUNTED: frozenset[type] = frozenset({type(iter([])), type(iter(()))})


class WSGI:
    """An ASGI 3 app that calls a WSGI app in threads."""

    def __init__(self, app: WSGIApp, threads: int, spool_size: int = 0) -> None:
        """threads: most of them; further requests wait in order. spool_size: as for `Spool`."""
        self._app = app
        self._threads = Threads(threads)
        self._multithread = threads > 1
        self._spool = Spool(spool_size)
        self._bell: LoopWaker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "websocket.close"})  # 403: WSGI knows no WebSocket

    def close(self) -> None:
        """End the threads, those that run a request after it."""
        self._threads.end()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = environ(scope, self._multithread)
        body = Body(self._spool)
        try:
            # A client that still has to send something holds no thread.
            if "CONTENT_LENGTH" in values:
                self._spool.check(int(values["CONTENT_LENGTH"]))
            source = await body.collect(receive)
            if source is not None:
                if values.pop("HTTP_TRANSFER_ENCODING", None) is not None:
                    values["CONTENT_LENGTH"] = str(body.length)  # which is known by now
                values["wsgi.input"] = source
                await self._run(values, receive, send)
        except Refused as refused:
            await _answer(send, refused.status, f"{refused}\n".encode())
        finally:
            body.close()

    async def _run(self, values: Environ, receive: Receive, send: Send) -> None:
        """Have a thread run the app; send what it responds."""
        if self._bell is None:
            self._bell = LoopWaker(asyncio.get_running_loop())
        call = _Call(self._bell, receive)
        job = partial(contextvars.copy_context().run, call.run, self._app, values)
        if not self._threads.run(job):
            call.watch(lambda: self._threads.withdraw(job) and call.refuse())
        try:
            await call.serve(send)
        except asyncio.CancelledError:
            call.cancel()
            if not self._threads.withdraw(job):
                with suppress(ClientDisconnected):
                    await call.serve(send)
            raise


class _Call:
    """One call of the app: what its thread posts, a task of the loop takes in the same order.

    These are messages to send, pieces of body, and SENT, whose answer the thread waits for.
    """

    # fmt: off
    __slots__ = (
        "_ahead", "_answers", "_bell", "_bodiless", "_complete", "_error", "_gone", "_head",
        "_is_head", "_length", "_posted", "_receive", "_started", "_waiter", "failure",
    )
    # fmt: on

    def __init__(self, bell: LoopWaker, receive: Receive) -> None:
        self._bell = bell
        self._receive = receive
        self._posted: deque[Any] = deque()
        self._answers: SimpleQueue[None] = SimpleQueue()
        self._waiter: asyncio.Future[None] | None = None
        #: What the app has raised.
        self._error: BaseException | None = None
        #: The client has left, or at least sends no more; None while nobody looks.
        self._gone: bool | None = None
        #: Why there is no use in posting any more.
        self.failure: Exception | None = None
        # Of the response, as the thread knows it.
        self._head: Message | None = None  # what start_response was called with
        self._length = -1  # what its content-length says
        self._is_head = False  # of the request
        self._started = False  # the head is posted
        self._bodiless = False  # and no body follows it
        self._complete = False  # all is posted
        self._ahead = 0  # bytes that were posted since all was known to be sent

    # In the loop.

    async def serve(self, send: Send) -> None:
        """Does what the thread asks for until the call is over. Raises what it ended with."""
        while (item := await self._next()) is not END:
            try:
                if self.failure is None:
                    await self._act(item, send)
            except Exception as error:
                self.failure = error
            except BaseException:
                self.cancel()  # before the thread has its answer
                raise
            finally:
                if item is SENT:
                    self._answers.put(None)
        ended = self._error or self.failure
        self._error, self.failure = None, ClientDisconnected("the request is over")
        if ended is not None:
            try:
                raise ended
            finally:
                del ended  # its traceback leads back to here

    def cancel(self) -> None:
        """The task of the request is cancelled: the app hears of it when it writes."""
        self.failure = ClientDisconnected("the request was cancelled")

    async def _next(self) -> Any:
        while not self._posted:
            self._waiter = self._bell.loop.create_future()
            await self._waiter
        return self._posted.popleft()

    async def _act(self, item: Any, send: Send) -> None:
        if type(item) is bytes:
            pieces, size = [item], len(item)
            while size < JOIN and self._posted and type(self._posted[0]) is bytes:
                pieces.append(self._posted.popleft())
                size += len(pieces[-1])
            item = _body(b"".join(pieces), True)
        if item is WATCH:
            self.watch(self._set_gone)
        elif item is not SENT:
            await send(item)

    def watch(self, on_left: Callable[[], object]) -> None:
        """Have a function called when the client leaves, or at least sends no more.

        It is called at the end of the exchange at the latest.
        """
        asyncio.ensure_future(self._receive()).add_done_callback(lambda _: on_left())

    def _set_gone(self) -> None:
        self._gone = True

    def _look(self) -> None:
        """The thread has posted something."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def refuse(self) -> bool:
        """There will be no thread for it: the client has left, or has at least closed its side."""
        self._post(*_unavailable(), END)
        return True

    # In the thread.

    def run(self, app: WSGIApp, values: Environ) -> None:
        """Calls the app and posts its response."""
        errors = values["wsgi.errors"]
        try:
            try:
                self._run(app, values)
            finally:
                errors.flush()  # what was written without a line end
        except asyncio.CancelledError as error:
            # Of a loop within the app. In this loop it would say that the request is cancelled.
            self._error = RuntimeError("the app raised CancelledError")
            self._error.__cause__ = error
        except BaseException as error:
            self._error = error
        with suppress(RuntimeError):  # the loop is closed
            if self._gone and not self._started and isinstance(self._error, ClientDisconnected):
                self._error = None  # it is no fault of the app
                self._post(*_unavailable())
            self._post(END)

    def _run(self, app: WSGIApp, values: Environ) -> None:
        self._is_head = values["REQUEST_METHOD"] == "HEAD"  # before the app changes the environ
        result = app(values, self._start_response)
        try:
            self._respond(iter(result))
        finally:
            if (close := getattr(result, "close", None)) is not None:
                close()

    def _start_response(
        self, status: str, fields: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response was called twice")
        if not isinstance(status, str):
            raise TypeError(f"the status must be str, not {type(status).__name__}")
        code, _, _ = status.partition(" ")
        if not (len(code) == 3 and code.isascii() and code.isdecimal()):
            raise ValueError(f"the status must be like '200 OK', not {status!r}")
        try:  # once: it may be an iterator
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        except AttributeError:
            raise TypeError(f"response headers must be pairs of str, not {fields!r}") from None
        self._length = -1
        for name, value in headers:
            lower = name.lower()
            if lower in _HOP_BY_HOP:
                raise ValueError(f"the response field {name.decode()!r} is for the server to set")
            if lower == b"content-length" and value.isdigit():
                self._length = int(value)
        self._head = {"type": "http.response.start", "status": int(code), "headers": headers}
        return self._write

    def _respond(self, pieces: Iterator[bytes]) -> None:
        counted = type(pieces) in _COUNTED
        for data in pieces:
            self._write(data, counted and length_hint(pieces) == 0)
            if self._bodiless:  # what follows would be left out
                break
        if not self._complete:
            self._finish()

    def _write(self, data: bytes, last: bool = False) -> None:
        """Posts a piece of body; also what `start_response` returns. last: no other follows."""
        if type(data) is not bytes:
            data = _as_bytes(data)
        if self._complete:
            if data:
                raise ValueError(f"the response body is {len(data)} bytes longer than announced")
            return
        if self._started:
            self._say(data)  # even if it is empty: `send` raises when the client has left
        elif data:
            self._begin(data, last or len(data) == self._length)
        else:
            self._look_for_client()
            return
        self._ahead += len(data) + PIECE
        if self._ahead > AHEAD and not self._complete:
            self._say(SENT)
            self._answers.get()
            if self.failure is not None:
                raise self.failure
            self._ahead = 0

    def _begin(self, data: bytes, whole: bool) -> None:
        """Posts the head, which waits for the first piece of body."""
        if self._head is None:
            raise RuntimeError("the app did not call start_response")
        self._started = True
        self._bodiless = self._is_head or self._head["status"] in (204, 304)
        self._complete = whole
        self._say(self._head, _body(data, not whole))

    def _look_for_client(self) -> None:
        """Raises ClientDisconnected if the client has left, as far as is known.

        For an empty piece before the head is posted, when no `send` can say it.
        """
        if self._gone is None:
            self._gone = False
            self._say(WATCH)
        if self._gone:
            raise ClientDisconnected("the client has left")

    def _finish(self) -> None:
        self._complete = True
        if self._started:
            self._say(_body(b"", False))
        else:
            self._begin(b"", True)

    def _say(self, *items: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self._post(*items)

    def _post(self, *items: Any) -> None:
        self._posted.extend(items)
        self._bell.ring(self._look)


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes):  # of a subclass
        return bytes(data)
    raise TypeError(f"a piece of a response body must be bytes, not {type(data).__name__}")


def _body(data: bytes, more_body: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def _unavailable() -> tuple[Message, Message]:
    """The response to a client that has left, or has at least closed its side."""
    start = {"type": "http.response.start", "status": 503, "headers": []}
    return start, _body(b"", False)


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [PLAIN_TEXT]})
    await send(_body(body, False))
