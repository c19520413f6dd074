"""The main function of a supervisor: binds, supervises, and returns the exit code."""

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from ..config.config import Config
from ..logs import access
from ..logs import setup as log
from ..net import listen
from ..net.listen import ListenError
from ..process import identity
from ..process.ending import BLOCKED, LAST, Ending
from ..process.process import FAILED, explain
from ..process.systemd import Notifier
from ..server_log import logger
from . import spawn
from .limits import HURRY, time_to_stop
from .spec import WorkerSpec
from .supervisor import Supervisor

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore


def supervise(app: str, config: Config, ending: Ending, notifier: Notifier, exits: bool) -> int:
    """Serve an app by several processes; return the exit code. Raises OptionError.

    exits: the process exits after the service has stopped. Otherwise it belongs to a program that
    may have other children.
    """
    if not spawn.IS_SUPPORTED:
        raise config.error("workers", config.workers, "is not supported on this platform")
    spec = WorkerSpec.of(app, config)
    spec.dump()
    if config.reload:
        from . import reload  # not before it is needed

        reload.check(config)
    log.set_up_process(config)
    identity.set_title(config, "supervisor")
    identity.give_log_files(config)
    access.line_formatter(config)  # raises OptionError for an invalid format
    try:
        metrics_store, sockets = _bind(config)
        if config.preload:
            spawn.adopt_orphans()
        reaps_orphans = exits and (config.preload or os.getpid() == 1)
        supervisor = Supervisor(spec, sockets, notifier, metrics_store, reaps_orphans)
        ending.on_exit = supervisor.abandon
        _limit_stop(ending, config)
        result = supervisor.run(ending.signals)
    except ListenError as error:
        log.report_failure(explain(error), config.log_format)
        return FAILED
    if result.text:
        log.report_failure(result.text, config.log_format)
    elif not result.code:
        logger.info("stopped")
    return result.code


def _bind(config: Config) -> tuple["MetricsStore | None", list[socket.socket]]:
    """Return shared memory for metrics and bound sockets. Raises OptionError and ListenError."""
    with contextlib.ExitStack() as stack:
        store = None
        if config.metrics_bind is not None:
            from ..metrics.store import MetricsStore  # not before it is needed

            store = MetricsStore.create(config, shard=0)
            stack.callback(store.close)
        sockets = listen.bind(config)
        stack.pop_all()
    return store, sockets


def _limit_stop(ending: Ending, config: Config) -> None:
    """Start the time limit of this process at a stop signal; shorten it at the second one."""

    def on_stop(count: int) -> None:
        if count > 1:
            ending.hurry(HURRY + LAST)
        else:
            # The workers report what they wait for.
            ending.begin(config.timeout_graceful_shutdown, by_signal=True)
            ending.step(list, time_to_stop(config), BLOCKED)

    ending.signals.on_stop = on_stop
    if ending.signals.count:
        on_stop(ending.signals.count)
