"""A WSGI app (PEP 3333) as an ASGI 3 app: threads call the app, the event loop does the I/O."""

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
from ...server_log import logger
from ...typing import HeaderPairs, Message, Receive, Scope, Send
from .environ import Environ, environ
from .spool import Body, Refused, Spool
from .threads import LoopWaker, ThreadPool

WSGIApp: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

#: Maximum number of bytes that a thread may post before they are sent.
MAX_AHEAD = 256 * 1024
#: Bytes added to the length of each piece of body, for its overhead in memory.
PIECE_OVERHEAD = 128
#: Size in bytes up to which small pieces are joined. Copying large ones costs more than it saves.
JOIN_SIZE = 32 * 1024

# Items that a thread posts in addition to messages and pieces of body.
SYNC: Final = "sync"  # wake the thread when everything before this item has been sent
END: Final = "end"  # the call has ended

#: Hop-by-hop headers, which only the server may set (PEP 3333; RFC 9110 §7.6.1).
# fmt: off
_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"trailers", b"transfer-encoding", b"upgrade",
})
# fmt: on
#: Hop-by-hop headers of an app that were reported.
_reported: set[bytes] = set()
#: Iterators with a length hint. They show whether a piece of body is the last one.
_SIZED: frozenset[type] = frozenset({type(iter([])), type(iter(()))})


class WSGI:
    """ASGI 3 app that calls a WSGI app in threads.

    threads: maximum number of threads; further requests wait in order. spool_size: maximum size of
    the temporary files for request bodies, in bytes; 0: unlimited.
    """

    def __init__(self, app: WSGIApp, threads: int, spool_size: int = 0) -> None:
        self._app = app
        self._threads = ThreadPool(threads)
        self._multithread = threads > 1
        self._spool = Spool(spool_size)
        self._waker: LoopWaker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
        else:
            await send({"type": "websocket.close"})  # 403: WSGI has no WebSocket

    def close(self) -> None:
        """End idle threads now, and others after their request."""
        self._threads.close()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = environ(scope, self._multithread)
        body = Body(self._spool)
        try:
            # The whole body is received first, so that a slow client does not occupy a thread.
            if "CONTENT_LENGTH" in values:
                self._spool.check(int(values["CONTENT_LENGTH"]))
            source = await body.collect(receive)
            if source is not None:
                if values.pop("HTTP_TRANSFER_ENCODING", None) is not None:
                    values["CONTENT_LENGTH"] = str(body.length)
                values["wsgi.input"] = source
                await self._call(values, receive, send)
        except Refused as refused:
            for message in _response(refused.status, [PLAIN_TEXT], f"{refused}\n".encode()):
                await send(message)
        finally:
            body.close()

    async def _call(self, values: Environ, receive: Receive, send: Send) -> None:
        """Call the app in a thread, and send its response."""
        if self._waker is None:
            self._waker = LoopWaker(asyncio.get_running_loop())
        call = _Call(self._waker, receive)
        job = partial(contextvars.copy_context().run, call.run, self._app, values)
        if not self._threads.submit(job):  # while it waits, the client may disconnect
            call.watch(lambda: call.abandon() if self._threads.cancel(job) else None)
        try:
            await call.forward(send)
        except asyncio.CancelledError:
            call.cancel()
            if not self._threads.cancel(job):  # the app is running: wait for its end
                with suppress(ClientDisconnected):
                    await call.forward(send)
            raise


