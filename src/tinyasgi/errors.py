"""Exceptions that several packages use, and helpers for the text of messages."""

from collections.abc import Callable, Iterable


class ClientDisconnected(OSError):
    """Raised by `send()` after the client has disconnected.

    An app need not catch it: the server treats it as a normal end of the request.
    """


def exception_text(error: BaseException | None) -> str:
    """Return the type and the message of an exception."""
    return f"{type(error).__name__}: {safely(str, error)}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as `2 workers`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def safely(show: Callable[[object], str], value: object) -> str:
    """Apply `str` or `repr` to an object of the app, whose methods may raise exceptions."""
    try:
        return show(value)
    except Exception:
        return f"<{type(value).__name__}, whose {show.__name__}() failed>"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """Return a suggestion to append to a message, or an empty text if no known name is similar.

    prefix: common start of all names; it is not compared. cutoff: minimum similarity, from 0 to 1.
    """
    import difflib  # only for errors

    words = [word.removeprefix(prefix) for word in known]
    near = difflib.get_close_matches(name.removeprefix(prefix), words, 1, cutoff)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
