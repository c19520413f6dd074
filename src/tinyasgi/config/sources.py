"""What command line, environment and files say of the options, and which of them is heard."""

import dataclasses
import difflib
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from .._version import __version__
from . import env_file
from .config import Config
from .kinds import MASK, MODE, TEXT, Kind, OptionError, UnknownOption, UnusableFile

__all__ = ["Setting", "environment_name", "hint", "names", "option_name", "render", "settle"]

#: Files that are looked for in the current directory; the first one that says something counts.
FILES = ("tinyasgi.toml", "pyproject.toml")
#: Where a pyproject.toml may have [tool.tinyasgi], so that it has to be parsed. That takes 5 ms.
_TABLE = re.compile(rb"""\btool["']?\s*(?:\.\s*["']?tinyasgi|[]=])""")
_PREFIX = "TINYASGI_"
#: How values begin that Kubernetes gives for the port of a Service.
_SERVICE = ("tcp://", "udp://", "sctp://")


class Setting(NamedTuple):
    """What is said of an option: a text as on the command line, or a value of TOML."""

    name: str
    """The option as its source calls it: `--port`, `TINYASGI_PORT`, `port in tinyasgi.toml`."""
    value: Any


def option_name(field: str) -> str:
    """`timeout_head` → `--timeout-head`."""
    return "--" + field.replace("_", "-")


def environment_name(field: str) -> str:
    """`timeout_head` → `TINYASGI_TIMEOUT_HEAD`."""
    return _PREFIX + field.upper()


_FIELDS = dataclasses.fields(Config)
_KINDS: dict[str, Kind] = {"app": TEXT} | {field.name: field.metadata["kind"] for field in _FIELDS}
#: Names in the environment and what they are for; later ones are heard before earlier ones.
_VARIABLES = {
    field.metadata["variable"]: field.name for field in _FIELDS if field.metadata["variable"]
}
_VARIABLES |= {environment_name(name): name for name in [*_KINDS, "config"]}


def settle(
    given: Mapping[str, Any],
    environment: Mapping[str, str],
    warn: Callable[[str], object] = lambda text: None,
) -> dict[str, Setting]:
    """The value of each option that is given somewhere, by field; `app` is among them.

    given: what the command line says, by field; `config` names a file. The command line is heard
    first, then the environment, then the lines of `env_file`, last a file of settings; the last two
    the other way round when that file names the `env_file`. Raises OptionError. warn: called with
    each warning.
    """
    words = {
        name: Setting(option_name(name) if name != "app" else "command line", value)
        for name, value in given.items()
        if value is not None
    }
    above = _from_environment(environment) | words
    warnings = slips(environment)
    file = _from_file(above.pop("config", None))
    found = file | above
    if "env_file" in found:
        name, path = _read("env_file", found["env_file"])
        if os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode):
            raise OptionError(name, path, "a file that can be read again, as each worker does")
        try:
            lines = env_file.read(path)
        except ValueError as error:
            raise OptionError(name, path, f"usable: {error}") from None
        inner = _from_environment(lines, f" in {path}")
        warnings += slips(lines, f" in {path}")
        for name in inner.keys() & {"config", "env_file"}:
            raise OptionError(*inner[name], "possible there: it says which files are read")
        # Whoever names the file of the lines comes before them.
        found = file | inner | above if "env_file" in above else inner | file | above
    for text in warnings:
        warn(text)
    return {name: _read(name, setting) for name, setting in found.items()}


def names(found: Mapping[str, Setting]) -> dict[str, str]:
    """What messages call the options: as their sources do, else as the command line does."""
    given = {name: setting.name for name, setting in found.items()}
    return {field.name: option_name(field.name) for field in _FIELDS} | given


