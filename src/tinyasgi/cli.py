"""`Config`'s fields → command line; calls `run`."""

import argparse
import dataclasses
import difflib
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from . import signals
from ._version import __version__
from .config import sources
from .config.config import Config
from .config.kinds import FLAG, Kind, OptionError, UnknownOption
from .config.sources import option_name
from .logs import setup as log
from .process.process import BAD_OPTION
from .run import run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command `tinyasgi`; exits as `run` says, and with 2 for a wrong option."""
    with signals.take().exiting():
        app, config = _settle(arguments)
    sys.exit(run(app, config))


def _settle(arguments: Sequence[str] | None) -> tuple[str, Config]:
    """The app and its options; exits for a wrong option."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    show = given.pop("print_config")
    try:
        found = sources.settle(given, os.environ, parser.warn)
        values = {name: setting.value for name, setting in found.items()}
        app = values.pop("app", None)
        config = Config(**values, names=sources.names(found))
    except OptionError as error:
        parser.error(str(error))
    if show:
        text = sources.render(app, config, found) + "\n"
        # TOML is UTF-8, whatever the terminal is.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.exit()
    if not app:
        parser.error("which app? say tinyasgi module:attribute")
    return app, config


class _Parser(argparse.ArgumentParser):
    _log_format = "text"
    """Of what it says; known before anything else is."""

    def error(self, message: str) -> NoReturn:
        log.report_failure(log.ERROR_PREFIX + message, self._log_format)
        sys.exit(BAD_OPTION)

    def warn(self, message: str) -> None:
        log.report_warning(message, self._log_format)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._log_format = _log_format(sys.argv[1:] if args is None else args)
        known, unknown = self.parse_known_args(args, namespace)
        for word in unknown:
            if not word.startswith("-"):
                self.error(f"unexpected argument {word!r}: the app is {known.app!r} already")
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            self.error(str(UnknownOption(name, *near)))
        return known


def _log_format(arguments: Sequence[str]) -> str:
    """The format of logs that is asked for, in which also a wrong option is to be told."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--log-format")
    parser.add_argument("--config")
    with suppress(argparse.ArgumentError):
        given = vars(parser.parse_known_args(arguments)[0])
        if sources.hint("log_format", given, os.environ) == "json":
            return "json"
    return "text"


def _parser() -> _Parser:
    parser = _Parser(
        prog="tinyasgi",
        usage="tinyasgi [options] module:attribute",
        description="Serves an ASGI or WSGI app. Each option can be given in the environment, as"
        " TINYASGI_NAME, and in a file, too.",
        allow_abbrev=False,
    )
    parser.add_argument("app", nargs="?", help="the app, as module:attribute")
    version = f"tinyasgi {__version__}, {platform.python_implementation()} "
    version += f"{platform.python_version()} on {platform.system()}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="file of options, by default tinyasgi.toml or pyproject.toml when it is here",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all options and where each value is from, as a file of options, and exit",
    )
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
            text += f" (default: {', '.join(kind.show(field.default).splitlines())})"
        action = "append" if kind.repeatable else "store"
        group.add_argument(name, action=action, metavar=kind.metavar, help=text)
    return parser
