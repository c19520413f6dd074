"""Chromium: heads that arrive before the body, over HTTP/1.1 and HTTP/2."""

import asyncio
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.helpers import PATIENCE, Certificates
from tinyasgi.testing import serve

#: The body of each response begins when the page has reported its head.
SCRIPT = """
const done = arguments[0], results = [];
(async () => {
    const events = new EventSource("/stream");
    const first = new Promise(resolve => { events.onmessage = event => resolve(event.data); });
    await new Promise(resolve => { events.onopen = resolve; });
    await fetch("/go");
    results.push(await first);
    events.close();
    const response = await fetch("/stream");
    results.push(response.status);
    await fetch("/go");
    const reader = response.body.getReader();
    results.push(new TextDecoder().decode((await reader.read()).value));
    return results;
})().then(done, error => done("failed: " + error));
"""
EVENT = b"data: first\n\n"


@pytest.mark.browser
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_head_in_chromium(tls: Certificates, version: str) -> None:
    """`onopen` is called, and `fetch` resolves, before there is a body."""
    versions = set()
    go: asyncio.Queue[None] = asyncio.Queue()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        versions.add(scope["http_version"])
        headers = [(b"content-type", b"text/event-stream")]
        if scope["path"] != "/stream":
            headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await go.get()
        elif scope["path"] == "/go":
            go.put_nowait(None)
        await send({"type": "http.response.body", "body": EVENT})

    options = {"ssl_certfile": tls.certfile} if version == "2" else {}
    with serve(app, lifespan="off", **options) as server, chromium() as page:
        page.set_script_timeout(PATIENCE)
        page.get(f"{server.url}/")
        assert page.execute_async_script(SCRIPT) == ["first", 200, EVENT.decode()]
    assert versions == {version}
