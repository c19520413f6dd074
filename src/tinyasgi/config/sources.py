"""Sources of options: command line, environment, env file and settings file."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._version import __version__
from ..errors import did_you_mean
from . import env_file, other_servers
from .config import Config
from .kinds import MASK, MODE, TEXT, Kind, OptionError, Spelling

#: Settings files that are looked for in the current directory. The first with settings is used.
FILES = ("tinyasgi.toml", "pyproject.toml")
#: Matches in a pyproject.toml that may have a table [tool.tinyasgi]. Parsing TOML takes 5 ms.
_TABLE = re.compile(rb"""\btool["']?\s*(?:\.\s*["']?tinyasgi|[]=])""")
_PREFIX = "TINYASGI_"
#: Prefixes of the values that Kubernetes sets for the ports of a Service.
_SERVICE = ("tcp://", "udp://", "sctp://")


class Setting(NamedTuple):
    """The value of an option in one source: a text, or an object from TOML."""

    spelling: Spelling
    value: Any


def option_name(field: str) -> str:
    """Return the name on the command line: `--timeout-head` for `timeout_head`."""
    return "--" + field.replace("_", "-")


def environment_name(field: str) -> str:
    """Return the environment variable: `TINYASGI_TIMEOUT_HEAD` for `timeout_head`."""
    return _PREFIX + field.upper()


_FIELDS = dataclasses.fields(Config)
_KINDS: dict[str, Kind] = {"app": TEXT} | {field.name: field.metadata["kind"] for field in _FIELDS}
#: Names of options that only uvicorn has.
FOREIGN = (*other_servers.RENAMED, *other_servers.WITHOUT_MEANING)
#: Environment variables that platforms set, and their options.
_PLATFORM = {
    field.metadata["variable"]: field.name for field in _FIELDS if field.metadata["variable"]
}
_UVICORN = {f"UVICORN_{name.upper()}": name for name in (*_KINDS, *FOREIGN)}
_OWN = {environment_name(name): name for name in [*_KINDS, "config"]}


def collect(
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    warn: Callable[[str], object] = lambda text: None,
) -> dict[str, Setting]:
    """Return the settings that the user made, by field, `app` included. Raises OptionError.

    Precedence: the command line, the environment, the env file, the settings file. If the settings
    file itself names the env file, these two change places.

    arguments: options of the command line by field; None is "not given"; `config` names a settings
    file. warn: called with each warning.
    """
    _warn_of_misspellings(environment, "", warn)
    above = _from_environment(environment, _PLATFORM)
    above |= _translated(_from_environment(environment, _UVICORN))
    above |= _from_environment(environment, _OWN) | _from_arguments(arguments)
    file = _from_file(above.pop("config", None), warn)
    found = file | above
    if "env_file" in found:
        inner = _from_env_file(found["env_file"], warn)
        found = file | inner | above if "env_file" in above else inner | file | above
    names = [setting.spelling.name for setting in found.values()]
    if environment.get("GUNICORN_CMD_ARGS"):
        warn("GUNICORN_CMD_ARGS is not used; write its options on the command line")
    if uvicorn := [name for name in names if name in _UVICORN]:
        warn(f"using {', '.join(uvicorn)}; tinyasgi's own variables begin with {_PREFIX}")
    return {name: _read(name, setting) for name, setting in found.items()}


def spellings(found: Mapping[str, Setting]) -> dict[str, Spelling]:
    """Return how messages name the options: as in their sources, else as on the command line."""
    given = {name: setting.spelling for name, setting in found.items()}
    return {field.name: argument(field.name) for field in _FIELDS} | given


def _read(name: str, setting: Setting) -> Setting:
    """Return the setting with its value parsed and checked. Raises OptionError."""
    kind, (spelling, value) = _KINDS[name], setting
    if kind is MODE and isinstance(value, int):  # 640 in TOML is a decimal number
        raise OptionError(f"{spelling.given(value)}: expected {kind.expected}")
    return Setting(spelling, kind.read(spelling, value, text=True))


def argument(name: str) -> Spelling:
    """Return how messages name an option of the command line."""
    return Spelling(option_name(name), " ", quoted=False)


def _translated(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return settings with the names that options of uvicorn have here. Raises OptionError."""
    refused = other_servers.WITHOUT_MEANING.keys() - _KINDS
    for name in settings.keys() & refused:
        other_servers.check(settings[name].spelling, name, settings[name].value)
    return {
        other_servers.RENAMED.get(name, name): setting
        for name, setting in settings.items()
        if name not in refused
    }


def _from_arguments(arguments: Mapping[str, Any]) -> dict[str, Setting]:
    return _translated(
        {
            name: Setting(argument(name) if name != "app" else Spelling("command line"), value)
            for name, value in arguments.items()
            if value is not None
        }
    )


def from_platform(environment: Mapping[str, str]) -> dict[str, Setting]:
    """Return the settings of WEB_CONCURRENCY and FORWARDED_ALLOW_IPS. Raises OptionError."""
    found = _from_environment(environment, _PLATFORM)
    return {name: _read(name, setting) for name, setting in found.items()}


def _from_environment(
    environment: Mapping[str, str], variables: Mapping[str, str], place: str = ""
) -> dict[str, Setting]:
    """Return the settings of environment variables. An empty variable counts as not set.

    For Services called tinyasgi and tinyasgi-db, Kubernetes sets TINYASGI_PORT=tcp://10.0.0.1:80
    and TINYASGI_DB_PORT in each pod. Such values are ignored.
    """
    return {
        name: Setting(Spelling(variable, "=", place, quoted=False), value)
        for variable, name in variables.items()
        if (value := environment.get(variable)) and not value.startswith(_SERVICE)
    }


def _warn_of_misspellings(
    environment: Mapping[str, str], place: str, warn: Callable[[str], object]
) -> None:
    """Warn of variables whose names are nearly those of options.

    Other unknown variables, such as TINYASGI_VERSION, belong to other programs.
    """
    for variable, value in environment.items():
        if variable.startswith(_PREFIX) and not value.startswith(_SERVICE):
            hint = did_you_mean(variable, _OWN, _PREFIX, 0.7)
            if hint and variable not in (*_OWN, "TINYASGI_WORKER"):
                warn(f"unknown option {variable}{place}{hint}")


def _from_env_file(setting: Setting, warn: Callable[[str], object]) -> dict[str, Setting]:
    """Return the settings of the variables in an env file. Raises OptionError."""
    shown, path = _read("env_file", setting)
    try:
        lines = env_file.read(path)
    except ValueError as error:
        raise OptionError(f"{shown.given(path)} {error}") from None
    place = f" in {path}"
    _warn_of_misspellings(lines, place, warn)
    found = _from_environment(lines, _PLATFORM | _OWN, place)
    for name in found.keys() & {"config", "env_file"}:
        raise OptionError(f"{found[name].spelling} can't be set in an env file")
    return found


def _from_file(named: Setting | None, warn: Callable[[str], object]) -> dict[str, Setting]:
    """Return the settings of the named file, else of the first file in FILES that has any."""
    table: dict[str, Any] | None = None
    if named is not None:
        path = named.value
        shown = named.spelling.given(path)
        table = _table(path, shown)
        if table is None:
            raise OptionError(f"{shown} has no table [tool.tinyasgi]")
    else:
        for path in filter(os.path.exists, FILES):
            table = _table(path, path)
            if table is not None:
                break
        else:
            if os.path.exists("gunicorn.conf.py"):
                warn(f"gunicorn.conf.py is not used; write its settings to {FILES[0]}")
    found: dict[str, Setting] = {}
    for key, value in (table or {}).items():
        name, spelling = key.replace("-", "_"), Spelling(key, " = ", f" in {path}")
        if name not in _KINDS and name not in FOREIGN:
            known = [k.replace("_", "-") for k in _KINDS]
            raise other_servers.unknown_option(str(spelling), key, known)
        if name in found:
            first = found[name].spelling.name
            raise OptionError(f"{path} sets an option twice, as {first} and as {key}")
        found[name] = Setting(spelling, value)
    return _translated(found)


def _table(path: str, shown: str) -> dict[str, Any] | None:
    """Return the settings in a file, or None for a pyproject.toml without [tool.tinyasgi].

    shown: the file in messages. Raises OptionError.
    """
    if path.endswith(".py"):
        raise OptionError(f"{shown} can't be read: a settings file is TOML, not Python")
    whole = os.path.basename(path) != "pyproject.toml"
    try:
        with open(path, "rb") as file:
            data = file.read()
        if not whole and not _TABLE.search(data):
            return None
        import tomllib  # only if there is a settings file

        content: Any = tomllib.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise OptionError(f"{shown} can't be read: {reason}") from None
    for key in () if whole else ("tool", "tinyasgi"):
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, dict | None):
        raise OptionError(f"tool.tinyasgi in {path} must be a table, not {type(content).__name__}")
    return content


def render(app: str | None, config: Config, found: Mapping[str, Setting]) -> str:
    """Return all options as a settings file, with their sources. A secret is not shown."""
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
        source = str(found[name].spelling) if name in found else "default"
    return f"{text:<36}  # {source}"


def _toml(value: Any, kind: Kind) -> str:
    """Return a value in TOML that `_read` converts back to the same value."""
    if isinstance(value, int | float) and kind is not MODE:
        return repr(value).lower()
    texts = list(map(_quoted, kind.texts(value)))
    return f"[{', '.join(texts)}]" if kind.split else texts[0]


def _quoted(text: str) -> str:
    import json  # only for --print-config

    printable = text.encode("utf-8", "backslashreplace").decode()  # a path need not be UTF-8
    return json.dumps(printable, ensure_ascii=False).replace("\x7f", "\\u007f")
