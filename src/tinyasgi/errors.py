"""Exceptions that more than one package uses, and the text of any exception."""

from collections.abc import Callable


class ClientDisconnected(OSError):
    """What `send()` raises once the client has left.

    An app may let it pass: the server takes it for the normal end of an exchange.
    """


def exception_text(error: BaseException | None) -> str:
    """The kind of an exception and what it says."""
    return f"{type(error).__name__}: {safely(str, error)}"


def safely(show: Callable[[object], str], value: object) -> str:
    """Apply `str` or `repr`, whatever class of an app the value has."""
    try:
        return show(value)
    except Exception:
        return f"<{type(value).__name__}, whose {show.__name__}() failed>"
