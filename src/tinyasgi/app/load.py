"""`"module:attribute"` → an ASGI 3 application."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any, TypeAlias

from ..config.config import Config
from ..importer import LoadError
from ..typing import App, Receive, Scope, Send

__all__ = ["as_asgi3", "created"]

AnyStack: TypeAlias = ExitStack | AsyncExitStack


@asynccontextmanager
async def created(factory: Callable[[], Any]) -> AsyncIterator[Any]:
    """The app that a factory makes: a function, a coroutine function or an async context manager.

    What follows the `yield` of a context manager runs when the server has stopped. Raises
    LoadError.
    """
    async with AsyncExitStack() as stack:
        try:
            made = factory()
            if isinstance(made, AbstractAsyncContextManager) and not _takes(made, 3):
                made = await stack.enter_async_context(made)
            elif inspect.isawaitable(made):
                made = await made
        except Exception as error:
            raise LoadError("the factory failed") from error
        yield made


def as_asgi3(app: Any, config: Config, stack: AnyStack | None = None) -> App:
    """The app with the signature of ASGI 3, whichever interface it has. Raises LoadError.

    The interface is that of `config`, or told by the arguments that the app takes. stack: gets
    the callbacks that release the resources of an adapter, such as the threads of a WSGI app.
    """
    interface = _interface(app) if config.interface == "auto" else config.interface
    if interface == "asgi3":
        return app  # type: ignore[no-any-return]
    if interface == "wsgi":
        from .wsgi.adapter import WSGI  # not before it is needed: 3 ms at start

        adapter = WSGI(app, config.wsgi_threads, config.wsgi_spool_size)
        if stack is not None:
            stack.callback(adapter.close)
        return adapter

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi3


def _interface(app: Any) -> str:
    if not callable(app):
        raise LoadError(f"the app is of type {type(app).__name__!r}, which can't be called")
    if _takes(app, 3):
        return "asgi3"
    if _takes(app, 1):
        return "asgi2"
    if _takes(app, 2) and not inspect.iscoroutinefunction(app):
        return "wsgi"
    if _takes(app, 0):
        raise LoadError("the app takes no arguments: if it is a factory, say --factory")
    raise LoadError(
        "the app takes neither scope, receive, send (ASGI 3) nor scope (ASGI 2) nor environ,"
        " start_response (WSGI)"
    )


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # compiled, without a signature
        return count == 3
    return True
