"""The health path, which the server answers instead of the app."""

from collections.abc import Callable

from ..http.response import PLAIN_TEXT
from ..typing import App, Receive, Scope, Send


class Health:
    """An app that answers the health path and passes all other requests to `app`.

    The answer is 200, or 503 while `is_stopping` returns true, so that load balancers send no
    further requests.
    """

    def __init__(self, app: App, path: str, is_stopping: Callable[[], bool]) -> None:
        self._app = app
        self._path = path
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"].removeprefix(scope["root_path"]) if scope["type"] == "http" else ""
        if route != self._path:
            await self._app(scope, receive, send)
            return
        headers = [PLAIN_TEXT, (b"cache-control", b"no-store")]
        status, body = (503, b"stopping\n") if self._is_stopping() else (200, b"ok\n")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
