"""Apps of common ASGI frameworks that send a short response."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import apps

GREETING = b'{"message":"Hello, world!"}'


async def hello(request: Request) -> Response:
    """Send plain text."""
    return PlainTextResponse(apps.GREETING)


starlette_app = Starlette(routes=[Route("/", hello)])
fastapi_app = FastAPI()


ITEMS = 20
items_app = FastAPI()


@items_app.get("/")
async def list_items(name: str = "item") -> list[dict[str, object]]:
    """Send JSON of many small objects, enough for regular garbage collections."""
    return [
        {"id": number, "name": f"{name} {number}", "tags": ["a", "b"]} for number in range(ITEMS)
    ]


@fastapi_app.get("/")
async def greet(name: str = "world") -> dict[str, str]:
    """Send JSON, with a query parameter that has a default."""
    return {"message": f"Hello, {name}!"}
