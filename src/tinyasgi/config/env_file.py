"""Files of environment variables (`.env`), read with python-dotenv."""

import io
import os
import stat

from .config import Config


def load(config: Config) -> None:
    """Set the variables of `env_file` that are not set yet. Raises OptionError."""
    if config.env_file is None:
        return
    try:
        found = read(config.env_file)
    except ValueError as error:
        raise config.error("env_file", config.env_file, str(error)) from None
    for name, value in found.items():
        os.environ.setdefault(name, value)


def read(path: str) -> dict[str, str]:
    """Return the variables that a file sets. A name without `=` sets none.

    In a value, `${NAME}` stands for an environment variable, or else for a variable of the file.
    Raises ValueError; its text follows the name of the file in a message.
    """
    try:
        from dotenv.main import DotEnv
        from dotenv.parser import parse_stream
    except ImportError:
        raise ValueError("needs python-dotenv: pip install 'tinyasgi[standard]'") from None
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise ValueError("a pipe can be read only once, but each worker reads the file")
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        raise ValueError(f"can't be read: {getattr(error, 'strerror', error)}") from None
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:  # python-dotenv would skip it with a warning
            raise ValueError(f"can't be read: line {binding.original.line} must be NAME=VALUE")
    values = DotEnv(None, io.StringIO(text), override=False).dict()
    found = {name: value for name, value in values.items() if value is not None}
    for name, value in found.items():
        if "=" in name or "\0" in name + value:
            raise ValueError(f"can't be used: {name!r} has '=' in its name or a NUL in its value")
    return found
