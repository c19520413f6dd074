"""A process that supervises: its start, its exit code, and how it goes on as a new program."""

import gc
import os
import sys
from typing import NoReturn

from . import access, listen, load, log, succession, worker
from .channel import Brief
from .child import WorkerFailed
from .config import Config
from .listen import ListenError
from .options import OptionError
from .process import APP_FAILED, CANNOT_LISTEN, Process, explain, leaving_on
from .supervisor import Supervisor
from .systemd import Notifier

__all__ = ["resume", "supervise", "take_over"]


def supervise(app: str, config: Config, notifier: Notifier) -> int:
    """Binds, loads what is to be preloaded, and supervises; returns the exit code.

    Raises OptionError.
    """
    brief = Brief.of(app, config)
    brief.check()
    log.begin(config)
    access.line(config)  # raises what there is to say of it
    try:
        sockets = listen.bind(config)
    except ListenError as error:
        log.tell(explain(error), config.log_format)
        return CANNOT_LISTEN
    try:
        if config.preload:
            with leaving_on(Process.stops):
                _preload(app, config)
    except BaseException as error:
        listen.close(sockets)
        if not isinstance(error, load.LoadError):
            raise
        log.tell(explain(error), config.log_format)
        return APP_FAILED
    become = worker.become if config.preload else None
    supervisor = Supervisor(brief, sockets, notifier, become)
    return _run(supervisor, first=True)


def take_over(supervisor: Supervisor) -> int:
    """Goes on with a supervisor that was made in a process that served; returns the exit code."""
    if supervisor.crew.stopping:
        return _run(supervisor)
    succession.succeed(supervisor)


def resume() -> NoReturn:
    """Goes on as a supervisor in a new program."""
    supervisor = succession.inherit()
    config = supervisor.config
    log.begin(config)
    try:
        if config.preload:
            _preload(supervisor.brief.target, config)
    except load.LoadError as error:
        supervisor.give_up(explain(error))
    sys.exit(_run(supervisor))


def _preload(app: str, config: Config) -> None:
    """Imports the app, for workers that are forked. Raises OptionError and LoadError."""
    if not hasattr(os, "fork"):
        raise OptionError("preload", True, "possible on this platform")
    if config.env_file is not None:
        load.read_environment(config.env_file)
    load.load(app, config.app_dir)
    gc.freeze()  # a collection would write to what is shared, and so copy it


def _run(supervisor: Supervisor, first: bool = False) -> int:
    try:
        again = supervisor.run(first)
    except WorkerFailed as failed:
        log.tell(str(failed), supervisor.config.log_format)
        return failed.code
    if again:
        succession.succeed(supervisor)
    return 0
