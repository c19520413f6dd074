"""Lifespan: startup, shutdown, and errors of the app in both."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from tests.support.helpers import GET, LOOPS, PATIENCE, Client, hello, in_loop, reply
from tinyasgi import Server
from tinyasgi.app.lifespan import LifespanFailed
from tinyasgi.testing import serve

COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


def lifespan_app(lifespan: Callable[..., Any]) -> Any:
    """Return an app that serves requests and calls `lifespan` for the lifespan scope."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await reply(send, b"served")

    return app


def served(server: Server) -> bool:
    with Client(server) as client:
        return client.response(GET).body == b"served"


def test_messages_and_scope() -> None:
    seen = []

    async def lifespan(scope, receive, send):
        seen.append(dict(scope))
        seen.append(await receive())
        await send(COMPLETE)
        seen.append(await receive())
        await send(STOPPED)
        seen.append("end")

    with serve(lifespan_app(lifespan)) as server:
        assert served(server)
        assert len(seen) == 2
    scope, *messages = seen
    assert scope.pop("asgi")["version"] == "3.0"
    assert scope == {"type": "lifespan", "state": {}}
    assert messages == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, "end"]


def test_nothing_is_served_before_startup_is_complete() -> None:
    seen = []

    async def lifespan(scope, receive, send):
        await receive()
        for _ in range(10):
            await asyncio.sleep(0)
        seen.append("started")
        await send(COMPLETE)

    with serve(lifespan_app(lifespan)) as server:
        assert seen == ["started"]
        assert served(server)


# Apps without lifespan.


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError("no lifespan here")


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    pass


