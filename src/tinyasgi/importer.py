"""Import an object by its name: `"module:attribute"`."""

import difflib
import importlib
import sys
from typing import Any


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
