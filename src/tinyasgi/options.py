"""The kinds of option values: how each is read from text, and what it allows."""

import dataclasses
from typing import Any

__all__ = ["Choice", "Fields", "Flag", "Kind", "Number", "OptionError", "Path", "Seconds", "option"]


class OptionError(ValueError):
    """A value that an option does not take; the message names both and says what is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not {allowed}")


class Kind:
    """Any text."""

    allowed = "a text"
    metavar = "TEXT"
    #: The option may be given more than once; in the environment, one value a line.
    repeatable = False

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Raises ValueError."""
        return text

    def accepts(self, value: Any) -> bool:
        """Whether a value of the right kind is allowed."""
        return isinstance(value, str)

    def show(self, value: Any) -> str:
        """A value as `parse` would take it."""
        return str(value)


class Path(Kind):
    """A file or a directory."""

    allowed = "a path"
    metavar = "PATH"


class Flag(Kind):
    """Yes or no: `--name` and `--no-name` on the command line."""

    allowed = "true or false"

    def parse(self, text: str) -> bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise ValueError(text)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


class Choice(Kind):
    """One of a few words; `aliases` are further words for them."""

    def __init__(self, *words: str, aliases: dict[str, str] | None = None) -> None:
        self._words = words
        self._aliases = aliases or {}
        self.allowed = "one of " + ", ".join(words)
        self.metavar = "{" + ",".join(words) + "}"

    def parse(self, text: str) -> str:
        return self._aliases.get(text.lower(), text.lower())

    def accepts(self, value: Any) -> bool:
        return value in self._words


class Number(Kind):
    """A whole number from `low` to `high`."""

    metavar = "N"

    def __init__(self, low: int = 0, high: int | None = None) -> None:
        self._low, self._high = low, high
        self.allowed = f"a whole number, {low} or more"
        if high is not None:
            self.allowed = f"a whole number from {low} to {high}"

    def parse(self, text: str) -> int:
        return int(text)

    def accepts(self, value: Any) -> bool:
        return type(value) is int and self._low <= value <= (self._high or value)


class Mode(Kind):
    """The permission bits of a file."""

    allowed = "an octal number from 0 to 777"
    metavar = "OCTAL"

    def parse(self, text: str) -> int:
        return int(text, 8)

    def accepts(self, value: Any) -> bool:
        return type(value) is int and 0 <= value <= 0o777

    def show(self, value: Any) -> str:
        return f"{value:o}"


class Seconds(Kind):
    """A length of time."""

    allowed = "a number of seconds, 0 or more"
    metavar = "S"

    def parse(self, text: str) -> float:
        return float(text)

    def accepts(self, value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < float("inf")

    def show(self, value: Any) -> str:
        return f"{value:g}"


class Fields(Kind):
    """Response fields: `Name: value` in text, pairs of str in Python."""

    allowed = "a field as NAME:VALUE"
    metavar = "NAME:VALUE"
    repeatable = True

    def parse(self, text: str) -> tuple[tuple[str, str], ...]:
        pairs = [line.partition(":") for line in text.splitlines()]
        return tuple(
            (name.strip(), value.strip() if colon else "\0") for name, colon, value in pairs
        )

    def accepts(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(
            name.isascii()
            and name.replace("-", "").replace("_", "").isalnum()
            and text.isprintable()
            for name, text in value
        )


def option(default: Any, group: str, kind: Kind, text: str) -> Any:
    """A field of `Config`: its default, the heading it stands under, its kind and its help."""
    return dataclasses.field(default=default, metadata={"group": group, "kind": kind, "help": text})
