"""The start of another process like this one."""

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.config import Config

if TYPE_CHECKING:
    from ..metrics.store import MetricsSpec


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker has to know, besides its sockets."""

    target: str
    config: Config
    folder: str
    """Where paths begin."""
    path: list[str]
    """Where modules are looked for."""
    arguments: list[str]
    """The command line."""
    environment: dict[str, str]
    """What a new process starts with."""
    metrics: "MetricsSpec | None" = None
    """Where it counts, if anything is counted."""

    @classmethod
    def of(cls, target: str, config: Config) -> "WorkerSpec":
        """For processes that start as this one has started."""
        path, arguments = sys.path.copy(), sys.argv.copy()
        return cls(target, config, os.getcwd(), path, arguments, dict(os.environ))

    def check(self) -> None:
        """Raises OptionError for an option that another process can't be told of."""
        str(self)

    def __str__(self) -> str:
        import pickle  # not before it is needed

        return pickle.dumps(self).hex()

    @staticmethod
    def read(text: str) -> "WorkerSpec":
        import pickle

        spec = pickle.loads(bytes.fromhex(text))
        assert isinstance(spec, WorkerSpec)
        return spec
