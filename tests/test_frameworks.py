"""Apps of common frameworks, served over a socket."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.support.helpers import GET, PATIENCE, Client
from tinyasgi.testing import serve

# Deprecations within the frameworks are ignored.
pytestmark = [
    pytest.mark.xdist_group("frameworks"),  # each process imports them for a second
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@contextmanager
def client(app: Any, **options: Any) -> Iterator[httpx.Client]:
    with (
        serve(app, **options) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors if record.name.startswith("tinyasgi")] == []


# Starlette.


def test_starlette_files(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import FileResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    content = bytes(range(256)) * 4000
    (tmp_path / "large.bin").write_bytes(content)
    (tmp_path / "index.html").write_text("<p>static")

    async def file(request):
        return FileResponse(tmp_path / "large.bin", filename="renamed.bin")

    routes = [Route("/file", file), Mount("/static", StaticFiles(directory=tmp_path, html=True))]
    with client(Starlette(routes=routes)) as http:
        response = http.get("/file")
        assert response.content == content
        assert "renamed.bin" in response.headers["content-disposition"]
        part = http.get("/file", headers={"range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, content[1000:2000])
        head = http.head("/file")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
        page = http.get("/static/")
        assert page.text == "<p>static"
        fresh = http.get("/static/index.html", headers={"if-none-match": page.headers["etag"]})
        assert (fresh.status_code, fresh.content) == (304, b"")
        assert http.get("/static/../pyproject.toml").status_code == 404


def test_starlette_streams_and_background_tasks() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    release, done = threading.Event(), threading.Event()

    async def stream(request):
        async def numbers():
            for number in range(1000):
                yield f"{number}\n"

        return StreamingResponse(numbers())

    async def later(request):
        async def work():
            await asyncio.to_thread(release.wait, PATIENCE)
            done.set()

        return PlainTextResponse("started", background=BackgroundTask(work))

    with client(Starlette(routes=[Route("/stream", stream), Route("/later", later)])) as http:
        response = http.get("/stream")
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.text == "".join(f"{number}\n" for number in range(1000))
        assert http.get("/later").text == "started"
        assert http.get("/stream").status_code == 200
        assert not done.is_set()
        release.set()
    assert done.is_set()


def test_starlette_sees_clients_leave() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    polled, stopped = threading.Event(), threading.Event()

    async def poll(request):
        async def ticks():
            yield "tick"
            polled.set()
            try:
                while not await request.is_disconnected():
                    await asyncio.sleep(0.001)
            finally:  # Starlette checks for a disconnect, too, and may notice it first
                stopped.set()

        return StreamingResponse(ticks())

    async def endless(request):
        async def ticks():
            try:
                while True:
                    yield "tick" * 1000
                    await asyncio.sleep(0)
            finally:
                stopped.set()

        return StreamingResponse(ticks())

    with client(Starlette(routes=[Route("/poll", poll), Route("/endless", endless)])) as http:
        for path in ("/poll", "/endless"):
            stopped.clear()
            with http.stream("GET", path) as response:
                assert next(response.iter_text()).startswith("tick")
            assert stopped.wait(PATIENCE)


def test_starlette_lifespan_and_middleware() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    events = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        events.append("start")
        yield {"database": "a pool"}
        events.append("stop")

    async def dispatch(request, call_next):
        response = await call_next(request)
        response.headers["x-middleware"] = "passed"
        return response

    async def echo(request):
        body = await request.body()
        return JSONResponse({"database": request.state.database, "size": len(body)})

    app = Starlette(
        routes=[Route("/", echo, methods=["POST"])],
        lifespan=lifespan,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )
    with client(app, lifespan="on") as http:
        response = http.post("/", content=bytes(1_000_000))
        assert response.json() == {"database": "a pool", "size": 1_000_000}
        assert response.headers["x-middleware"] == "passed"
        assert http.get("/").status_code == 405
        assert events == ["start"]
    assert events == ["start", "stop"]


# FastAPI.


def test_fastapi() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("python_multipart")
    from fastapi import FastAPI, UploadFile
    from pydantic import BaseModel

    class Item(BaseModel):
        name: str
        price: float

    app = FastAPI(title="The shop")

    @app.post("/items")
    def create(item: Item) -> Item:  # a plain function, which FastAPI runs in a thread
        return item

    @app.post("/upload")
    async def upload(file: UploadFile) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    with client(app) as http:
        docs = http.get("/docs")
        assert docs.headers["content-type"].startswith("text/html")
        assert "The shop" in docs.text
        assert "/items" in http.get("/openapi.json").json()["paths"]
        item = {"name": "book", "price": 7.5}
        assert http.post("/items", json=item).json() == item
        wrong = http.post("/items", json={"name": "book", "price": "cheap"})
        assert wrong.status_code == 422
        assert wrong.json()["detail"][0]["loc"] == ["body", "price"]
        sent = http.post("/upload", files={"file": ("large.bin", bytes(3_000_000))})
        assert sent.json() == {"name": "large.bin", "size": 3_000_000}


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_fastapi_below_a_path(root_path: str) -> None:
    pytest.importorskip("fastapi")
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.get("/where")
    async def where(request: Request) -> str:
        return str(request.url_for("where").path)

    with client(app, root_path=root_path) as http:
        assert http.get("/where").json() == f"{root_path}/where"
        assert http.get(f"{root_path}/where").json() == f"{root_path}/where"
        assert f"{root_path}/openapi.json" in http.get(f"{root_path}/docs").text


# Django.


@pytest.fixture(scope="module")
def django_app(django_settings: Any) -> Any:
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def plain(request):
        return HttpResponse(f"hello from {threading.current_thread().name}")

    async def asynchronous(request):
        await asyncio.sleep(0)
        return JsonResponse({"method": request.method, "size": len(request.body)})

    def upload(request):
        file = request.FILES["file"]
        return JsonResponse({"name": file.name, "size": file.size, "note": request.POST["note"]})

    async def stream(request):
        async def numbers():
            for number in range(100):
                yield f"{number}\n"

        return StreamingHttpResponse(numbers())

    async def without_end(request):
        return StreamingHttpResponse(endless())

    urls = ModuleType("tinyasgi_test_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("plain", plain),
        path("async", asynchronous),
        path("upload", upload),
        path("stream", stream),
        path("endless", without_end),
    ]
    sys.modules[urls.__name__] = urls
    django_settings.ROOT_URLCONF = urls.__name__
    yield get_asgi_application()
    del sys.modules[urls.__name__]


def test_django(django_app: Any) -> None:
    with client(django_app) as http:
        assert http.get("/plain").text.startswith("hello from ")
        assert http.post("/async", content=bytes(2_000_000)).json() == {
            "method": "POST",
            "size": 2_000_000,
        }
        sent = http.post("/upload", files={"file": ("a.txt", b"content")}, data={"note": "b"})
        assert sent.json() == {"name": "a.txt", "size": 7, "note": "b"}
        assert http.get("/stream").text == "".join(f"{number}\n" for number in range(100))
        assert http.get("/missing").status_code == 404
        head = http.head("/plain")
        assert (head.status_code, head.content) == (200, b"")


# Quart and Litestar.


def test_quart() -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart("quart_app", root_path=str(Path(__file__).parent))
    events = []

    @app.before_serving
    async def start() -> None:
        events.append("start")

    @app.after_serving
    async def stop() -> None:
        events.append("stop")

    @app.post("/echo")
    async def echo() -> Any:
        return await quart.request.get_data()

    @app.get("/stream")
    async def stream() -> Any:
        async def numbers() -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%d\n" % number

        return numbers()

    with client(app, lifespan="on") as http:
        assert http.post("/echo", content=bytes(500_000)).content == bytes(500_000)
        assert http.get("/stream").text == "".join(f"{number}\n" for number in range(100))
        assert http.get("/missing").status_code == 404
    assert events == ["start", "stop"]


def test_litestar() -> None:
    litestar = pytest.importorskip("litestar")
    from litestar.response import Stream

    @litestar.get("/sum/{a:int}/{b:int}", sync_to_thread=True)
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @litestar.post("/echo")
    async def echo(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @litestar.get("/stream")
    async def stream() -> Stream:
        async def numbers() -> AsyncIterator[str]:
            for number in range(100):
                yield f"{number}\n"

        return Stream(numbers())

    with client(litestar.Litestar([add, echo, stream], logging_config=None), lifespan="on") as http:
        assert http.get("/sum/2/3").json() == {"sum": 5}
        assert http.post("/echo", json={"a": [1, 2]}).json() == {"a": [1, 2]}
        assert http.post("/echo", content=b"{").status_code == 400
        assert http.get("/stream").text == "".join(f"{number}\n" for number in range(100))
        assert "/sum/{a}/{b}" in http.get("/schema/openapi.json").json()["paths"]


# Streams that are open at shutdown.


async def endless() -> AsyncIterator[str]:
    yield "data: first\n\n"
    await asyncio.Event().wait()


def stream_of_sse_starlette() -> Any:
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def stream(request):
        return EventSourceResponse(endless())

    return Starlette(routes=[Route("/", stream)])


def stream_of_quart() -> Any:
    import quart

    app = quart.Quart("streams", root_path=str(Path(__file__).parent))

    @app.get("/")
    async def stream():
        return endless(), 200

    return app


def stream_of_litestar() -> Any:
    import litestar
    from litestar.response import Stream

    @litestar.get("/")
    async def stream() -> Stream:
        return Stream(endless())

    return litestar.Litestar([stream], logging_config=None)


@pytest.mark.parametrize("make", [stream_of_sse_starlette, stream_of_quart, stream_of_litestar])
def test_stream_that_ends_because_of_the_stop_is_no_failure(make: Any) -> None:
    pytest.importorskip(make.__name__.removeprefix("stream_of_"))
    ends_with_the_server(make())


def test_stream_of_django_that_ends_because_of_the_stop_is_no_failure(django_app: Any) -> None:
    ends_with_the_server(django_app, b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")


def ends_with_the_server(app: Any, request: bytes = GET) -> None:
    with serve(app) as server:  # raises exceptions of the app
        client = Client(server)
        client.send(request)
        assert client.head()[0] == 200
        assert b"first" in client.chunk()
    client.rest()
    client.close()
