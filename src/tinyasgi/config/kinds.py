"""The kinds of option values: how each is read from text, and what it allows."""

import dataclasses
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..http.parsers import TOKEN

__all__ = ["ADDRESS", "ADDRESSES", "DIRECTORY", "FIELDS", "FIELD_NAME", "FLAG", "FUNCTION", "MASK"]
__all__ += ["MODE", "NAME", "PATH", "PATHS", "PATTERNS", "PEERS", "SECONDS", "SECRET", "STREAM"]
__all__ += ["TEXT", "TEXTS", "URL_PATH", "Kind"]
__all__ += ["OptionError", "Several", "UnknownOption", "UnusableFile"]
__all__ += ["as_root", "choice", "name_of", "number", "option"]


T = TypeVar("T")

#: Seconds, 31 years. Timers of some systems have no room for much more.
FOREVER = 10**9


class Several(Protocol[T]):
    """The type of a repeatable option: always a tuple, but also a list or a str may be given."""

    def __get__(self, instance: object, owner: type) -> tuple[T, ...]: ...
    def __set__(self, instance: object, value: str | list[T] | tuple[T, ...]) -> None: ...


#: What is told instead of a secret.
MASK = "***"
#: Characters of a value in a message.
LONGEST = 500


class OptionError(ValueError):
    """A value that an option does not take; the message names both and says what is allowed.

    `Config.wrong` makes it for an option of a configuration.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        text = repr(value)
        if len(text) > LONGEST:
            text = text[:LONGEST] + "…"
        super().__init__(f"{name}: {text} is not {allowed}")


class UnknownOption(OptionError):
    """A name that no option has; the message says it, and perhaps a name that is near."""

    def __init__(self, name: str, near: str = "") -> None:
        hint = f", did you mean {near}?" if near else "; --help lists what there is"
        ValueError.__init__(self, f"there is no option {name}{hint}")


class UnusableFile(OptionError):
    """A file of settings that is used without being named; the message says what is wrong."""

    def __init__(self, path: str, reason: str) -> None:
        ValueError.__init__(self, f"{path} is not usable: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Kind:
    """One kind of value. Texts are those of the command line and the environment."""

    allowed: str
    metavar: str
    parse: Callable[[str], Any]
    """The value that a text stands for; raises ValueError."""
    accepts: Callable[[Any], bool]
    """Whether a value is allowed."""
    show: Callable[[Any], str] = str
    """The text that stands for a value."""
    convert: Callable[[Any], Any] = lambda value: value
    """The value that one of Python or TOML stands for, if it is of another type."""
    repeatable: bool = False
    """The option may be given more than once; in the environment, one text a line."""
    secret: bool = False
    """Values are not to be shown."""
    resolve: Callable[[Any], Any] = lambda value: value
    """The same value, whatever the current directory becomes."""

    def told(self, value: Any) -> Any:
        """A value as messages tell it."""
        return MASK if self.secret else value


def choice(*words: str, aliases: dict[str, str] | None = None) -> Kind:
    """One of a few words, in any case. aliases: what else stands for them, numbers as text."""
    known = dict(zip(words, words, strict=True)) | (aliases or {})

    def convert(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return known.get(str(int(value)), value)
        return known.get(value.lower(), value) if isinstance(value, str) else value

    allowed, metavar = "one of " + ", ".join(words), "{" + ",".join(words) + "}"
    return Kind(allowed, metavar, convert, lambda value: value in words, convert=convert)


def several(
    allowed: str,
    metavar: str,
    parse: Callable[[str], tuple[Any, ...]],
    accepts: Callable[[Any], bool],
    item: Callable[[Any], Any] = lambda value: value,
    *,
    show: Callable[[Any], str] = "\n".join,
    resolve: Callable[[Any], Any] = lambda value: value,
) -> Kind:
    """A tuple, in Python also a list or a text. item: converts what is in it."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, os.PathLike):
            value = [value]
        return tuple(map(item, value)) if isinstance(value, list | tuple) else value

    return Kind(allowed, metavar, parse, accepts, show, convert, True, resolve=resolve)


def number(low: int = 0, high: int | None = None) -> Kind:
    """A whole number from `low` to `high`."""

    def accepts(value: Any) -> bool:
        return type(value) is int and low <= value <= (high or value)

    span = f", {low} or more" if high is None else f" from {low} to {high}"
    return Kind(f"a whole number{span}", "N", int, accepts)


def _flag(text: str) -> bool:
    return ("0", "false", "no", "off", "1", "true", "yes", "on").index(text.lower()) > 3


def _fields(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [line.partition(":") for line in _lines(text)]
    return tuple((name.strip(), value.strip() if colon else "\0") for name, colon, value in pairs)


def _are_fields(value: Any) -> bool:
    try:
        return isinstance(value, tuple) and all(
            _is_field_name(name) and text.encode("latin-1") and text.isprintable()
            for name, text in value
        )
    except (AttributeError, TypeError, ValueError):
        return False


_ADDRESS = re.compile(r"unix:.+|fd://\d+|(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]*):(?P<port>\d{1,5})")
_PEERS = frozenset({"127.0.0.1", "::1", "unix", "*"})

#: Headers that only the server can set: they say where a message ends, and what follows it.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
_NOT_FRAMING = "other than Connection, Content-Length, Transfer-Encoding and Upgrade"

_FUNCTION = re.compile(r"[\w.]+:[\w.]+")


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines() or [""])  # nothing is no value, and none of these kinds has it


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) and text for text in value)


