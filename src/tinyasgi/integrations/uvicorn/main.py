"""`run`: serve an app as the main program."""

import contextlib
import sys
from typing import Any

from ...run import run as run_processes
from .config import LOGGING_CONFIG, STARTUP_FAILURE, Config
from .server import Server

__all__ = ["STARTUP_FAILURE", "Config", "Server", "run"]


def run(app: Any, *, app_dir: str | None = None, **options: Any) -> None:
    """Serve an app until SIGINT or SIGTERM, with the options of uvicorn.

    With `workers` or `reload`, the supervisor of tinyasgi serves, with the loggers of tinyasgi.
    Raises SystemExit if the server can't start.
    """
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = Config(app, **options)
    if config.use_subprocess:
        given = None if config.log_config is LOGGING_CONFIG else config.log_config
        own = {"log_config": given, "env_file": config.env_file, "factory": config.factory}
        run_processes(app, config.translated().replace(**own, app_dir=app_dir or "."))
        return
    config.load_app()  # before there is an event loop
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