def hint(name: str, given: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """What is said of an option, as far as it is known while what is said of others is wrong."""
    value = given.get(name) or environment.get(environment_name(name))
    files = (given.get("config"), environment.get(environment_name("config")), *FILES)
    # A pipe can be read only once, and not for a hint.
    for path in filter(os.path.isfile, filter(None, () if value else files)):
        with suppress(OptionError):
            table = _table(path) or {}
            value = value or table.get(name, table.get(name.replace("_", "-")))
    return value


def _read(name: str, setting: Setting) -> Setting:
    """The same with the value that the option takes. Raises OptionError."""
    kind, value = _KINDS[name], setting.value
    try:
        if kind.repeatable and value and isinstance(value, list):
            value = "\n".join(value)
        if isinstance(value, str):
            read = kind.parse(value)
        elif kind is MODE:  # 640 in TOML is hardly meant as a decimal number
            raise ValueError
        else:
            read = kind.convert(value)
        if kind.accepts(read):
            return setting._replace(value=read)
    except (TypeError, ValueError):
        pass
    raise OptionError(setting.name, kind.told(value), kind.allowed)


def _from_environment(environment: Mapping[str, str], where: str = "") -> dict[str, Setting]:
    """What the variables of an environment say; empty is not given.

    Nor is what begins with tcp://. For Services that are called tinyasgi and tinyasgi-db,
    Kubernetes gives each pod a TINYASGI_PORT=tcp://10.0.0.1:80 and a TINYASGI_DB_PORT like it.
    """
    found = {}
    for variable, name in _VARIABLES.items():
        value = environment.get(variable)
        if value and not value.startswith(_SERVICE):
            found[name] = Setting(variable + where, value)
    return found


def slips(environment: Mapping[str, str], where: str = "") -> list[str]:
    """Warnings about variables that no option has, but one that is nearly the same.

    Others, as TINYASGI_VERSION, are for somebody else.
    """
    known = [name.removeprefix(_PREFIX) for name in _VARIABLES]
    found: list[UnknownOption] = []
    for variable, value in environment.items():
        word = variable.removeprefix(_PREFIX)
        ours = word == variable or variable in _VARIABLES or variable == "TINYASGI_WORKER"
        if not ours and not value.startswith(_SERVICE):
            near = difflib.get_close_matches(word, known, 1, 0.7)
            found += [UnknownOption(variable + where, _PREFIX + name) for name in near]
    return [str(slip) for slip in found]


def _from_file(named: Setting | None) -> dict[str, Setting]:
    """What the file that is named says, else the first of FILES that says something."""
    table: dict[str, Any] | None = {}
    if named is not None:
        path = named.value
        try:
            table = _table(path)
        except UnusableFile as error:
            raise OptionError(*named, f"usable: {error.reason}") from None
        if table is None:
            raise OptionError(*named, "a file with a table [tool.tinyasgi]")
    else:
        for path in filter(os.path.exists, FILES):
            table = _table(path)
            if table is not None:
                break
    found: dict[str, Setting] = {}
    for key, value in (table or {}).items():
        name, setting = key.replace("-", "_"), Setting(f"{key} in {path}", value)
        if name not in _KINDS:
            near = difflib.get_close_matches(name, _KINDS, 1)
            raise UnknownOption(setting.name, *[other.replace("_", "-") for other in near])
        if name in found:
            told = _KINDS[name].told(value)
            raise OptionError(setting.name, told, f"possible beside {found[name].name}")
        found[name] = setting
    return found


def _table(path: str) -> dict[str, Any] | None:
    """The settings in a file: all of it, or in a pyproject.toml [tool.tinyasgi], if it is there.

    Raises OptionError, and UnusableFile for a file that can't be read as TOML.
    """
    whole = os.path.basename(path) != "pyproject.toml"
    try:
        with open(path, "rb") as file:
            data = file.read()
        if not whole and not _TABLE.search(data):
            return None
        import tomllib  # not before it is needed

        content: Any = tomllib.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UnusableFile(path, str(getattr(error, "strerror", error))) from None
    for key in () if whole else ("tool", "tinyasgi"):
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict | None):
        # Its type, for a secret may be in it.
        raise OptionError(f"tool.tinyasgi in {path}", type(content).__name__, "a table")
    return content


def render(app: str | None, config: Config, found: Mapping[str, Setting]) -> str:
    """All options as a file of settings, with where each value is from; a secret is not shown."""
    lines = [f"# tinyasgi {__version__}", "", _line("app", app, found)]
    for field in _FIELDS:
        if heading := field.metadata["heading"]:
            lines += ["", f"# {heading}"]
        lines.append(_line(field.name, getattr(config, field.name), found))
    return "\n".join(lines)


def _line(name: str, value: Any, found: Mapping[str, Setting]) -> str:
    kind, key = _KINDS[name], name.replace("_", "-")
    if value is None:
        text, source = f"# {key}", "not given"
    else:
        text = f"# {key} = {MASK}" if kind.secret else f"{key} = {_toml(value, kind)}"
        source = found[name].name if name in found else "default"
    return f"{text:<36}  # {source}"


def _toml(value: Any, kind: Kind) -> str:
    """A value in TOML, so that `_read` makes the same of it."""
    if kind.repeatable:
        return "[" + ", ".join(map(_quoted, kind.show(value).splitlines())) + "]"
    if isinstance(value, int | float) and kind is not MODE:
        return repr(value).lower()
    return _quoted(kind.show(value))


def _quoted(text: str) -> str:
    import json  # not before it is needed

    printable = text.encode("utf-8", "backslashreplace").decode()  # a path need not be UTF-8
    return json.dumps(printable, ensure_ascii=False).replace("\x7f", "\\u007f")
