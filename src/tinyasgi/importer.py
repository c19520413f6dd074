"""Import an object by its name, `"module:attribute"`."""

import importlib
import sys
from typing import Any

from .errors import did_you_mean


class LoadError(Exception):
    """An app that can't be loaded: a one-line message, and the exception of the app as cause."""


def load(target: str, app_dir: str) -> Any:
    """Import the callable that `module:attribute` names. Raises LoadError.

    The attribute may be dotted; the default is `app`, or else `application`. app_dir: added to
    `sys.path`.
    """
    module_name, _, path = target.partition(":")
    if "(" in path:
        raise LoadError(f"{target!r} is a call of a factory; {_without_call(module_name, path)}")
    if not all(name.isidentifier() for name in module_name.split(".")):
        example = _example(module_name, path)
        raise LoadError(f"can't import {target!r}: expected module:attribute, such as {example}")
    if app_dir not in sys.path:
        sys.path.insert(0, app_dir)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # A missing app module gets one line; a missing dependency of it gets a traceback.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            place = f"in the app directory {app_dir!r} or on sys.path"
            raise LoadError(f"no module named {missing!r} {place}{_hint(missing, path)}") from None
        raise LoadError(f"can't import {module_name!r}") from error
    for name in (path or _default(found)).split("."):
        if not hasattr(found, name):
            hint = did_you_mean(name, [known for known in dir(found) if known[0] != "_"])
            raise LoadError(f"module {module_name!r} has no attribute {name!r}{hint}")
        found = getattr(found, name)
    if not callable(found):
        raise LoadError(f"{target!r} is of type {type(found).__name__}, which is not callable")
    return found


def _without_call(module_name: str, path: str) -> str:
    """Return what to write instead of a call of a factory, as in gunicorn."""
    function, _, arguments = path.partition("(")
    if arguments.strip() == ")":
        return f"write {module_name}:{function} and --factory"
    return f"write a module that contains app = {path}"


def _default(module: Any) -> str:
    """Return the name of the app in a module; `app` may also be a submodule."""
    other = not callable(getattr(module, "app", None)) and hasattr(module, "application")
    return "application" if other else "app"


def _example(name: str, path: str) -> str:
    """Return what to write instead of the name of a file or folder."""
    folder, _, module = name.removesuffix(".py").rpartition("/")
    if not module.isidentifier():
        return "hello:app"
    option = f" and --app-dir {folder}" if folder not in ("", ".") else ""
    return f"{module}:{path or 'app'}{option}"


def _hint(missing: str, path: str) -> str:
    """Return what to write instead of the name of a file, or of a module with the attribute."""
    parent, _, name = missing.rpartition(".")
    if name == "py":
        return f"; write {parent}:{path or 'app'}"
    if parent in sys.modules and not path:
        return f"; write {parent}:{name} if it is an attribute of {parent!r}"
    return ""
