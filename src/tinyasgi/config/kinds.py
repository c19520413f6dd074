"""Kinds of option values: how a value is parsed, checked and shown."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..http.parsers import TOKEN

#: Maximum of options for times, in seconds (31 years). Larger values overflow the timers of some
#: systems.
MAX_SECONDS = 10**9
#: Shown in place of a secret.
MASK = "***"
#: Maximum length of a value in a message, in characters.
MAX_SHOWN = 200
#: Values that messages show without quotes.
_PLAIN = re.compile(r"[\w./:@%+,=*-]+")


class OptionError(ValueError):
    """An option that is unknown or has an unusable value; the message names the option."""


class Spelling(NamedTuple):
    """The way a user wrote an option: `--port 80`, `TINYASGI_PORT=80` or, in Python, `port=80`."""

    name: str
    sign: str = "="
    """Text between the name and the value."""
    place: str = ""
    """Text after the value, such as ` in tinyasgi.toml`."""
    quoted: bool = True
    """Whether a str value is always shown in quotes."""

    def __str__(self) -> str:
        return self.name + self.place

    def given(self, value: object) -> str:
        """Return the option with its value, as the user wrote it."""
        if value is True and self.sign == " ":  # a flag of the command line
            return self.name
        plain = isinstance(value, str) and not self.quoted and _PLAIN.fullmatch(value)
        text = str(value) if plain else repr(value)
        if isinstance(value, bool) and self.sign == " = ":  # TOML
            text = text.lower()
        if len(text) > MAX_SHOWN:
            text = text[:MAX_SHOWN] + "…"
        return f"{self.name}{self.sign}{text}{self.place}"


@dataclass(frozen=True)
class Kind:
    """A kind of option value. The value of a repeatable option is a tuple of single values.

    The functions of a kind apply to a single value. They raise AttributeError, TypeError or
    ValueError if the value has the wrong type or form.
    """

    expected: str
    """Description of the allowed values, with an example, for error messages."""
    metavar: str
    """Name of the value in `--help`; the unit, if the value has one."""
    accepts: Callable[[Any], object]
    """Check a value; the result is truthy if the value is allowed."""
    parse: Callable[[str], Any] = str
    """Convert a text from the command line, the environment or a file to a value."""
    show: Callable[[Any], str] = str
    """Convert a value back to text."""
    convert: Callable[[Any], Any] = lambda value: value
    """Convert a Python or TOML object of another type to a value."""
    resolve: Callable[[Any], Any] = lambda value: value
    """Replace a relative path in a value by the absolute path."""
    split: Callable[[str], Sequence[str]] | None = None
    """For a repeatable kind: split a text into the texts of single values."""
    secret: bool = False
    """Whether messages must not show values."""

    def read(self, spelling: Spelling, value: Any, *, text: bool = False) -> Any:
        """Convert and check the value of an option. Raises OptionError.

        text: whether strings are parsed, as on the command line. A string in place of a list is
        always parsed.
        """
        if self.split is None:
            return self._read_one(spelling, value, text)
        if isinstance(value, str):
            value, text = self.split(value), True
        elif isinstance(value, os.PathLike):
            value = [value]
        elif not isinstance(value, list | tuple):
            raise self._error(spelling, value)
        elif text:
            parts = [self.split(item) if isinstance(item, str) else [item] for item in value]
            value = [part for each in parts for part in each]
        return tuple(self._read_one(spelling, item, text) for item in value)

    def _read_one(self, spelling: Spelling, value: Any, text: bool) -> Any:
        try:
            found = self.parse(value) if text and isinstance(value, str) else self.convert(value)
            if self.accepts(found):
                return found
        except (AttributeError, TypeError, ValueError):
            pass
        raise self._error(spelling, value)

    def _error(self, spelling: Spelling, value: Any) -> OptionError:
        return OptionError(f"{self.given(spelling, value)}: expected {self.expected}")

    def given(self, spelling: Spelling, value: Any) -> str:
        """Return an option with its value, for a message. A secret is masked."""
        return spelling.given(MASK if self.secret else value)

    def texts(self, value: Any) -> list[str]:
        """Convert a value to a list of texts: one text, or one per item of a repeatable kind."""
        return list(map(self.show, [value] if self.split is None else value))

    def resolved(self, value: Any) -> Any:
        """Return the value of an option with absolute paths in place of relative ones."""
        if self.split is None:
            return self.resolve(value)
        return tuple(map(self.resolve, value))


# Functions that make kinds.


def choice(*words: str, aliases: dict[str, str] | None = None) -> Kind:
    """Return a kind for a choice of words. Case does not matter.

    aliases: maps other accepted words to these words; an int is accepted like the str of its
    digits.
    """
    known = {word: word for word in words} | (aliases or {})

    def convert(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(int(value))  # an IntEnum such as `ssl.CERT_NONE`, too
        return known.get(value.lower(), value)

    expected, metavar = ", ".join(words[:-1]) + f" or {words[-1]}", "{" + ",".join(words) + "}"
    return Kind(expected, metavar, words.__contains__, parse=convert, convert=convert)


def either(first: Kind, second: Kind) -> Kind:
    """Return a kind for values of two kinds. Texts and objects are converted as by the first."""
    return dataclasses.replace(
        first,
        expected=f"{first.expected}, or {second.expected}",
        accepts=lambda value: first.accepts(value) or second.accepts(value),
    )


def number(low: int = 0, high: int | None = None, *, example: int, unit: str = "") -> Kind:
    """Return a kind for whole numbers from `low` to `high`; None: no maximum."""

    def accepts(value: Any) -> bool:
        return type(value) is int and low <= value <= (high or value)

    noun = f"{unit}, " if unit else ""
    span = f"of {noun}at least {low}" if high is None else f"from {low} to {high}"
    expected = f"a whole number {span}, such as {example}"
    return Kind(expected, (unit or "N").upper(), accepts, parse=int)


def repeatable(kind: Kind, split: Callable[[str], Sequence[str]] | None = None) -> Kind:
    """Return a kind for tuples of values of `kind`. By default, a text has one value per line."""
    return dataclasses.replace(kind, split=split or _lines)


def _lines(text: str) -> Sequence[str]:
    return text.splitlines() or [""]  # an empty text is one empty value, which is an error


# Texts and numbers.


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def as_root(path: str) -> str:
    """Return a path in the form of `root_path`: `/a/b`, or an empty text."""
    return ("/" + path.strip("/")).rstrip("/")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


FLAG_WORDS = dict.fromkeys(("1", "true", "yes", "on"), True)
FLAG_WORDS |= dict.fromkeys(("0", "false", "no", "off"), False)

FLAG = Kind(
    "true or false",
    "",
    _is_flag,
    parse=lambda text: FLAG_WORDS.get(text.lower()),
    show=lambda value: "on" if value else "off",
)
TEXT = Kind("a string", "TEXT", _is_text)
SECRET = Kind("a string", "TEXT", _is_text, secret=True)
NAME = Kind("a non-empty string", "TEXT", _is_name)
NAMES = repeatable(NAME)
COUNT = number(example=100)
SECONDS = Kind(
    f"a number of seconds from 0 to {MAX_SECONDS}, such as 2.5",
    "SECONDS",
    lambda value: type(value) in (int, float) and 0 <= value <= MAX_SECONDS,
    parse=float,
    show="{:g}".format,
)
MODE = Kind(
    'an octal number from 0 to 777, such as 660; in a file, a string: "660"',
    "OCTAL",
    lambda value: type(value) is int and 0 <= value <= 0o777,
    parse=lambda text: int(text, 8),
    show="{:o}".format,
)


# Paths.


def _is_path(value: Any) -> bool:
    return _is_name(value) and "\0" not in value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


PATH = Kind("a non-empty path", "PATH", _is_path, convert=_path, resolve=os.path.abspath)
PATHS = repeatable(PATH)
#: The path of a unix socket.
SOCKET = dataclasses.replace(
    PATH,
    expected="a path; write ./@name for a file, as there are no abstract sockets",
    accepts=lambda value: _is_path(value) and value[0] != "@",
)
#: The path of a file, or the content of one as a dict.
LOG_CONFIG = dataclasses.replace(
    PATH,
    expected="a non-empty path, or a dict in Python",
    accepts=lambda value: _is_path(value) or (isinstance(value, dict) and value),
    resolve=lambda value: value if isinstance(value, dict) else os.path.abspath(value),
)
#: A path; an empty one is the current directory.
DIRECTORY = dataclasses.replace(PATH, accepts=lambda value: value == "" or _is_path(value))
#: A path, or `-` for a standard stream.
STREAM = dataclasses.replace(
    PATH,
    expected="a path, or - for the standard stream",
    resolve=lambda path: path if path == "-" else os.path.abspath(path),
)
#: The name of a function.
NAMED = Kind(
    "MODULE:ATTRIBUTE such as site.loops:make_loop",
    "MODULE:ATTRIBUTE",
    lambda value: re.fullmatch(r"[\w.]+:[\w.]+", value),
)
#: A function, or its name. In files, on the command line and in a pickled `Config` it is a name.
FUNCTION = Kind(
    "a function, or MODULE:ATTRIBUTE such as site.tls:make_context",
    "MODULE:ATTRIBUTE",
    lambda value: callable(value) or NAMED.accepts(value),
)


# HTTP.

#: Headers that only the server may set: they delimit messages and control the connection.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
_NOT_FRAMING = "not Connection, Content-Length, Transfer-Encoding or Upgrade"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError
    return name.strip(), value.strip()


def _is_header(value: Any) -> Any:
    name, text = value
    return (
        isinstance(value, tuple)
        and _is_header_name(name)
        and text.encode("latin-1")
        and text.isprintable()
    )


def _is_header_name(value: str) -> bool:
    token = TOKEN.fullmatch(value.encode("utf-8", "surrogatepass"))
    return token is not None and value.lower() not in _FRAMING


HEADER_NAME = Kind(f"a header name such as X-Request-ID; {_NOT_FRAMING}", "NAME", _is_header_name)
#: Headers: `Name: value` in text, pairs of str in Python.
HEADERS = repeatable(
    Kind(
        f"a header such as X-Frame-Options:DENY (a pair of str in Python); {_NOT_FRAMING}",
        "NAME:VALUE",
        _is_header,
        parse=_header,
        show=": ".join,
        convert=lambda pair: tuple(pair) if isinstance(pair, list) else pair,
    )
)
ROOT_PATH = Kind("a URL path such as /api", "PATH", _is_text, parse=as_root, convert=as_root)
#: The path of a URL, without its `root_path`.
URL_PATH = Kind(
    "a path that begins with /, such as /health",
    "PATH",
    lambda value: value.startswith("/") and "?" not in value,
)
#: Paths of URLs, in which `*` and `?` are wildcards.
URL_PATTERNS = repeatable(
    Kind(
        "a path or pattern that begins with / or *, such as /static/*",
        "PATH",
        lambda value: value.startswith(("/", "*")),
    )
)


# Addresses.

_ADDRESS = re.compile(r"unix:.+|fd://\d+|(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]*):(?P<port>\d{1,5})")


def _is_address(value: Any) -> bool:
    match = _ADDRESS.fullmatch(value)
    return match is not None and int(match["port"] or 0) < 1 << 16


def _absolute_address(address: str) -> str:
    kind, unix, path = address.partition("unix:")
    return unix + os.path.abspath(path) if unix and not kind else address


def _is_peer(value: str) -> bool:
    if value not in ("127.0.0.1", "::1", "unix", "*"):  # the default needs no import
        import ipaddress  # takes 2 ms at startup

        ipaddress.ip_network(value)
    return isinstance(value, str)


def _peers(text: str) -> list[str]:
    return [peer for part in re.split(r"[,\n]", text) if (peer := part.strip())]


ADDRESS = Kind(
    "an address as HOST:PORT, [IPV6]:PORT or unix:PATH, such as 127.0.0.1:9100",
    "ADDRESS",
    lambda value: _is_address(value) and not value.startswith("fd://"),
    resolve=_absolute_address,
)
ADDRESSES = repeatable(
    Kind(
        "an address as HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N, such as 127.0.0.1:8000",
        "ADDRESS",
        _is_address,
        resolve=_absolute_address,
    )
)
#: Peers that may be trusted, in one text or several.
PEERS = repeatable(
    Kind("an IP address, a network such as 10.0.0.0/8, unix or *", "PEERS", _is_peer), _peers
)
