"""Startup and shutdown of one app (ASGI lifespan specification 2.0)."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from ..errors import exception_text
from ..server_log import logger
from ..typing import App, Message

__all__ = ["Lifespan", "LifespanFailed"]


class LifespanFailed(Exception):
    """The app failed in its startup or shutdown: what is known of it, and what it has raised."""


class Lifespan:
    """The one lifespan task of an app.

    mode: `on`; `off`; or `auto`, where an app that raises or returns before it has called
    `receive()` is taken for one without lifespan. What it raises later is a failure.
    on_error: called with `lifespan.EVENT` and an exception that `startup` and `shutdown` don't
    raise.
    """

    def __init__(
        self,
        app: App,
        mode: str,
        on_error: Callable[[str, BaseException], None] = lambda what, error: None,
    ) -> None:
        self._app = app
        self._mode = mode
        self._on_error = on_error
        self.state: dict[str, Any] = {}
        #: The context as the app leaves it when startup is complete: requests run in copies of it.
        self.variables = contextvars.copy_context()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._received = False
        self._ready = False
        self._event = ""
        self._answer: asyncio.Future[None]
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Returns when the app is ready, or without lifespan. Raises LifespanFailed."""
        if self._mode != "off":
            answer = self._ask("startup")
            self._task = asyncio.create_task(self._run())
            await answer
        self._ready = True

    async def shutdown(self) -> None:
        """Returns when the app has shut down, if it was up. Raises LifespanFailed."""
        if self._ready and self._task is not None and not self._task.done():
            await self._ask("shutdown")
            await self._task

    async def cancel(self) -> None:
        """Gives up an app that does not answer."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    def _ask(self, event: str) -> asyncio.Future[None]:
        self._event = event
        self._answer = asyncio.get_running_loop().create_future()
        self._messages.put_nowait({"type": f"lifespan.{event}"})
        return self._answer

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        error: BaseException | None = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as raised:
            error = raised
        if self._answer.done():
            failed = not self._answer.cancelled() and self._answer.exception()
            if failed:  # by a message, after which the app may raise what it is about
                failed.__cause__ = failed.__cause__ or error
            elif error is not None:
                if not _is_final(error) and not self._is_cancelled(error):
                    self._log(error)
                self._on_error(f"lifespan.{self._event}", error)
        elif self._mode == "auto" and not self._received and not _is_final(error):
            logger.warning("the app is served without lifespan: %s", _summary(error))
            self._answer.set_result(None)
        elif error is None:
            self._answer.set_exception(LifespanFailed(f"the app returned in {self._event}"))
        elif _is_final(error):
            self._answer.set_exception(error)
        else:
            failure = LifespanFailed(_summary(error))
            failure.__cause__ = error
            self._answer.set_exception(failure)

    def _log(self, error: BaseException) -> None:
        """Log an exception that nothing waits for. A stop that cuts an event short may cause it."""
        if self._answer.cancelled():
            logger.warning("a stop cut lifespan.%s short: %s", self._event, _summary(error))
        else:
            logger.error("the app failed after lifespan.%s", self._event, exc_info=error)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether the lifespan task was cancelled, and not a task that the app awaits."""
        assert self._task is not None
        return isinstance(error, asyncio.CancelledError) and self._task.cancelling() > 0

    async def _receive(self) -> Message:
        self._received = True
        return await self._messages.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._answer.cancelled():  # the server waits no longer
            return
        if not kind.startswith("lifespan."):
            self._received = False  # an app that answers with HTTP knows nothing of lifespan
        if self._answer.done() or not kind.startswith(f"lifespan.{self._event}."):
            raise RuntimeError(f"{kind!r} can't be sent after lifespan.{self._event}")
        if kind.endswith(".complete"):
            self.variables = contextvars.copy_context()
            self._answer.set_result(None)
        elif kind.endswith(".failed"):
            self._answer.set_exception(LifespanFailed(message.get("message", "")))
        else:
            raise RuntimeError(f"{kind!r} is not a message of lifespan")


def _is_final(error: BaseException | None) -> bool:
    """Whether an error is for the process. CancelledError is not: an awaited task may raise it."""
    return isinstance(error, SystemExit | KeyboardInterrupt)


def _summary(error: BaseException | None) -> str:
    if error is None:
        return "it returned at once"
    return exception_text(error).removesuffix(": ")
