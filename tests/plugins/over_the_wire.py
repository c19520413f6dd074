"""Plugin that runs Starlette's tests over the wire: their in-memory client uses tinyasgi.

In a checkout of Starlette, with the requirements of its tests and websockets:

    PYTHONPATH=.../tinyasgi/tests/plugins python -m pytest -p over_the_wire -k "not trio" \
        --ignore tests/test_testclient.py

docs/testing.md lists the differences and their reasons.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import starlette.testclient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tinyasgi.testing import LiveServer, serve


class Client(httpx2.Client):
    """Replacement for the used part of `starlette.testclient.TestClient`."""

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
        """Return the server of the `with` block, or a server for one request, without lifespan."""
        if self._server is not None:
            yield self._server
            self._server.check()
        else:
            tls = scheme == "https"
            with serve(self.app, lifespan="off", tls=tls, **self._options) as server:
                yield server

    def websocket_connect(
        self, url: str, subprotocols: Any = None, **options: Any
    ) -> "WebSocketSession":
        auth = options.pop("auth", None)
        request = self.build_request("GET", httpx2.URL("ws://testserver").join(url), **options)
        if auth:
            request = next(httpx2.BasicAuth(*auth).sync_auth_flow(request))
        return WebSocketSession(self, request, subprotocols)


class Wire(httpx2.BaseTransport):
    """Send a request to the server, even if its URL names another host."""

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


#: Headers that the WebSocket client adds.
HOP = {"host", "connection", "upgrade"}


class WebSocketSession:
    """Replacement for the used part of `starlette.testclient.WebSocketTestSession`."""

    def __init__(self, client: Client, request: httpx2.Request, subprotocols: Any) -> None:
        self._client = client
        self._request = request
        self._subprotocols = subprotocols
        self._block = ExitStack()

    def __enter__(self) -> "WebSocketSession":
        with ExitStack() as stack:
            server = stack.enter_context(self._client.server("http"))
            fields = self._request.headers.multi_items()
            try:
                self._socket = stack.enter_context(
                    connect(
                        str(self._request.url),
                        sock=socket.create_connection((server.host, server.port)),
                        subprotocols=self._subprotocols,
                        additional_headers=[pair for pair in fields if pair[0] not in HOP],
                        user_agent_header=None,
                        proxy=None,
                    )
                )
            except InvalidStatus as refused:
                server.check()
                response = refused.response
                raise starlette.testclient.WebSocketDenialResponse(
                    status_code=response.status_code,
                    headers=[*response.headers.raw_items()],
                    content=bytes(response.body or b""),
                ) from None
            self._block = stack.pop_all()
        self.accepted_subprotocol = self._socket.subprotocol
        response = self._socket.response
        self.extra_headers = [
            (name.lower().encode(), value.encode()) for name, value in response.headers.raw_items()
        ]
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._block.__exit__(*error)

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        self._socket.close(code, reason or "")

    def _send(self, data: str | bytes) -> None:
        self._socket.send(data)

    send_text = send_bytes = _send

    def send_json(self, data: Any, mode: str = "text") -> None:
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        self._socket.send(text if mode == "text" else text.encode())

    def receive(self) -> dict[str, Any]:
        try:
            data = self._socket.recv(timeout=10)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            return {"type": "websocket.close", "code": code, "reason": reason}
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}

    def _receive(self, kind: str) -> Any:
        message = self.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message["reason"])
        return message[kind]

    def receive_text(self) -> Any:
        return self._receive("text")

    def receive_bytes(self) -> Any:
        return self._receive("bytes")

    def receive_json(self, mode: str = "text") -> Any:
        return json.loads(self._receive("text" if mode == "text" else "bytes"))


starlette.testclient.TestClient = Client  # type: ignore[assignment,misc]
