"""Adapters from any supported interface to ASGI 3, and app factories."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

from ..config.config import Config
from ..importer import LoadError
from ..server_log import is_first_worker, logger
from ..typing import App, Receive, Scope, Send


@asynccontextmanager
async def created(factory: Callable[[], Any]) -> AsyncIterator[Any]:
    """Call an app factory; yield the app. Raises LoadError.

    factory: a function, a coroutine function or an async context manager. The code after the
    `yield` of the context manager runs after the server has stopped.
    """
    async with AsyncExitStack() as stack:
        try:
            made = factory()
            if isinstance(made, AbstractAsyncContextManager) and not _takes(made, 3):
                made = await stack.enter_async_context(made)
            elif inspect.isawaitable(made):
                made = await made
        except Exception as error:
            raise LoadError("the app factory raised an exception") from error
        yield made


def as_asgi3(app: Any, config: Config, stack: ExitStack | AsyncExitStack | None = None) -> App:
    """Return the app, wrapped in an adapter if its interface is not ASGI 3. Raises LoadError.

    `config.interface` names the interface; with "auto", the arguments of the app decide. stack:
    receives callbacks that release the resources of the adapter, such as threads for a WSGI app.
    """
    interface = _interface(app) if config.interface == "auto" else config.interface
    if interface == "asgi3":
        return app  # type: ignore[no-any-return]
    if interface == "wsgi":
        from .wsgi.adapter import WSGI  # takes 3 ms at startup

        adapter = WSGI(app, config.wsgi_threads, config.wsgi_spool_size)
        if stack is not None:
            stack.callback(adapter.close)
        return adapter

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi3


def _interface(app: Any) -> str:
    if not callable(app):
        raise LoadError(f"the app is of type {type(app).__name__}, which is not callable")
    if _is_factory(app):
        raise LoadError("the app needs no arguments; if it is a factory, add --factory")
    if _takes(app, 3):
        if _takes(app, 2) and not _is_async(app) and is_first_worker():
            logger.info(
                "the arguments of the app do not show its interface, so it is called as"
                " ASGI 3; use --interface to change that"
            )
        return "asgi3"
    if _takes(app, 1):
        return "asgi2"
    if _takes(app, 2) and not inspect.iscoroutinefunction(app):
        return "wsgi"
    raise LoadError(
        "unknown kind of app: expected the arguments (scope, receive, send) for ASGI 3, (scope)"
        " for ASGI 2, or (environ, start_response) for WSGI"
    )


def _is_factory(function: Any) -> bool:
    """Return whether a callable needs no arguments. With `*args`, it may be a wrapped app."""
    if not _takes(function, 0):
        return False
    parameters = inspect.signature(function).parameters.values()
    return all(each.kind is not each.VAR_POSITIONAL for each in parameters)


def _is_async(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # compiled, without a signature
        return count == 3
    return True
