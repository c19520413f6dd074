"""Files of environment variables, as python-dotenv reads them."""

import io
import os

from .config import Config

__all__ = ["load", "read"]


def load(config: Config) -> None:
    """Set the variables of `env_file` that are not set yet, if there is one. Raises OptionError."""
    if config.env_file is None:
        return
    try:
        found = read(config.env_file)
    except ValueError as error:
        raise config.wrong("env_file", config.env_file, f"usable: {error}") from None
    for name, value in found.items():
        os.environ.setdefault(name, value)


def read(path: str) -> dict[str, str]:
    """Return the variables that a file sets; a name without `=` sets none.

    In a value, `${NAME}` stands for a variable of the environment, else of the file. Raises
    ValueError with the reason why a file can't be read.
    """
    try:
        from dotenv.main import DotEnv
        from dotenv.parser import parse_stream
    except ImportError:
        hint = "pip install 'tinyasgi[standard]'"
        raise ValueError(f"python-dotenv is not installed; {hint}") from None
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(error.strerror) from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:  # python-dotenv would skip it with a warning
            raise ValueError(f"line {binding.original.line} is not of the form NAME=VALUE")
    values = DotEnv(None, io.StringIO(text), override=False).dict()
    found = {name: value for name, value in values.items() if value is not None}
    for name, value in found.items():
        if "=" in name or "\0" in name + value:
            raise ValueError(f"no environment can have {name!r} with this value")
    return found
