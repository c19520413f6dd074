"""Startup and shutdown of an app (ASGI lifespan specification 2.0)."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from ..errors import exception_text
from ..server_log import is_first_worker, logger
from ..typing import App, Message


class LifespanFailed(Exception):
    """The app failed in startup or shutdown. The cause is the exception of the app, if any."""


class Lifespan:
    """The lifespan task of an app.

    mode: `on`, `off` or `auto`. In `auto`, an app that raises or returns before its first
    `receive()` does not support lifespan; a later exception is a failure. on_error: called with
    `lifespan.EVENT` and an exception that neither `startup` nor `shutdown` raises.
    """

    def __init__(
        self,
        app: App,
        mode: str,
        on_error: Callable[[str, BaseException], None] = lambda event, error: None,
    ) -> None:
        self._app = app
        self._mode = mode
        self._on_error = on_error
        self.state: dict[str, Any] = {}
        #: Context variables at the end of startup. Each request runs in a copy of them.
        self.variables = contextvars.copy_context()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._supported = self._ready = False
        self._event = ""
        self._done: asyncio.Future[None]  # set when the app has finished the event
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Run the startup of the app. Raises LifespanFailed."""
        if self._mode != "off":
            done = self._send_event("startup")
            self._task = asyncio.create_task(self._run())
            await done

    async def shutdown(self) -> None:
        """Run the shutdown of the app, if its startup was complete. Raises LifespanFailed."""
        if self._ready and self._task is not None and not self._task.done():
            await self._send_event("shutdown")
            await self._task

    async def cancel(self) -> None:
        """Cancel the task of an app that does not finish."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    def _send_event(self, event: str) -> asyncio.Future[None]:
        self._event = event
        self._done = asyncio.get_running_loop().create_future()
        self._messages.put_nowait({"type": f"lifespan.{event}"})
        return self._done

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
        if self._done.done():
            self._end_after_event(error)
        elif self._mode == "auto" and not self._supported and not _is_exit(error):
            text = "the app does not support ASGI lifespan (%s); use --lifespan off to skip it"
            if is_first_worker():
                logger.info(text, _summary(error))
            self._done.set_result(None)
        elif error is not None and _is_exit(error):
            self._done.set_exception(error)
        else:
            text = f"the app returned before it sent lifespan.{self._event}.complete"
            failure = LifespanFailed(text if error is None else _summary(error))
            failure.__cause__ = error
            self._done.set_exception(failure)

    def _end_after_event(self, error: BaseException | None) -> None:
        """Handle the end of the app after the event was complete, failed or cancelled."""
        failure = None if self._done.cancelled() else self._done.exception()
        if failure is not None:  # the app may raise the reason after it has sent the message
            failure.__cause__ = failure.__cause__ or error
            if error is not None and str(failure).startswith("Traceback "):
                failure.args = (_summary(error),)  # Starlette sends the traceback of the error
        elif error is not None:
            if not _is_exit(error) and not self._is_cancelled(error):
                self._log(error)
            self._on_error(f"lifespan.{self._event}", error)

    def _log(self, error: BaseException) -> None:
        """Log an exception that no caller awaits, such as one from a cancelled startup."""
        if self._done.cancelled():
            logger.warning("lifespan.%s was cancelled: %s", self._event, _summary(error))
        else:
            logger.error("exception in the app after lifespan.%s", self._event, exc_info=error)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Return whether the lifespan task itself was cancelled, not a task that the app awaits."""
        assert self._task is not None
        return isinstance(error, asyncio.CancelledError) and self._task.cancelling() > 0

    async def _receive(self) -> Message:
        self._supported = True
        return await self._messages.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._done.cancelled():
            return
        if not kind.startswith("lifespan."):
            self._supported = False  # the app responds as to an HTTP request
        if self._done.done() or not kind.startswith(f"lifespan.{self._event}."):
            raise RuntimeError(f"{kind!r} can't be sent after lifespan.{self._event}")
        if kind.endswith(".complete"):
            self._ready = True
            self.variables = contextvars.copy_context()
            self._done.set_result(None)
        elif kind.endswith(".failed"):
            self._done.set_exception(LifespanFailed(message.get("message", "")))
        else:
            raise RuntimeError(f"unknown lifespan message: {kind!r}")


def _is_exit(error: BaseException | None) -> bool:
    """Return whether an exception ends the process. CancelledError does not end it."""
    return isinstance(error, SystemExit | KeyboardInterrupt)


def _summary(error: BaseException | None) -> str:
    if error is None:
        return "it returned at once"
    return exception_text(error).removesuffix(": ")
