"""Starlette's own tests over the wire: their client in memory becomes one that asks tinyasgi.

In a checkout of Starlette, with what its tests need, and with uvloop or without:

    PYTHONPATH=.../tinyasgi/tests python -m pytest -p over_the_wire -k "not trio" \
        --ignore tests/test_testclient.py

docs/testing.md says what comes out differently, and why.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import pytest
import starlette.testclient

from tinyasgi.testing import LiveServer, serve


class Client(httpx2.Client):
    """What the tests use of `starlette.testclient.TestClient`."""

    __test__ = False

    def __init__(
        self,
        app: Any,
        base_url: str = "http://testserver",
        raise_server_exceptions: bool = True,
        root_path: str = "",
        headers: dict[str, str] | None = None,
        follow_redirects: bool = True,
        cookies: Any = None,
        **other: Any,
    ) -> None:
        super().__init__(
            base_url=base_url,
            headers={"user-agent": "testclient"} | (headers or {}),
            follow_redirects=follow_redirects,
            cookies=cookies,
            transport=Wire(self),
        )
        self.app = app
        self._options = {"raise_app_exceptions": raise_server_exceptions, "root_path": root_path}
        self._block = ExitStack()
        self._server: LiveServer | None = None

    def __enter__(self) -> "Client":
        self._server = self._block.enter_context(serve(self.app, lifespan="on", **self._options))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._block.close()

    @contextmanager
    def server(self, scheme: str) -> Iterator[LiveServer]:
        """That of the `with` block; without one, one for a single request, without lifespan."""
        if self._server is not None:
            yield self._server
            self._server.check()
        else:
            tls = scheme == "https"
            with serve(self.app, lifespan="off", tls=tls, **self._options) as server:
                yield server

    def websocket_connect(self, *args: Any, **options: Any) -> Any:
        pytest.skip("WebSocket")


class Wire(httpx2.BaseTransport):
    """Sends a request to the server, whatever host its URL names."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        with (
            self._client.server(request.url.scheme) as server,
            httpx2.HTTPTransport(verify=False) as transport,
        ):
            response = transport.handle_request(
                httpx2.Request(
                    request.method,
                    request.url.copy_with(host=server.host, port=server.port),
                    headers=request.headers,
                    stream=request.stream,
                )
            )
            content = b"".join(response.stream)  # type: ignore[arg-type]
            response.stream = httpx2.ByteStream(content)
        return response


starlette.testclient.TestClient = Client  # type: ignore[assignment,misc]
