"""Callbacks with which the owner of a context observes it."""

from collections.abc import Callable
from dataclasses import dataclass

from ..server_log import logger
from .exchange import Exchange


def ignore(*args: object) -> None:
    """Do nothing: the default of a callback."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks of a context."""

    access: Callable[[Exchange], None] | None = None
    """Called with each exchange that is complete, lost or refused."""
    on_error: Callable[[str, BaseException], None] = ignore
    """Called with the request line and the exception that the app raised."""
    on_tick: Callable[[float], None] = ignore
    """Called once a second while there are connections, with the delay of the timer in seconds."""
    on_stop: Callable[[], None] = ignore
    """Called when `limit_max_requests` is reached."""
    on_gone: Callable[[], None] = ignore
    """Called when a connection has ended, or an exchange while the server stops."""


NO_HOOKS = Hooks()


def shielded(callback: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls `callback` and never raises.

    It logs the first exception and drops further ones.
    """
    failed = False

    def call(*args: object) -> None:
        nonlocal failed
        try:
            callback(*args)
        except BaseException as error:
            if not failed:
                failed = True
                logger.error(
                    "%r raised an exception, further ones are not logged", callback, exc_info=error
                )

    return call
