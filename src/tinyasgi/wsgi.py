"""A WSGI app (PEP 3333) as an ASGI 3 app: each request has a thread, the loop speaks for it."""

import asyncio
import contextvars
import io
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from operator import length_hint
from queue import SimpleQueue
from typing import Any, Final, TypeAlias
from wsgiref.util import FileWrapper

from . import __version__
from .cache import Cache
from .exchange import ClientDisconnected
from .threads import Threads
from .typing import Message, Receive, Scope, Send

__all__ = ["WSGI"]

logger = logging.getLogger("tinyasgi.server")

Environ: TypeAlias = dict[str, Any]
WSGIApp: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

#: Bytes of a request body of known length that are there before a thread is taken.
COLLECT = 64 * 1024
#: Bytes that a thread may write ahead of what has been sent.
AHEAD = 256 * 1024
#: Least bytes of a block of a file.
BLOCK = 64 * 1024

# What a thread posts besides messages and pieces of body.
READ: Final = "read"  # asks for request body
SENT: Final = "sent"  # asks whether what was posted before has been sent
END: Final = "end"  # the call is over

# RFC 9110 §7.6.1; PEP 3333 leaves them to the server.
# fmt: off
_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "trailers", "transfer-encoding", "upgrade",
})
# fmt: on


class WSGI:
    """An ASGI 3 app that calls a WSGI app in threads."""

    def __init__(self, app: WSGIApp, threads: int) -> None:
        """threads: most of them; further requests wait in order."""
        self._app = app
        self._threads = Threads(threads)
        self._multithread = threads > 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._threads.end()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "websocket.close"})  # 403: WSGI knows no WebSocket

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        environ = _environ(scope, self._multithread)
        # A client that sends slowly holds no thread, unless it may wait for what the app says.
        enough = COLLECT if "CONTENT_LENGTH" in environ else 1
        if "HTTP_EXPECT" in environ:
            enough = 0
        body, more_body = b"", True
        while more_body and len(body) < enough:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more_body = message["more_body"]
        call = _Call(asyncio.get_running_loop())
        if more_body:
            environ["wsgi.input"] = io.BufferedReader(_Body(body, call.read), BLOCK)
        else:
            environ["wsgi.input"] = io.BytesIO(body)
        job = partial(contextvars.copy_context().run, call.run, self._app, environ)
        if not self._threads.run(job) and not more_body:
            left = asyncio.ensure_future(receive())  # at the end of the exchange at the latest
            left.add_done_callback(lambda _: self._threads.withdraw(job) and call.refuse())
        try:
            await call.serve(receive, send)
        except asyncio.CancelledError:
            call.failure = ClientDisconnected("the request was cancelled")
            if not self._threads.withdraw(job):  # the app hears of it when it reads or writes
                with suppress(ClientDisconnected):
                    await call.serve(receive, send)
            raise


