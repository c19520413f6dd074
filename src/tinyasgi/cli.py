"""`Config`'s fields → command line and environment; calls `run`."""

import argparse
import dataclasses
import difflib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from . import __version__
from .config import Config
from .options import FLAG, Kind, OptionError
from .process import BAD_OPTION
from .run import run

__all__ = ["environment_name", "main", "option_name"]


def option_name(field: str) -> str:
    """`timeout_head` → `--timeout-head`."""
    return "--" + field.replace("_", "-")


def environment_name(field: str) -> str:
    """`timeout_head` → `TINYASGI_TIMEOUT_HEAD`."""
    return "TINYASGI_" + field.upper()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command `tinyasgi`; exits as `run` says, and with 2 for a wrong option."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    try:
        app = given.pop("app") or os.environ.get(environment_name("app"))
        if not app:
            parser.error("which app? say tinyasgi module:attribute")
        config = Config(**_values(given, os.environ))
    except OptionError as error:
        parser.error(str(error))
    sys.exit(run(app, config))


def _values(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The options that were given, by field name: command line before environment."""
    values = {}
    for field in dataclasses.fields(Config):
        kind: Kind = field.metadata["kind"]
        name, value = option_name(field.name), given[field.name]
        if value is None:
            names = [environment_name(field.name), field.metadata["variable"]]
            name = next(filter(environment.get, names), names[0])
            value = environment.get(name) or None  # empty is not given
        if isinstance(value, list):
            value = "\n".join(value)
        if isinstance(value, str):
            text = value
            try:
                value = kind.parse(text)
            except ValueError:
                raise OptionError(name, text, kind.allowed) from None
            if not kind.accepts(value):
                raise OptionError(name, text, kind.allowed)
        if value is not None:
            values[field.name] = value
    return values


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"tinyasgi: error: {message}", file=sys.stderr)
        sys.exit(BAD_OPTION)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        for word in unknown:
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            hint = f", did you mean {near[0]}?" if near else "; --help lists what there is"
            self.error(f"there is no option {name}{hint}")
        return known


def _parser() -> _Parser:
    parser = _Parser(
        prog="tinyasgi",
        usage="tinyasgi [options] module:attribute",
        description="Serves an ASGI app. Each option can be given as TINYASGI_NAME, too.",
        allow_abbrev=False,
    )
    parser.add_argument("app", nargs="?", help="the app, as module:attribute")
    version = f"tinyasgi {__version__}, {platform.python_implementation()} "
    version += f"{platform.python_version()} on {platform.system()}"
    parser.add_argument("--version", action="version", version=version)
    group: Any = parser
    for field in dataclasses.fields(Config):
        kind: Kind = field.metadata["kind"]
        if field.metadata["heading"]:
            group = parser.add_argument_group(field.metadata["heading"])
        name, text = option_name(field.name), field.metadata["help"].replace("%", "%%")
        if kind is FLAG:
            yes_or_no = argparse.BooleanOptionalAction
            group.add_argument(name, action=yes_or_no, default=None, help=text)
            continue
        if field.default not in (None, "", ()):
            text += f" (default: {kind.show(field.default)})"
        action = "append" if kind.repeatable else "store"
        group.add_argument(name, action=action, metavar=kind.metavar, help=text)
    return parser
