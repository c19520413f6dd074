"""Supervisors: processes that serve the app, started by tinyasgi's supervisor."""

import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ...run import run
from .config import LOGGING_CONFIG, Config
from .logging import logger
from .server import Server


class Supervisor:
    """Serves the app of a config in several processes, or in one that is replaced after changes.

    The processes use the loggers of tinyasgi. They do not run `target`: a warning says so if it is
    not `Server.run`. sockets: listeners from `Config.bind_socket`; they are closed at the end.
    """

    def __init__(
        self,
        config: Config,
        target: Callable[..., Any] | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.config = config
        self.sockets = sockets
        if target is not None and type(getattr(target, "__self__", None)) is not Server:
            logger.warning("%r has no effect: processes run the server of tinyasgi", target)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises SystemExit if the server can't start."""
        config = self.config
        given = None if config.log_config is LOGGING_CONFIG else config.log_config
        own = {"log_config": given, "env_file": config.env_file, "factory": config.factory}
        if self.sockets:
            own["bind"] = [f"fd://{sock.fileno()}" for sock in self.sockets]
        try:
            run(config.app, config.translated().replace(**own, app_dir=sys.path[0] or "."))
        finally:
            for sock in self.sockets:
                sock.close()


ChangeReload = Multiprocess = Supervisor
