"""The command `tinyasgi`: parse its arguments, and call `run`."""

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import signals
from ._version import __version__
from .config import other_servers, sources
from .config.config import Config
from .config.kinds import FLAG, Kind, OptionError
from .logs import setup as log
from .process.process import BAD_OPTION
from .run import run


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: with 0, or as `run` does, or with 2 for an option error."""
    with signals.take().exiting():
        app, config, only_check = _configure(arguments)
        if only_check:
            from .check import check  # not before it is needed

            sys.exit(check(app, config))
    run(app, config)
    sys.exit()


def _configure(arguments: Sequence[str] | None) -> tuple[str, Config, bool]:
    """Return the app, its options, and whether to check them only.

    Exit on an option error and for `--print-config`.
    """
    parser = _parser()
    given = vars(parser.parse_args(sys.argv[1:] if arguments is None else arguments))
    show, only_check = given.pop("print_config"), given.pop("check")
    warnings: list[str] = []
    try:
        _change_directory(given.pop("chdir"))
        found = sources.collect(given, os.environ, warnings.append)
        values = {name: setting.value for name, setting in found.items()}
        app = values.pop("app", None)
        config = Config(**values, names=sources.spellings(found))
    except OptionError as error:
        _warn(warnings, "text")
        parser.error(str(error))
    _warn(warnings, config.log_format)
    if show:
        text = sources.render(app, config, found) + "\n"
        # TOML is UTF-8, whatever the encoding of the terminal is.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.exit()
    if not app:
        parser.error("missing argument: the app, as in: tinyasgi module:attribute")
    return app, config, only_check


def _change_directory(path: str | None) -> None:
    """Change to the directory of `--chdir`. Raises OptionError.

    PWD keeps the links in the path: after SIGHUP, new workers follow a link that was changed.
    """
    if path is None:
        return
    try:
        os.chdir(path)
    except OSError as error:
        raise OptionError(f"{sources.argument('chdir').given(path)}: {error.strerror}") from None
    os.environ["PWD"] = os.path.normpath(os.path.join(os.environ.get("PWD", ""), path))


def _warn(texts: Sequence[str], log_format: str) -> None:
    for text in texts:
        log.report_warning(text, log_format)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        log.report_failure(log.ERROR_PREFIX + message, "text")
        sys.exit(BAD_OPTION)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        try:
            known, unknown = self.parse_known_args(self._with_plain_flags(args), namespace)
        except argparse.ArgumentError as error:
            verb = "takes no" if "explicit" in error.message else "needs a"
            self.error(f"{error.argument_name} {verb} value")
        if known.app and known.app.startswith("-"):  # argparse: `--x="a b"` is no option
            unknown.append(known.app)
        for word in sorted(unknown, key=lambda word: not word.startswith("-")):
            if not word.startswith("-"):
                self.error(f"unexpected argument {word!r}: the app is {known.app!r} already")
            name = word.partition("=")[0]
            options = list(self._option_string_actions)
            self.error(str(other_servers.unknown_option(name, name, options)))
        return known

    def _with_plain_flags(self, words: Sequence[str]) -> list[str]:
        """Replace the values of flags, which other servers accept.

        `--flag true` and `--flag=true` become `--flag`; `--flag false` becomes `--no-flag`.
        """
        found: list[str] = []
        for word in words:
            name, sign, text = word.partition("=")
            if not sign:
                name, text = found[-1] if found else "", word
            action = self._option_string_actions.get(name)
            value = other_servers.flag_value(name, text)
            if value is None or not isinstance(action, argparse.BooleanOptionalAction):
                found.append(word)
                continue
            if not sign:
                found.pop()
            found.append(name if value else action.option_strings[-1])
        return found


def _parser() -> _Parser:
    parser = _Parser(
        prog="tinyasgi",
        usage="tinyasgi [options] module:attribute",
        description="Serve an ASGI or WSGI app. Each option can also be set by the environment"
        " variable TINYASGI_NAME, or in tinyasgi.toml.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("app", nargs="?", help="the app, as module:attribute")
    version = f"tinyasgi {__version__}, {platform.python_implementation()} "
    version += f"{platform.python_version()} on {platform.system()}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings file; default: tinyasgi.toml or pyproject.toml in the current directory",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all options with their values and sources, in the format of tinyasgi.toml, and"
        " exit",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="load the app, the TLS files and the addresses, report what fails, and exit",
    )
    parser.add_argument(
        "--chdir", metavar="PATH", help="change to this directory before anything else"
    )
    for name in sources.FOREIGN:
        action = "store_true" if name == "reset_contextvars" else "store"
        parser.add_argument(
            sources.option_name(name), action=action, default=None, help=argparse.SUPPRESS
        )
    group: Any = parser
    for field in dataclasses.fields(Config):
        if field.metadata["heading"]:
            group = parser.add_argument_group(field.metadata["heading"])
        _add_option(group, field)
    return parser


def _add_option(group: Any, field: dataclasses.Field[Any]) -> None:
    kind: Kind = field.metadata["kind"]
    names, text = [sources.option_name(field.name)], field.metadata["help"].replace("%", "%%")
    if field.name in other_servers.SHORT:
        names.insert(0, other_servers.SHORT[field.name])
    if field.default not in (None, "", ()):
        variable, default = field.metadata["variable"], ", ".join(kind.texts(field.default))
        text += f" (default: {variable}, or {default})" if variable else f" (default: {default})"
    if kind is FLAG:
        group.add_argument(*names, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        action = "append" if kind.split else "store"
        group.add_argument(*names, action=action, metavar=kind.metavar, help=text)
