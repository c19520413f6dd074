"""Streams of frameworks whose client leaves: they end at once, and in order, as with uvicorn."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from tests.support.helpers import GET, LOOPS, PATIENCE, Client, in_loop
from tinyasgi import Server

pytest.importorskip("sse_starlette")

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Stream:
    """A stream that never ends by itself, and what becomes of it."""

    def __init__(self, app: Callable[["Stream"], Any], piece: bytes) -> None:
        """piece: what it sends again and again; if empty, one byte and nothing more."""
        self._app = app(self)
        self._piece = piece
        self.began = threading.Event()
        self.over = asyncio.Event()
        self.events: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        error = None
        try:
            await self._app(scope, receive, send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.events.append(("app", error))
            self.over.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        try:
            yield self._piece or b"x"
            self.began.set()
            while self._piece:
                await asyncio.sleep(0.001)
                yield self._piece
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        finally:
            self.events.append("same task" if asyncio.current_task() is task else "other task")

    async def in_background(self) -> None:
        await asyncio.sleep(0.01)
        self.events.append("background")

    async def respond(self, request: Any) -> StreamingResponse:
        return StreamingResponse(self.pieces(), background=BackgroundTask(self.in_background))


def starlette(stream: Stream) -> Any:
    return Starlette(routes=[Route("/", stream.respond)])


def starlette_middleware(stream: Stream) -> Any:
    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=dispatch)]
    return Starlette(routes=[Route("/", stream.respond)], middleware=middleware)


def fastapi(stream: Stream) -> Any:
    from fastapi import Depends, FastAPI  # takes 200 ms

    async def resource() -> AsyncIterator[None]:
        yield
        assert stream.events[-1] == "background"

    app = FastAPI()

    @app.get("/", dependencies=[Depends(resource)])
    async def endpoint() -> StreamingResponse:
        return await stream.respond(None)

    return app


def sse_starlette(stream: Stream) -> Any:
    async def respond(request: Any) -> EventSourceResponse:
        async def events() -> AsyncIterator[dict[str, str]]:
            async for piece in stream.pieces():
                yield {"data": piece.decode()}

        return EventSourceResponse(events(), background=BackgroundTask(stream.in_background))

    return Starlette(routes=[Route("/", respond)])


def task_group(stream: Stream) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200})
            async for piece in stream.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(respond)
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()
        await stream.in_background()

    return app


def close(client: Client) -> None:
    """By a FIN, unless something has arrived that is not read."""
    client.close()


def reset(client: Client) -> None:
    client.reset()


@pytest.mark.parametrize("leave", [close, reset])
@pytest.mark.parametrize(
    "piece", [b"", b"x" * 100, b"x" * 65536], ids=["quiet", "active", "blocked"]
)
@pytest.mark.parametrize(
    "app", [starlette, starlette_middleware, fastapi, sse_starlette, task_group]
)
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_stream_ends_with_its_client(
    loop: Any, app: Any, piece: bytes, leave: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(app, piece)

    def talk(port: int) -> None:
        client = Client(port)
        client.send(GET)
        assert client.head()[0] == 200
        assert stream.began.wait(PATIENCE)
        leave(client)

    async with Server(stream, port=0, lifespan="off") as server:
        await asyncio.to_thread(talk, server.port)
        await stream.over.wait()
    if app is starlette_middleware and piece:  # its own task may be the one that is cancelled
        assert stream.events[-2:] == ["background", ("app", None)]
    else:
        assert stream.events == ["cancelled", "same task", "background", ("app", None)]
    assert caplog.text == ""
