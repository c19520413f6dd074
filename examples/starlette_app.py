"""A Starlette application: JSON, a streamed response, static files, and lifespan state.

    pip install starlette
    tinyasgi examples.starlette_app:app

Then try:

    curl     http://127.0.0.1:8000/          JSON
    curl -N  http://127.0.0.1:8000/count/9   a streamed response
    browser: http://127.0.0.1:8000/static/   files from the folder ``static``
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).with_name("static")


class State(TypedDict):
    """Lifespan state, which requests read from ``request.state``."""

    visits: Counter[str]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Run startup code before ``yield`` and shutdown code after it."""
    visits = Counter[str]()
    yield {"visits": visits}
    visits.clear()


async def home(request: Request) -> JSONResponse:
    """Count the visits of each client in the lifespan state."""
    client = request.client.host if request.client else "unknown"
    request.state.visits[client] += 1
    return JSONResponse({"client": client, "visits": request.state.visits[client]})


async def count(request: Request) -> StreamingResponse:
    """Stream numbers, one per line."""

    async def lines(last: int) -> AsyncIterator[str]:
        for number in range(1, last + 1):
            yield f"{number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(request.path_params["last"]), media_type="text/plain")


app = Starlette(
    routes=[
        Route("/", home),
        Route("/count/{last:int}", count),
        Mount("/static", StaticFiles(directory=STATIC, html=True)),
    ],
    lifespan=lifespan,
)
