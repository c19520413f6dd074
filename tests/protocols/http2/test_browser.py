"""Chromium: pages, uploads, events and WebSockets on one HTTP/2 connection."""

import asyncio
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.helpers import PATIENCE, Certificates
from tinyasgi.testing import serve

SCRIPT = """
const done = arguments[0], results = [];
(async () => {
    const socket = new WebSocket("wss://" + location.host + "/socket");
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
    const answer = new Promise(resolve => { socket.onmessage = event => resolve(event.data); });
    socket.send("hello");
    results.push(await answer);
    const closed = new Promise(resolve => { socket.onclose = event => resolve(event.code); });
    socket.close(4000);
    results.push(await closed);
    const body = "x".repeat(1000000);
    const upload = await fetch("/echo", {method: "POST", body});
    results.push((await upload.text()).length);
    const many = await Promise.all([...Array(50).keys()].map(i => fetch("/?" + i)));
    results.push(many.filter(response => response.ok).length);
    results.push(performance.getEntriesByType("resource").at(-1).nextHopProtocol);
    return results;
})().then(done, error => done("failed: " + error));
"""

PAGE = b"<title>page</title><link rel=stylesheet href=/style.css><p>text"

#: HTTP versions and types of all requests.
seen: list[tuple[str, str]] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Echo bodies and messages; other requests get a page."""
    seen.append((scope["type"], scope["http_version"]))
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    body, more_body = b"", True
    while more_body:
        message = await receive()
        body += message["body"]
        more_body = message["more_body"]
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body or b"<title>page</title>"})


@pytest.mark.browser
def test_chromium(tls: Certificates) -> None:
    with serve(app, ssl_certfile=tls.certfile) as server, chromium() as page:
        page.set_script_timeout(PATIENCE)
        page.get(f"https://localhost:{server.port}/")
        assert page.title == "page"
        assert page.execute_async_script(SCRIPT) == ["hello", 4000, 1_000_000, 50, "h2"]
    assert ("websocket", "2") in seen
    assert {version for _, version in seen} == {"2"}


@pytest.mark.browser
def test_preload_by_early_hints(tls: Certificates) -> None:
    """Chromium requests the hinted style sheet before the page has a response."""
    paths = []
    requested = asyncio.Event()

    async def hinting(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        style = scope["path"] == "/style.css"
        kind = b"text/css" if style else b"text/html"
        body = b"body {color: rgb(1, 2, 3)}" if style else PAGE
        if style:
            requested.set()
        else:
            links = [b"</style.css>; rel=preload; as=style"]
            await send({"type": "http.response.early_hint", "links": links})
            await requested.wait()  # for ever, without the hint
        headers = [(b"content-type", kind), (b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with serve(hinting, ssl_certfile=tls.certfile) as server, chromium() as page:
        page.set_page_load_timeout(PATIENCE)
        page.get(f"https://localhost:{server.port}/")
        assert page.execute_script("return getComputedStyle(document.body).color") == "rgb(1, 2, 3)"
    assert paths[:2] == ["/", "/style.css"]
