"""The health path: answered by the server, not by the app, and not in the access log."""

from ..config.config import Config
from ..http.response import PLAIN_TEXT
from ..typing import App, Receive, Scope, Send

__all__ = ["Health"]


class Health:
    """An app around an app: it answers `config.health_path`, and passes on what else comes.

    200 while the server serves, 503 from when it stops: who balances load then sends no more.
    """

    def __init__(self, app: App, config: Config) -> None:
        assert config.health_path is not None
        self._app = app
        self._path = config.health_path
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = scope["path"].removeprefix(scope["root_path"]) if scope["type"] == "http" else ""
        if route != self._path:
            await self._app(scope, receive, send)
            return
        headers = [PLAIN_TEXT, (b"cache-control", b"no-store")]
        status, body = (503, b"stopping\n") if self.stopping else (200, b"ok\n")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