def _are_addresses(value: Any) -> bool:
    found = [_ADDRESS.fullmatch(text) for text in value] if _are_texts(value) else [None]
    return all(match and int(match["port"] or 0) < 1 << 16 for match in found)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item for part in re.split(r"[,\n]", text) if (item := part.strip()))


def _are_peers(value: Any) -> bool:
    return _are_texts(value) and all(text in _PEERS or _is_network(text) for text in value)


def _is_network(text: str) -> bool:
    import ipaddress  # not before it is needed: 2 ms at start

    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_field_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and TOKEN.fullmatch(value.encode("utf-8", "surrogatepass")) is not None
        and value.lower() not in _FRAMING
    )


def _absolute_address(address: str) -> str:
    kind, unix, path = address.partition("unix:")
    return unix + os.path.abspath(path) if unix and not kind else address


def _is_address(value: Any) -> bool:
    return _are_addresses((value,)) and not value.startswith("fd://")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_path(value: Any) -> bool:
    return _is_name(value) and "\0" not in value


def _are_paths(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_path, value))


def _plain(path: Any) -> Any:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _is_function(value: Any) -> bool:
    return callable(value) or (isinstance(value, str) and bool(_FUNCTION.fullmatch(value)))


def _is_url_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "?" not in value


def _are_patterns(value: Any) -> bool:
    return _are_texts(value) and all(text[0] in "/*" for text in value)


def _is_mode(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 0o777


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= FOREVER


TEXT = Kind("a text", "TEXT", str, _is_text)
#: A text that is not empty.
NAME = Kind("a text that is not empty", "TEXT", str, _is_name)
SECRET = Kind("a text", "TEXT", str, _is_text, secret=True)
PATH = Kind("a path", "PATH", str, _is_path, convert=_plain, resolve=os.path.abspath)
#: A path; an empty one is the current directory.
DIRECTORY = Kind(
    "a path",
    "PATH",
    str,
    lambda value: value == "" or _is_path(value),
    convert=_plain,
    resolve=os.path.abspath,
)
#: A path, or `-` for a standard stream.
STREAM = Kind(
    "a path",
    "PATH",
    str,
    _is_path,
    convert=_plain,
    resolve=lambda path: path if path == "-" else os.path.abspath(path),
)
#: A path of requests, without what `root_path` puts before it.
URL_PATH = Kind("a path that begins with /", "PATH", str, _is_url_path)
#: What is called; in text, and for other processes, by its name.
FUNCTION = Kind("a function, or MODULE:ATTRIBUTE", "MODULE:ATTRIBUTE", str, _is_function)
FLAG = Kind("true or false", "", _flag, lambda value: isinstance(value, bool))
MODE = Kind("an octal number from 0 to 777", "OCTAL", lambda t: int(t, 8), _is_mode, "{:o}".format)
SECONDS = Kind(f"a number of seconds from 0 to {FOREVER}", "S", float, _is_time, "{:g}".format)
#: Response fields: `Name: value` in text, pairs of str in Python.
FIELDS = several(
    f"a header as NAME:VALUE, {_NOT_FRAMING}",
    "NAME:VALUE",
    _fields,
    _are_fields,
    lambda pair: tuple(pair) if isinstance(pair, list) else pair,
    show=lambda fields: "\n".join(map(": ".join, fields)),
)
#: Any number of texts, each given by an option of its own.
TEXTS = several("a text that is not empty", "TEXT", _lines, _are_texts)
PATHS = several(
    "a path",
    "PATH",
    _lines,
    _are_paths,
    _plain,
    resolve=lambda paths: tuple(map(os.path.abspath, paths)),
)
#: Paths of requests, in which `*` and `?` stand for others.
PATTERNS = several("a path or a pattern that begins with / or *", "PATH", _lines, _are_patterns)
ADDRESS = Kind(
    "an address as HOST:PORT, [IPV6]:PORT or unix:PATH",
    "ADDRESS",
    str,
    _is_address,
    resolve=_absolute_address,
)
ADDRESSES = several(
    "an address as HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N",
    "ADDRESS",
    _lines,
    _are_addresses,
    resolve=lambda addresses: tuple(map(_absolute_address, addresses)),
)
#: Peers, as one text or several.
PEERS = several("an address, a network, unix or *", "PEERS", _items, _are_peers)
FIELD_NAME = Kind(f"a header name, {_NOT_FRAMING}", "NAME", str, _is_field_name)


def as_root(path: str) -> str:
    """A path in the form of `root_path`: `/a/b`, or nothing."""
    return ("/" + path.strip("/")).rstrip("/")


def option(default: Any, kind: Kind, text: str, *, heading: str = "", variable: str = "") -> Any:
    """A field of `Config`. heading: for it and the options that follow.

    variable: another name in the environment, beside the one that follows from the field's.
    """
    metadata = {"kind": kind, "help": text, "heading": heading, "variable": variable}
    return dataclasses.field(default=default, metadata=metadata, repr=not kind.secret)


def name_of(function: Callable[..., Any]) -> str | None:
    """`module:attribute` for a function, by which another process finds it; None without one."""
    module = getattr(function, "__module__", "__main__")
    name = getattr(function, "__qualname__", "")
    if module == "__main__" or "<" in name or not name:  # <lambda>, <locals>
        return None
    return f"{module}:{name}"