async def answers_with_http(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await reply(send, b"is this a request?")


@pytest.mark.parametrize("lifespan", [refuses, returns_at_once, answers_with_http])
def test_auto_serves_apps_without_lifespan(lifespan: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyasgi.server")
    with serve(lifespan_app(lifespan)) as server:
        assert served(server)
    (record,) = [record for record in caplog.records if "lifespan" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert "\n" not in record.getMessage()


def test_auto_names_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinyasgi.server")
    with serve(lifespan_app(refuses)):
        pass
    assert "NotImplementedError: no lifespan here" in caplog.text


def test_auto_serves_an_app_that_asserts_http(caplog: pytest.LogCaptureFixture) -> None:
    with serve(hello) as server, Client(server) as client:
        assert client.response(GET).body == b"hello"
    assert caplog.messages == []  # at the level of an app that does not configure logging


@pytest.mark.parametrize("lifespan", [refuses, returns_at_once])
def test_on_requires_lifespan(lifespan: Any) -> None:
    with pytest.raises(LifespanFailed), serve(lifespan_app(lifespan), lifespan="on"):
        pytest.fail("the app is served")


def test_off_sends_no_event() -> None:
    async def lifespan(scope, receive, send):
        pytest.fail("the app gets a lifespan scope")

    with serve(lifespan_app(lifespan), lifespan="off") as server:
        assert served(server)


# Errors in startup.


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_error_in_startup(mode: str) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        raise ValueError("no database")

    with (
        pytest.raises(LifespanFailed, match="ValueError: no database") as raised,
        serve(lifespan_app(lifespan), lifespan=mode),
    ):
        pytest.fail("the app is served")
    assert isinstance(raised.value.__cause__, ValueError)


def test_error_in_startup_that_can_not_be_shown() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    async def lifespan(scope, receive, send):
        await receive()
        raise Mute

    with (
        pytest.raises(LifespanFailed, match=r"Mute: <Mute, whose str\(\) failed>"),
        serve(lifespan_app(lifespan)),
    ):
        pytest.fail("the app is served")


async def awaits_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_cancelled_error_in_startup(mode: str) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await awaits_a_cancelled_task()

    with (
        pytest.raises(LifespanFailed, match="CancelledError") as raised,
        serve(lifespan_app(lifespan), lifespan=mode),
    ):
        pytest.fail("the app is served")
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


def test_startup_failed(caplog: pytest.LogCaptureFixture) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(LifespanFailed, match=r"^no database$"), serve(lifespan_app(lifespan)):
        pytest.fail("the app is served")
    assert "Traceback" not in caplog.text


def test_startup_failed_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    """Frameworks put the traceback into the message, and then raise the exception."""

    async def lifespan(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the reason"})
        raise ValueError("the reason")

    with pytest.raises(LifespanFailed, match="the reason"), serve(lifespan_app(lifespan)):
        pytest.fail("the app is served")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("event", ["startup", "shutdown"])
def test_traceback_as_the_message(event: str) -> None:
    """Starlette sends the traceback of the error, and raises it. The log shows it once."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if event == "startup":
            raise ValueError("no database")
        yield
        raise ValueError("no database")

    with (
        pytest.raises(LifespanFailed, match=r"^ValueError: no database$") as raised,
        serve(Starlette(lifespan=lifespan)),
    ):
        assert event == "shutdown"
    assert isinstance(raised.value.__cause__, ValueError)


def test_return_without_a_message() -> None:
    async def lifespan(scope, receive, send):
        await receive()

    with (
        pytest.raises(LifespanFailed, match=r"returned before it sent lifespan\.startup\.complete"),
        serve(lifespan_app(lifespan)),
    ):
        pytest.fail("the app is served")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@in_loop
async def test_exit_in_startup(error: type[BaseException]) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        raise error(5)

    with pytest.raises(error, match="5"):
        async with Server(lifespan_app(lifespan), port=0):
            pytest.fail("the app is served")


@in_loop
async def test_startup_can_be_cancelled() -> None:
    outcome = []
    starting = asyncio.Event()

    async def lifespan(scope, receive, send):
        await receive()
        starting.set()
        try:
            await asyncio.Event().wait()
        finally:
            outcome.append("cleaned up")

    async def start() -> None:
        async with Server(lifespan_app(lifespan), port=0):
            pytest.fail("the app is served")

    task = asyncio.create_task(start())
    await starting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcome == ["cleaned up"]


@pytest.mark.parametrize("noticed", [True, False])
@in_loop
async def test_cancelled_start_shuts_down_what_it_has_started(noticed: bool) -> None:
    """noticed: the server has noticed that the startup is complete."""
    events = []
    started = asyncio.Event()

    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        if noticed:
            started.set()
        else:
            task.cancel()
        events.append((await receive())["type"])
        await send(STOPPED)

    async def start() -> None:
        async with Server(lifespan_app(lifespan), port=0):
            pytest.fail("the app is served")

    task = asyncio.create_task(start())
    if noticed:
        await started.wait()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["lifespan.shutdown"]


@pytest.mark.parametrize(
    "message", [{"type": "lifespan.nonsense"}, STOPPED, {"type": "http.response.start"}]
)
def test_wrong_message(message: Any) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        with pytest.raises(RuntimeError, match=message["type"]):
            await send(message)
        await send(COMPLETE)
        with pytest.raises(RuntimeError, match=COMPLETE["type"]):
            await send(COMPLETE)

    with serve(lifespan_app(lifespan)) as server:
        assert served(server)


# State and context variables.


def test_state_and_context_reach_requests() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = "a pool"
            await receive()
            variable.set("set in startup")
            await send(COMPLETE)
            await receive()
            await send(STOPPED)
            return
        seen.append((scope["state"], variable.get()))
        await reply(send, b"served")

    with serve(app) as server:
        assert served(server)
    assert seen == [({"pool": "a pool"}, "set in startup")]


# After startup.


def test_error_while_serving(caplog: pytest.LogCaptureFixture) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        raise ValueError("broke later")

    with (
        pytest.raises(ValueError, match="broke later"),
        serve(lifespan_app(lifespan)) as server,
    ):
        assert served(server)
    assert caplog.text.count("Traceback") == 1
    assert "ValueError: broke later" in caplog.text


def test_cancelled_error_while_serving(caplog: pytest.LogCaptureFixture) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await awaits_a_cancelled_task()

    with (
        pytest.raises(asyncio.CancelledError),
        serve(lifespan_app(lifespan)) as server,
    ):
        assert served(server)
    assert caplog.text.count("exception in the app after lifespan.startup") == 1
    assert "awaits_a_cancelled_task" in caplog.text


def test_return_while_serving_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)

    with serve(lifespan_app(lifespan)) as server:
        assert served(server)
    assert caplog.text == ""


# Shutdown.


def test_error_in_shutdown() -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await receive()
        raise ValueError("can't close")

    with (
        pytest.raises(LifespanFailed, match="can't close") as raised,
        serve(lifespan_app(lifespan)) as server,
    ):
        assert served(server)
    assert isinstance(raised.value.__cause__, ValueError)


def test_cancelled_error_in_shutdown() -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await receive()
        await awaits_a_cancelled_task()

    with pytest.raises(LifespanFailed, match="CancelledError"), serve(lifespan_app(lifespan)):
        pass


def test_shutdown_failed() -> None:
    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "can't close"})

    with pytest.raises(LifespanFailed, match=r"^can't close$"), serve(lifespan_app(lifespan)):
        pass


@pytest.mark.parametrize("stubborn", [False, True])
def test_hanging_shutdown_is_bounded(stubborn: bool, caplog: pytest.LogCaptureFixture) -> None:
    outcome = []

    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await receive()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                outcome.append("cancelled")
                if not stubborn or len(outcome) > 1:
                    raise

    with (
        pytest.raises(TimeoutError, match=r"lifespan\.shutdown"),
        serve(lifespan_app(lifespan), timeout_graceful_shutdown=0.01),
    ):
        pass
    assert outcome[0] == "cancelled"
    assert "lifespan shutdown" in caplog.text
    assert "Traceback" not in caplog.text


def test_shutdown_comes_after_the_last_request() -> None:
    events = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send(COMPLETE)
            await receive()
            events.append("shutdown")
            await send(STOPPED)
            return
        await reply(send)
        for _ in range(100):  # work after the response
            await asyncio.sleep(0)
        events.append("request ends")

    with serve(app) as server, Client(server) as client:
        client.response(GET)
    assert events == ["request ends", "shutdown"]


@in_loop
async def test_shutdown_runs_when_nothing_else_is_waited_for() -> None:
    events = []

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        for event in ("startup", "shutdown"):
            await receive()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            events.append(event)
            await send({"type": f"lifespan.{event}.complete"})

    async with Server(app, port=0, timeout_graceful_shutdown=0):
        pass
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_second_stop_during_shutdown(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A second stop cancels the shutdown. Exceptions that follow are not errors of the app."""
    answered = []

    async def lifespan(scope, receive, send):
        await receive()
        await send(COMPLETE)
        await receive()
        server.quit()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await send(STOPPED)
            answered.append(True)

    async with Server(lifespan_app(lifespan), port=0) as server:
        pass
    assert answered
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@in_loop
async def test_error_after_a_cancelled_startup(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is only a warning: with several workers, another one has failed first."""

    async def lifespan(scope, receive, send):
        await receive()
        try:
            await asyncio.Future()
        finally:
            raise ValueError("no db")

    async with asyncio.timeout(PATIENCE):
        starting = asyncio.create_task(Server(lifespan_app(lifespan), port=0).__aenter__())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    (record,) = [record for record in caplog.records if "lifespan" in record.getMessage()]
    assert record.getMessage() == "lifespan.startup was cancelled: ValueError: no db"
    assert (record.levelname, record.exc_info) == ("WARNING", None)
