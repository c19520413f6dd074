"""Import an object by its name, `"module:attribute"`."""

import importlib
import sys
from typing import Any

from .errors import did_you_mean


class LoadError(Exception):
    """An app that can't be loaded: a one-line message, and the exception of the app as cause."""


def load(target: str, app_dir: str) -> Any:
    """Import the callable that `module:attribute` names. Raises LoadError.

    The attribute may be dotted; the default is `app`. app_dir: added to `sys.path`.
    """
    module_name, _, path = target.partition(":")
    if not all(name.isidentifier() for name in module_name.split(".")):
        raise LoadError(f"can't import {target!r}: expected module:attribute, such as hello:app")
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # A missing app module gets one line; a missing dependency of it gets a traceback.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            name = module_name.removesuffix(".py")
            hint = f"; write {name}:{path or 'app'}" if name != module_name else ""
            place = f"in the app directory {app_dir!r} or on sys.path"
            raise LoadError(f"no module named {missing!r} {place}{hint}") from None
        raise LoadError(f"can't import {module_name!r}") from error
    for name in (path or "app").split("."):
        if not hasattr(found, name):
            hint = did_you_mean(name, [known for known in dir(found) if known[0] != "_"])
            raise LoadError(f"module {module_name!r} has no attribute {name!r}{hint}")
        found = getattr(found, name)
    if not callable(found):
        raise LoadError(f"{target!r} is of type {type(found).__name__}, which is not callable")
    return found
