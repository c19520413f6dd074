"""The process above the workers: one wait, and what follows from each thing that ends it.

It waits for whatever comes first: a word or the end of a worker, a signal, a changed file, a
deadline. It never imports the server, nor the app unless that is to be preloaded.
"""

import dataclasses
import functools
import math
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..config.config import Config
from ..logs import setup as log
from ..net import listen
from ..process.spec import WorkerSpec
from ..process.systemd import Notifier
from ..server_log import logger
from ..signals import Signals
from . import channel, spawn
from .pool import Become, WorkerPool
from .slot import patience

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore
    from .reload import Changes

__all__ = ["Supervisor"]

#: Seconds for what is running when a changed file ends a worker, and until that is killed.
RELOAD_GRACE = 1.0
RELOAD_KILL = 2.0
#: Seconds of one wait: a day, as in asyncio. epoll has no room for more than 24 days.
LONGEST = 24 * 3600.0
#: Seconds for workers to end that are told to hurry.
HURRY = 2.0


class Supervisor:
    """Keeps as many processes as `spec` says, which serve its app on `sockets`.

    become: given when they are forked off this process, which has imported the app. metrics_store:
    where they count; it is closed at the end.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        sockets: list[socket.socket],
        notifier: Notifier,
        become: Become | None = None,
        metrics_store: "MetricsStore | None" = None,
    ) -> None:
        self.spec = spec
        self.config = config = spec.config
        self._selector = selectors.DefaultSelector()
        theirs = dataclasses.replace(spec, config=_for_workers(config))
        self.crew = WorkerPool(
            theirs, config, sockets, self._selector, become, metrics_store=metrics_store
        )
        self._notifier = notifier
        self._files = listen.socket_files(sockets)
        self._addresses = [listen.address(s, config.speaks_tls) for s in sockets]
        if metrics_store is not None:
            self._addresses.append(f"metrics on {metrics_store.url}")
        self._has_terminal = os.isatty(0)
        self._stops = 0  # how often it was told to stop
        self._announced = False
        self._renewed = False  # this program has begun with the last HUP
        self._rolling = False  # a HUP is being carried out
        self._beat_at = 0.0 if notifier.interval else math.inf
        self._changes: Changes | None = None

    # Life.

    def start(self) -> None:
        """Listens, and starts the workers; they are not waited for. Raises ListenError."""
        if self.config.reload:
            self._watch_files()
        self.crew.start()
        self._act()

    def run(self, taken: Signals, first: bool) -> bool:
        """Goes on until it was told to stop and no worker is left.

        taken: what tells it. first: it has still to start. Returns whether it is to go on in a new
        program, which has the app as it is by then. Raises WorkerFailed, and ListenError at the
        first start.
        """
        taken.install()
        take = functools.partial(self.take_signals, taken)
        self._selector.register(taken, selectors.EVENT_READ, take)
        spawn.unblock_signals()
        if first:
            self.start()
        self._act()
        while not self.crew.stopping or self.crew.ending:
            self.turn()
            if self._is_outdated:
                self._selector.unregister(taken)
                return True
        self.close()
        if self.crew.failure is not None:
            raise self.crew.failure
        logger.info("stopped")
        return False

    def __getstate__(self) -> dict[str, Any]:
        """For `reexec`: what waits for something is made anew."""
        return {**vars(self), "_selector": None, "_changes": None}

    def renew(self) -> None:
        """Goes on in a new program, with the workers that there are."""
        self._selector = self.crew.selector = selectors.DefaultSelector()
        self._renewed = True
        if self.crew.metrics_store is not None:
            self.crew.metrics_store.become_supervisor()
        for child in self.crew.children:
            self.crew.watch(child)
        if self.config.reload:
            self._watch_files()

    def give_up(self, why: str) -> None:
        """The app can't be preloaded again: the workers that there are go on."""
        logger.error("the workers go on as they are:\n%s", why)
        self.crew.become = None
        self.crew.keep()

    def fileno(self) -> int:
        """Can be read when `turn` has something to do."""
        return self._selector.fileno()

    def turn(self, wait: bool = True) -> None:
        """Waits until something happens, unless told not to, and does what follows from it."""
        timeout = 0.0
        if wait:
            deadline = min(self._beat_at, *self.crew.deadlines())
            timeout = max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(min(timeout, LONGEST)):
            if key.fileobj in self._selector.get_map():  # and not unregistered by another
                key.data()
        self._act()

    @property
    def _is_outdated(self) -> bool:
        """Whether this program has an app in it that is to be replaced."""
        return self._rolling and self.crew.become is not None and not self._renewed

    def _act(self) -> None:
        if self._is_outdated:
            return
        self.crew.act()
        if self.crew.started and not self._announced:
            self._announced = True
            self._announce()
            self._notifier.ready()
        if self._rolling and self.crew.is_current():
            self._rolling = False
            kept, count = self.crew.kept, len(self.crew.slots)
            if kept:
                logger.error("workers that go on as they were: %d of %d", kept, count)
            else:
                logger.info("all workers are replaced")
            self._notifier.ready()
        now = time.monotonic()
        if now >= self._beat_at:
            self._notifier.beat()
            self._beat_at = now + (self._notifier.interval or math.inf)

    def _announce(self) -> None:
        workers = [slot.worker for slot in self.crew.slots]
        parts = next(worker.parts for worker in workers if worker is not None)
        count = f"{len(workers)} worker" + "s" * (len(workers) > 1)
        addresses = ", ".join(self._addresses)
        text = "tinyasgi %s on %s (%s, %s, pid %d); Ctrl-C stops it"
        logger.info(text, __version__, addresses, parts, count, os.getpid())

    def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
        self._selector.close()
        listen.remove_files(self._files)
        if self.crew.metrics_store is not None:
            self.crew.metrics_store.close()

    def abandon(self) -> None:
        """Kills the workers, for the end of a process in which nothing else can be done."""
        for child in self.crew.children:
            child.process.kill()
        listen.remove_files(self._files)

    # What it is told.

    def stop(self) -> None:
        """Ends all workers in order; called again it cuts that short, and then kills."""
        self._stops += 1
        if self._stops == 1:
            seconds, count = self.config.timeout_graceful_shutdown, len(self.crew.children)
            text = "stopping %d worker%s within %g s; a second signal exits at once"
            logger.info(text, count, "s" * (count > 1), seconds)
            self._notifier.stopping()
            self.crew.stop(channel.STOP, patience(self.config))
        elif self._stops == 2:
            logger.info("stopping at once")
            self.crew.stop(channel.QUIT, HURRY)
        else:
            self.crew.stop(channel.QUIT, 0.0)

    def replace(self) -> None:
        """Replaces the workers one after another."""
        logger.info("replacing the workers")
        self._notifier.reloading()
        self.crew.generation += 1
        self.crew.kept = 0
        self._rolling = True
        self._renewed = False

    def on_signal(self, name: str) -> None:
        """Does what a signal means."""
        hung_up = name == "SIGHUP" and self._has_terminal and not os.isatty(0)
        if name in ("SIGINT", "SIGTERM", "SIGBREAK") or hung_up:
            self.stop()
        elif self.crew.stopping:
            pass
        elif name == "SIGHUP":
            self.replace()
        elif name in ("SIGTTIN", "SIGTTOU"):
            if name == "SIGTTIN":
                self.crew.add()
            else:
                self.crew.remove()
            logger.info("workers from now on: %d", len(self.crew.slots))
        elif name == "SIGUSR1":
            log.reopen_files()
            for child in self.crew.children:
                child.channel.send(channel.REOPEN)

    def take_signals(self, taken: Signals) -> None:
        """Does what the signals mean that have come."""
        for number in taken.received():
            self.on_signal(signal.Signals(number).name)

    def _watch_files(self) -> None:
        from .reload import Changes

        self._changes = Changes(self.config)
        self.crew.on_files = self._changes.imported
        self._selector.register(self._changes, selectors.EVENT_READ, self._on_change)

    def _on_change(self) -> None:
        assert self._changes is not None
        files = [os.path.relpath(file) for file in self._changes.take()]
        if files and not self.crew.stopping:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            logger.info("%s%s changed: the app starts anew", files[0], more)
            self.crew.restart(RELOAD_KILL)


def _for_workers(config: Config) -> Config:
    """The options as workers have them."""
    if not config.reload:
        return config
    return config.replace(
        timeout_graceful_shutdown=min(config.timeout_graceful_shutdown, RELOAD_GRACE),
        shutdown_delay=0.0,
        debug_blocking=1.0 if config.debug_blocking is None else config.debug_blocking,
    )
