"""Choice of the event loop."""

import asyncio
import importlib.util
from collections.abc import Callable

from .. import importer
from ..config.config import Config


def loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory for the option `loop`; `auto` selects uvloop if it is installed.

    Raises OptionError if the loop is not installed, or if its function can't be imported.
    """
    name = config.loop
    if ":" in name:
        try:
            return importer.load(name, config.app_dir)  # type: ignore[no-any-return]
        except importer.LoadError as error:
            raise config.error("loop", name, f"can't be used: {error}") from error.__cause__
    if name == "asyncio" or (name == "auto" and not importlib.util.find_spec("uvloop")):
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        raise config.error("loop", name, "needs uvloop: pip install uvloop") from None
    return uvloop.new_event_loop
