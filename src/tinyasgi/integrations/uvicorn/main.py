"""`run`: serve an app as the main program."""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ...cli import main as command
from .config import STARTUP_FAILURE, Config
from .server import Server
from .supervisors import Supervisor

__all__ = ["STARTUP_FAILURE", "Config", "Server", "main", "run"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command `tinyasgi`, which accepts the options of uvicorn, and exit.

    args: by default those of the process.
    """
    command(args)


def run(app: Any, *, app_dir: str | None = None, **options: Any) -> None:
    """Serve an app until SIGINT or SIGTERM, with the options of uvicorn.

    With `workers` or `reload`, the supervisor of tinyasgi serves, with the loggers of tinyasgi.
    Raises SystemExit if the server can't start.
    """
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = Config(app, **options)
    if config.use_subprocess:
        Supervisor(config).run()
        return
    config.load_app()  # before there is an event loop
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
