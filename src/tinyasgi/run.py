"""`run`: one process that serves, or several under a supervisor."""

import gc
import os
import sys
from typing import Any, NoReturn

from . import listen, load, log, succession, systemd, worker
from .alone import Alone
from .channel import Brief
from .config import Config
from .crew import WorkerFailed
from .listen import ListenError
from .options import OptionError
from .process import APP_FAILED, BAD_OPTION, CANNOT_LISTEN, Process, explain, leaving_on
from .supervisor import Supervisor

__all__ = ["resume", "run"]

#: What takes a supervisor, which starts processes that find the app by its name.
SUPERVISED = ("reload", "preload", "worker_lifetime", "worker_max_rss", "worker_timeout")


def run(app: Any, config: Config | None = None, **options: Any) -> int:
    """Serves an app as this process until SIGINT or SIGTERM; returns the exit code.

    app: `"module:attribute"`, an ASGI application, or a factory of one; only the first can be
    served by several processes. options: fields of `Config`. What goes wrong is told on stderr. A
    second signal cuts short what a stop waits for. It does not return when SIGHUP has made this
    process the supervisor of others.
    """
    try:
        config = (config or Config()).replace(**options)
        notifier = systemd.Notifier()
        if given := systemd.inherited():
            config = config.replace(bind=given)
        needs = _needs_supervisor(config)
        if isinstance(app, str) and (needs or config.limit_max_requests):
            return _supervise(app, config, notifier)
        if needs:
            value = getattr(config, needs)
            raise OptionError(needs, value, "possible but for an app given as module:attribute")
    except OptionError as error:
        sys.stderr.write(explain(error))
        return BAD_OPTION
    alone = Alone(app, config, notifier)
    code = alone.run()
    if alone.supervisor is None:
        return code
    if alone.supervisor.crew.stopping:
        return _run(alone.supervisor)
    succession.succeed(alone.supervisor)


def resume() -> NoReturn:
    """Goes on as a supervisor in a new program."""
    supervisor = succession.inherit()
    config = supervisor.config
    log.set_up(config)
    try:
        if config.preload:
            _preload(supervisor.brief.target, config)
    except load.LoadError as error:
        supervisor.give_up(explain(error))
    sys.exit(_run(supervisor))


def _needs_supervisor(config: Config) -> str:
    """The option that needs one, if any does."""
    if config.workers > 1:
        return "workers"
    return next((name for name in SUPERVISED if getattr(config, name)), "")


def _supervise(app: str, config: Config, notifier: systemd.Notifier) -> int:
    brief = Brief.of(app, config)
    log.set_up(config)
    try:
        sockets = listen.bind(config)
    except ListenError as error:
        sys.stderr.write(explain(error))
        return CANNOT_LISTEN
    try:
        if config.preload:
            with leaving_on(Process.stops):
                _preload(app, config)
    except BaseException as error:
        listen.close(sockets)
        if not isinstance(error, load.LoadError):
            raise
        sys.stderr.write(explain(error))
        return APP_FAILED
    become = worker.become if config.preload else None
    supervisor = Supervisor(brief, sockets, notifier, become)
    return _run(supervisor, first=True)


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
        sys.stderr.write(str(failed))
        return failed.code
    if again:
        succession.succeed(supervisor)
    return 0
