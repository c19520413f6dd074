"""`"module:attribute"` → an ASGI 3 application."""

import difflib
import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any, TypeAlias

from .config import Config
from .typing import App, Receive, Scope, Send

__all__ = ["LoadError", "as_asgi3", "created", "load"]

AnyStack: TypeAlias = ExitStack | AsyncExitStack


class LoadError(Exception):
    """An app that can't be served: one line for the user, and what the app raised as the cause."""


def load(target: str, app_dir: str) -> Any:
    """The object that `module:attribute` names; the attribute may be dotted, `app` by default.

    Raises LoadError.
    """
    module_name, _, path = target.partition(":")
    if not all(name.isidentifier() for name in module_name.split(".")):
        raise LoadError(f"{target!r} is not of the form module:attribute")
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # Its own absence is said in a line; a module that it wants in vain is its own trouble.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise LoadError(f"there is no module {missing!r} in {app_dir!r} or elsewhere") from None
        raise LoadError(f"{module_name!r} can't be imported") from error
    for name in (path or "app").split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, [n for n in dir(found) if n[0] != "_"], 3, 0.5)
            hint = f"; near names: {', '.join(near)}" if near else ""
            raise LoadError(f"{module_name!r} has no attribute {name!r}{hint}")
        found = getattr(found, name)
    if not callable(found):
        raise LoadError(f"{target!r} is of type {type(found).__name__!r}, which can't be called")
    return found


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
        from .wsgi import WSGI  # not before it is needed: 3 ms at start

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
