"""Data that another process needs to serve the same app."""

import os
import pickle
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config.config import Config

if TYPE_CHECKING:
    from ..metrics.store import MetricsSpec

#: Seconds for running requests when a file has changed.
RELOAD_GRACE = 1.0


@dataclass(frozen=True)
class WorkerSpec:
    """The app and its options, and how this process was started."""

    target: str
    config: Config
    directory: str
    """The working directory. Its links are resolved again by each process."""
    path: list[str]
    """`sys.path`."""
    arguments: list[str]
    """`sys.argv`."""
    index: int = 0
    """Number of the slot."""
    metrics: "MetricsSpec | None" = None
    """Its part of the shared metrics, if there are any."""

    @classmethod
    def of(cls, target: str, config: Config) -> "WorkerSpec":
        """Return a spec with the working directory, `sys.path` and `sys.argv` of this process."""
        real, directory = os.getcwd(), _working_directory()

        def relocate(path: str) -> str:
            inside = path == real or path.startswith(real + os.sep)
            return directory + path[len(real) :] if inside else path

        config = config.replace(app_dir=relocate(config.app_dir))
        if config.env_file is not None:
            config = config.replace(env_file=relocate(config.env_file))
        path = [relocate(entry) for entry in sys.path]
        return cls(target, config, directory, path, sys.argv.copy())

    def for_workers(self) -> "WorkerSpec":
        """Return the spec with the options of the workers, which differ with `reload`."""
        config = self.config
        if not config.reload:
            return self
        config = config.replace(
            timeout_graceful_shutdown=min(config.timeout_graceful_shutdown, RELOAD_GRACE),
            shutdown_delay=0.0,
            debug_blocking=1.0 if config.debug_blocking is None else config.debug_blocking,
        )
        return replace(self, config=config)

    def dump(self) -> str:
        """Return the spec as text. Raises OptionError for an option that can't be passed on."""
        try:
            return pickle.dumps(self).hex()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            # No other option can contain objects of any kind.
            text = f"can't be passed to workers: {error}"
            raise self.config.error("log_config", self.config.log_config, text) from None

    @staticmethod
    def load(text: str) -> "WorkerSpec":
        spec = pickle.loads(bytes.fromhex(text))
        assert isinstance(spec, WorkerSpec)
        return spec

    def apply(self) -> None:
        """Give this process the same directory, path and arguments."""
        sys.path[:], sys.argv[:] = self.path, self.arguments
        os.chdir(self.directory)


def _working_directory() -> str:
    """Return the working directory as the shell names it, with the links in its path."""
    name = os.environ.get("PWD", "")
    try:
        return name if os.path.isabs(name) and os.path.samefile(name, ".") else os.getcwd()
    except OSError:
        return os.getcwd()
