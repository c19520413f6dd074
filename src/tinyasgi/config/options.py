"""`Options`: the base class of `Config`, a dataclass whose fields are options.

A field is made by `option`. Its kind converts and checks the value.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Protocol, Self, TypeVar

from . import other_servers
from .kinds import COUNT, FLAG, SECONDS, Kind, OptionError, Spelling

T = TypeVar("T")

_BY_TYPE: dict[type, Kind] = {bool: FLAG, int: COUNT, float: SECONDS}
#: Options for which None means 0, as in uvicorn. For all others it means the default.
_NEVER_IF_NONE = ("ws_ping_interval", "ws_ping_timeout")


class Repeated(Protocol[T]):
    """Type of a repeatable option. The value is a tuple; `Config` also takes a list or a str."""

    def __get__(self, instance: object, owner: type) -> tuple[T, ...]: ...
    def __set__(self, instance: object, value: str | list[T] | tuple[T, ...]) -> None: ...


def option(
    default: Any, text: str, kind: Kind | None = None, *, heading: str = "", variable: str = ""
) -> Any:
    """Return a field of `Config`.

    text: the help. kind: by default FLAG, COUNT or SECONDS, by the type of the default value.
    heading: title of the group that begins with this option. variable: another environment
    variable for the option, in addition to `TINYASGI_…`.
    """
    kind = kind or _BY_TYPE[type(default)]
    metadata = {"kind": kind, "help": text, "heading": heading, "variable": variable}
    return dataclasses.field(default=default, metadata=metadata, repr=not kind.secret)


@dataclass(frozen=True, kw_only=True)
class Options(metaclass=other_servers.Translated):
    """Values of options, converted and checked. The constructor raises OptionError."""

    names: InitVar[Mapping[str, Spelling] | None] = None

    def __post_init__(self, names: Mapping[str, Spelling] | None) -> None:
        object.__setattr__(self, "_names", names or {})
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._read(field))

    def _read(self, field: dataclasses.Field[Any]) -> Any:
        """Return the value of a field, converted and checked."""
        value, kind = getattr(self, field.name), field.metadata["kind"]
        if value is None:
            return 0.0 if field.name in _NEVER_IF_NONE else field.default
        return kind.read(self.spelling(field.name), value)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle, with functions replaced by their names.

        Raises OptionError if another process can't import a function.
        """
        state = vars(self).copy()
        for option, value in state.items():
            if callable(value):
                state[option] = name = _name_of(value)
                if name is None:
                    text = "must be a module-level function, so that workers can import it"
                    raise self.error(option, value, text)
        return state

    def spelling(self, option: str) -> Spelling:
        """Return the way the user wrote an option, or would write it in the same place."""
        names: Mapping[str, Spelling] = vars(self)["_names"]
        return names.get(option) or Spelling(option)

    def error(self, option: str, value: Any, text: str) -> OptionError:
        """Return an error: the option and its value as the user wrote them, then `text`."""
        kind: Kind = type(self).__dataclass_fields__[option].metadata["kind"]
        return OptionError(f"{kind.given(self.spelling(option), value)} {text}")

    def resolved(self) -> Self:
        """Return a copy with absolute paths, which stay valid if the app changes its directory."""
        paths = {
            field.name: field.metadata["kind"].resolved(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name))
        }
        return self.replace(**paths)

    def replace(self, **options: Any) -> Self:
        """Return a copy with some options changed. Raises OptionError."""
        options = other_servers.translate(options, type(self).__dataclass_fields__)
        return dataclasses.replace(self, names=vars(self)["_names"], **options)


def _name_of(function: Callable[..., Any]) -> str | None:
    """Return `module:attribute` of a function, or None if no other process can import it."""
    module = getattr(function, "__module__", "__main__")
    name = getattr(function, "__qualname__", "")
    if module == "__main__" or "<" in name or not name:  # <lambda>, <locals>
        return None
    return f"{module}:{name}"
