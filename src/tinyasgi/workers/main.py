"""A process that supervises: its start, its exit code, and how it goes on as a new program."""

import contextlib
import gc
import os
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from .. import importer, signals
from ..config import env_file
from ..config.config import Config
from ..config.kinds import OptionError
from ..logs import access
from ..logs import setup as log
from ..net import listen
from ..net.listen import ListenError
from ..process import forks
from ..process.ending import BLOCKED, LAST, Ending
from ..process.process import APP_FAILED, CANNOT_LISTEN, explain
from ..process.spec import WorkerSpec
from ..process.systemd import Notifier
from . import reexec, spawn, worker
from .slot import WorkerFailed, patience
from .supervisor import HURRY, Supervisor

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore

__all__ = ["resume", "supervise", "take_over"]


def supervise(app: str, config: Config, ending: Ending, notifier: Notifier) -> int:
    """Binds, loads what is to be preloaded, and supervises; returns the exit code.

    Raises OptionError.
    """
    spec = WorkerSpec.of(app, config)
    spec.check()
    if config.reload:
        from . import reload  # not before it is needed

        reload.check(config)
    log.set_up_process(config)
    access.line_formatter(config)  # raises OptionError for a wrong format
    metrics_store = None
    with contextlib.ExitStack() as stack:
        try:
            if config.metrics_bind is not None:
                metrics_store = _open_metrics_store(config)
                stack.callback(metrics_store.close)
            sockets = listen.bind(config)
            stack.callback(listen.close, sockets)
            if config.preload:
                _preload(app, config, sockets, ending)
        except (ListenError, importer.LoadError) as error:
            log.report_failure(explain(error), config.log_format)
            return CANNOT_LISTEN if isinstance(error, ListenError) else APP_FAILED
        stack.pop_all()
    become = worker.become if config.preload else None
    supervisor = Supervisor(spec, sockets, notifier, become, metrics_store)
    return _run(supervisor, ending, first=True)


def take_over(supervisor: Supervisor, ending: Ending) -> int:
    """Goes on with a supervisor that was made in a process that served; returns the exit code."""
    spawn.block_signals()  # until the new program takes them
    supervisor.take_signals(ending.signals)
    if supervisor.crew.stopping:
        return _run(supervisor, ending)
    reexec.succeed(supervisor)


def resume() -> NoReturn:
    """Goes on as a supervisor in a new program."""
    ending = Ending(signals.take(), exits=True)
    spawn.unblock_signals()
    supervisor = reexec.inherit()
    config = supervisor.config
    try:
        log.set_up_process(config)
    except OptionError as error:  # it was possible at the first start
        config = config.replace(log_config=None, error_log_file="-", access_log_file="-")
        log.set_up_process(config)
        log.report_failure(explain(error), config.log_format)
    try:
        if config.preload:
            _preload(supervisor.spec.target, config, supervisor.crew.sockets, ending)
    except (OptionError, importer.LoadError) as error:
        supervisor.give_up(explain(error))
    except SystemExit as leaving:
        if not ending.signals.count:
            supervisor.give_up(f"{log.ERROR_PREFIX}the app called sys.exit({leaving.code!r})")
    code = _run(supervisor, ending)
    ending.leave(code)
    sys.exit(code)


def _limit(ending: Ending, config: Config, patience: float = 0.0) -> None:
    """Lets a stop signal begin the end, and the second one hurry it.

    patience: seconds for the workers, which report what they wait for by themselves.
    """

    def on_stop(count: int) -> None:
        if count > 1:
            ending.hurry(HURRY + LAST)
            return
        ending.begin(config.timeout_graceful_shutdown, by_signal=True)
        if patience:
            ending.step(list, patience, BLOCKED)

    ending.signals.on_stop = on_stop


def _open_metrics_store(config: Config) -> "MetricsStore":
    """Where the workers count. Raises OptionError and ListenError."""
    if sys.platform == "win32":  # where a process is not given descriptors
        value = config.metrics_bind
        text = "does not work with --workers or --reload on this platform"
        raise config.error("metrics_bind", value, text)
    from ..metrics.store import MetricsStore  # not before it is needed

    return MetricsStore.create(config, shard=0)


def _preload(app: str, config: Config, sockets: list[socket.socket], ending: Ending) -> None:
    """Imports the app, for workers that are forked.

    Raises OptionError, LoadError, and SystemExit for a stop signal.
    """
    if not hasattr(os, "fork"):
        raise config.error("preload", True, "needs fork(), which this platform does not have")
    _limit(ending, config)
    env_file.load(config)
    withheld = forks.withheld(lambda: [sock.fileno() for sock in sockets])
    with ending.signals.exiting(), withheld:
        importer.load(app, config.app_dir)
    log.set_up_loggers(config)  # the app may have configured logging
    gc.freeze()  # a collection would write to what is shared, and so copy it


def _run(supervisor: Supervisor, ending: Ending, first: bool = False) -> int:
    seconds = patience(supervisor.config)
    ending.on_exit = supervisor.abandon
    _limit(ending, supervisor.config, seconds)
    ending.step(list, seconds, BLOCKED)  # if the end has begun already
    try:
        again = supervisor.run(ending.signals, first)
    except WorkerFailed as failed:
        log.report_failure(str(failed), supervisor.config.log_format)
        return failed.code
    except ListenError as error:
        supervisor.close()
        log.report_failure(explain(error), supervisor.config.log_format)
        return CANNOT_LISTEN
    return take_over(supervisor, ending) if again else 0
