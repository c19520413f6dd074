"""The event loop that an option names."""

import asyncio
import importlib.util
from collections.abc import Callable

from .options import OptionError

__all__ = ["loop_factory"]


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of that name: `asyncio`, `uvloop`, or `auto` (uvloop when it is installed).

    Raises OptionError when it is not installed.
    """
    if name == "asyncio" or (name == "auto" and not importlib.util.find_spec("uvloop")):
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        raise OptionError("loop", name, "installed here") from None
    return uvloop.new_event_loop