class _Call:
    """One call of the app: its thread posts items, and a task in the event loop handles them.

    docs/wsgi.md has a diagram. An item is a message, a piece of body, SYNC or END.
    """

    # fmt: off
    __slots__ = (
        "_ahead", "_bodiless", "_complete", "_disconnected", "_error", "_failure", "_head",
        "_is_head", "_items", "_length", "_receive", "_started", "_synced", "_waiter", "_waker",
    )
    # fmt: on

    def __init__(self, waker: LoopWaker, receive: Receive) -> None:
        self._waker = waker
        self._receive = receive
        self._items: deque[Any] = deque()
        #: Wakes the thread after SYNC.
        self._synced: SimpleQueue[None] = SimpleQueue()
        self._waiter: asyncio.Future[None] | None = None
        #: The exception of the app.
        self._error: BaseException | None = None
        #: The error that prevents sending. The thread raises it when it posts the next item.
        self._failure: Exception | None = None
        #: Whether the client has disconnected or closed its sending side; None: unknown.
        self._disconnected: bool | None = None
        # State of the response; only the thread uses it.
        self._head: Message | None = None  # from start_response, not posted yet
        self._length = -1  # the Content-Length, if there is one
        self._is_head = False  # the request method is HEAD
        self._started = False  # the head has been posted
        self._bodiless = False  # the response has no body
        self._complete = False  # everything has been posted
        self._ahead = 0  # bytes posted since the last SYNC

    # In the event loop.

    async def forward(self, send: Send) -> None:
        """Handle items until the call has ended. Raise the exception of the app or of `send`."""
        while (item := await self._next_item()) is not END:
            try:
                if self._failure is None:
                    await self._handle(item, send)
            except Exception as error:
                self._failure = error
            except BaseException:
                self.cancel()  # before the thread continues
                raise
            finally:
                if item is SYNC:
                    self._synced.put(None)
        failed = self._error or self._failure
        self._error, self._failure = None, ClientDisconnected("the request is over")
        if failed is not None:
            try:
                raise failed
            finally:
                del failed  # its traceback refers to this frame

    def cancel(self) -> None:
        """Make the thread raise ClientDisconnected at its next item: the request is cancelled."""
        self._failure = ClientDisconnected("the request was cancelled")

    async def _next_item(self) -> Any:
        while not self._items:
            self._waiter = self._waker.loop.create_future()
            await self._waiter
        return self._items.popleft()

    async def _handle(self, item: Any, send: Send) -> None:
        if type(item) is bytes:
            pieces, size = [item], len(item)
            while size < JOIN_SIZE and self._items and type(self._items[0]) is bytes:
                pieces.append(self._items.popleft())
                size += len(pieces[-1])
            item = _body(b"".join(pieces), True)
        if item is not SYNC:
            await send(item)

    def watch(self, callback: Callable[[], object]) -> None:
        """Call a function when the client disconnects or closes its sending side.

        At the latest, it is called at the end of the exchange.
        """
        asyncio.ensure_future(self._receive()).add_done_callback(lambda _: callback())

    def _set_disconnected(self) -> None:
        self._disconnected = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def abandon(self) -> None:
        """Respond with 503 without calling the app, because the client has disconnected."""
        self._post(*_response(503), END)

    # In the thread.

    def run(self, app: WSGIApp, values: Environ) -> None:
        """Call the app and post its response. The exception of the app is kept for `forward`."""
        errors = values["wsgi.errors"]
        try:
            try:
                self._call_app(app, values)
            finally:
                errors.flush()  # the last line may lack a line end
        except asyncio.CancelledError as error:  # from an event loop that the app runs
            # `forward` must not raise it: asyncio would treat the request as cancelled.
            self._error = RuntimeError("the app raised CancelledError")
            self._error.__cause__ = error
        except BaseException as error:
            self._error = error
        with suppress(RuntimeError):  # the event loop is closed
            disconnected = isinstance(self._error, ClientDisconnected)
            if disconnected and self._disconnected and not self._started:
                self._error = None
                self._post(*_response(503))
            self._post(END)

    def _call_app(self, app: WSGIApp, values: Environ) -> None:
        self._is_head = values["REQUEST_METHOD"] == "HEAD"  # the app may change the environ
        result = app(values, self._start_response)
        try:
            self._write_all(iter(result))
        finally:
            if (close := getattr(result, "close", None)) is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response was called twice without exc_info")
        code = _status_code(status)
        encoded = _encode(headers)
        self._length = -1
        for name, value in encoded:
            lower = name.lower()
            if lower in _HOP_BY_HOP:
                encoded = _without_hop_by_hop(encoded)
            elif lower == b"content-length" and value.isdigit():
                self._length = int(value)
        self._head = {"type": "http.response.start", "status": code, "headers": encoded}
        return self._write

    def _write_all(self, pieces: Iterator[bytes]) -> None:
        sized = type(pieces) in _SIZED
        for data in pieces:
            self._write(data, sized and length_hint(pieces) == 0)
            if self._bodiless:
                break
        if not self._complete:
            self._finish()

    def _write(self, data: bytes, last: bool = False) -> None:
        """Post a piece of body. `start_response` returns this method (`write` in PEP 3333)."""
        if type(data) is not bytes:
            data = _as_bytes(data)
        if self._complete:
            if data:
                text = f"the response body is {len(data)} bytes longer than its Content-Length"
                raise ValueError(text)
            return
        if self._started:
            self._post_or_raise(data)  # even an empty piece, so that a disconnect is noticed
        elif data:
            self._post_head(data, last or len(data) == self._length)
        else:
            self._check_disconnect()
            return
        self._ahead += len(data) + PIECE_OVERHEAD
        if self._ahead > MAX_AHEAD and not self._complete:
            self._post_or_raise(SYNC)
            self._synced.get()
            if self._failure is not None:
                raise self._failure
            self._ahead = 0

    def _post_head(self, data: bytes, complete: bool) -> None:
        """Post the head together with the first piece of body."""
        if self._head is None:
            raise RuntimeError("the app did not call start_response")
        self._started = True
        self._bodiless = self._is_head or self._head["status"] in (204, 304)
        self._complete = complete
        self._post_or_raise(self._head, _body(data, not complete))

    def _check_disconnect(self) -> None:
        """Raise ClientDisconnected if the client is known to have disconnected.

        Called for an empty piece before the head, when no `send` can notice the disconnect.
        """
        if self._disconnected is None:
            self._disconnected = False
            self._waker.call(lambda: self.watch(self._set_disconnected))
        if self._disconnected:
            raise ClientDisconnected("the client has disconnected")

    def _finish(self) -> None:
        self._complete = True
        if self._started:
            self._post_or_raise(_body(b"", False))
        else:
            self._post_head(b"", True)

    def _post_or_raise(self, *items: Any) -> None:
        if self._failure is not None:
            raise self._failure
        self._post(*items)

    def _post(self, *items: Any) -> None:
        self._items.extend(items)
        self._waker.call(self._wake)


def _status_code(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"the status must be str, not {type(status).__name__}")
    code, _, _ = status.partition(" ")
    if not (len(code) == 3 and code.isascii() and code.isdecimal()):
        raise ValueError(f"the status must be like '200 OK', not {status!r}")
    return int(code)


def _encode(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except AttributeError:
        raise TypeError(f"response headers must be pairs of str, not {headers!r}") from None


def _without_hop_by_hop(headers: HeaderPairs) -> list[tuple[bytes, bytes]]:
    """Return the headers that an app may set. Others are reported once, as other servers send them.

    A wrong `Connection` or `Transfer-Encoding` would break the framing of the response.
    """
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower not in _HOP_BY_HOP:
            kept.append((name, value))
        elif lower not in _reported:
            _reported.add(lower)
            text = "the response header %r of the app is not sent; only a server may set it"
            logger.warning(text, name.decode())
    return kept


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes):  # an instance of a subclass
        return bytes(data)
    raise TypeError(f"a piece of a response body must be bytes, not {type(data).__name__}")


def _body(data: bytes, more_body: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


def _response(status: int, headers: HeaderPairs = (), body: bytes = b"") -> tuple[Message, Message]:
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, _body(body, False)