class _Call:
    """One call of the app: a thread makes it, a task of the loop sends and receives for it.

    What the thread posts is taken in its order: messages to send, pieces of body, and questions,
    whose answer the thread waits for. One wake-up of the loop tells of all that was posted since
    the last one; most calls take no more than that.
    """

    # fmt: off
    __slots__ = (
        "_answers", "_complete", "_error", "_head", "_length", "_loop", "_pending", "_posted",
        "_told", "_waiter", "failure",
    )
    # fmt: on

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[Any] = deque()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._told = False  # the loop will look at what was posted
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        #: Why there is no use in posting any more.
        self.failure: Exception | None = None
        # Of the response, as far as the thread has come.
        self._head: Message | None = None  # what start_response was called with
        self._length = -1  # what content-length says, as long as nothing was posted
        self._pending = -1  # bytes of body that were posted since it was known that all was sent
        self._complete = False

    # In the loop.

    async def serve(self, receive: Receive, send: Send) -> None:
        """Sends and receives for the thread until the call is over. Raises what it ended with."""
        while (item := await self._next()) is not END:
            answer = None
            try:
                if self.failure is None:
                    answer = await self._act(item, receive, send)
            except Exception as error:
                self.failure = error
            finally:
                if item is READ or item is SENT:
                    self._answers.put(answer)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # whose traceback has this frame
        if self.failure is not None:
            raise self.failure

    def refuse(self) -> bool:
        """There will be no thread for it."""
        start = {"type": "http.response.start", "status": 503, "headers": []}
        self._post(start, _body(b"", False), END)
        return True

    async def _next(self) -> Any:
        while not self._posted:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._posted.popleft()

    async def _act(self, item: Any, receive: Receive, send: Send) -> Any:
        if item is READ:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client has left before the end of its body")
            return message["body"], message["more_body"]
        if type(item) is bytes:
            pieces = [item]
            while self._posted and type(self._posted[0]) is bytes:
                pieces.append(self._posted.popleft())
            item = _body(b"".join(pieces), True)
        if item is not SENT:
            await send(item)
        return None

    def _look(self) -> None:
        self._told = False  # first: what is posted from here on tells again
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # In the thread.

    def run(self, app: WSGIApp, environ: Environ) -> None:
        """Calls the app and posts its response."""
        try:
            result = app(environ, self._start_response)
            try:
                self._respond(iter(result), environ["REQUEST_METHOD"] == "HEAD")
            finally:
                if (close := getattr(result, "close", None)) is not None:
                    close()
        except BaseException as error:
            self._error = error
        with suppress(RuntimeError):  # the loop has ended before
            self._post(END)

    def _respond(self, pieces: Any, is_head: bool) -> None:
        for data in pieces:
            if data:
                # A list of one piece is whole with it, and so is what is as long as was announced.
                self._write(data, len(data) == self._length or length_hint(pieces, 1) == 0)
                if is_head:  # the rest would be left out
                    break
        if self._pending < 0:
            self._write(b"", True)
        elif not self._complete:
            self._say(_body(b"", False))

    def _start_response(
        self, status: str, fields: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._pending >= 0:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response was called twice")
        code, _, _ = status.partition(" ")
        if not code.isdecimal():
            raise ValueError(f"the status must be like '200 OK', not {status!r}")
        self._length = -1
        for name, value in fields:
            lower = name.lower()
            if lower in _HOP_BY_HOP:
                raise ValueError(f"the response field {name!r} is for the server to set (PEP 3333)")
            if lower == "content-length" and value.isdecimal():
                self._length = int(value)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        self._head = {"type": "http.response.start", "status": int(code), "headers": headers}
        return self.write

    def write(self, data: bytes) -> None:
        """What start_response returns."""
        if data:
            self._write(data, len(data) == self._length)

    def _write(self, data: bytes, whole: bool) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"a piece of a response body must be bytes, not {type(data).__name__}")
        if self._head is None:
            raise RuntimeError("the app did not call start_response")
        if self._complete:
            raise ValueError(f"the response body is {len(data)} bytes longer than was announced")
        if self._pending < 0:  # the head waits for the first piece
            self._pending, self._length, self._complete = len(data), -1, whole
            self._say(self._head, _body(data, not whole))
            return
        self._say(data)
        self._pending += len(data)
        if self._pending > AHEAD:
            self._ask(SENT)
            self._pending = 0

    def read(self) -> tuple[bytes, bool]:
        """A further piece of the request body, and whether there is more. Raises OSError."""
        answer: tuple[bytes, bool] = self._ask(READ)
        return answer

    def _ask(self, question: str) -> Any:
        self._say(question)
        answer = self._answers.get()
        if self.failure is not None:
            raise self.failure
        return answer

    def _say(self, *items: Any) -> None:
        if self.failure is not None:
            raise self.failure
        self._post(*items)

    def _post(self, *items: Any) -> None:
        self._posted.extend(items)
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._look)


def _body(data: bytes, more_body: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more_body}


class _Body(io.RawIOBase):
    """`wsgi.input` while request body is still to come."""

    def __init__(self, body: bytes, read: Callable[[], tuple[bytes, bool]]) -> None:
        self._data = body
        self._more_body = True
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._more_body and not self._data:
            self._data, self._more_body = self._read()
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


class _Errors:
    """`wsgi.errors`: what is written to it becomes a record of the server's log, line by line."""

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> None:
        self._text += text
        if text.endswith("\n"):
            self.flush()

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text.strip():
            logger.error("%s", text.rstrip("\n"))


def _file_wrapper(file: Any, block_size: int = BLOCK) -> FileWrapper:
    return FileWrapper(file, max(block_size, BLOCK))


def _key(name: bytes) -> str:
    """The key of a field's value; none for a name that could pass for another one in WSGI.

    `X_Forwarded_For` would have the key of `X-Forwarded-For`, which a proxy answers for.
    """
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key


_keys = Cache(_key, 256, longest=64)


def _environ(scope: Scope, multithread: bool) -> Environ:
    """What PEP 3333 and CGI (RFC 3875) tell of a request; texts are bytes as latin-1."""
    raw_path, query = scope["raw_path"], scope["query_string"].decode("latin-1")
    target = path = raw_path.decode("latin-1")
    if "%" in path:
        from urllib.parse import unquote_to_bytes  # not before it is needed: 7 ms at start

        path = unquote_to_bytes(raw_path).decode("latin-1")
    mount = scope["root_path"].encode().decode("latin-1")
    if mount and (path == mount or path.startswith(mount + "/")):
        path = path[len(mount) :]
    host, port = scope["server"] or ("localhost", None)
    if port is None:  # a unix socket
        host, port = "localhost", 443 if scope["scheme"] == "https" else 80
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": f"{target}?{query}" if query else target,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "SERVER_SOFTWARE": f"tinyasgi/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": _Errors(),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,  # as far as the app can know
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _file_wrapper,
        "asgi.scope": scope,
    }
    if scope["client"] is not None:
        environ["REMOTE_ADDR"], port = scope["client"]
        environ["REMOTE_PORT"] = str(port)
    for name, value in scope["headers"]:
        key, text = _keys[name], value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if name == b'cookie' else ', '}{text}"
        if key:
            environ[key] = text
    if "HTTP_TRANSFER_ENCODING" in environ:
        # The input ends with the body in any case. But with a length werkzeug watches the end
        # better by itself: a client that has left is then no error of the app.
        environ["wsgi.input_terminated"] = True
    return environ
