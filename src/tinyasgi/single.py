"""A process that serves alone, until it is asked for what takes a supervisor."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import signals
from .config.config import Config
from .config.kinds import OptionError
from .process.ending import LAST, Ending, describe_rest
from .process.process import Process
from .process.spec import WorkerSpec
from .process.systemd import Notifier
from .server_log import logger

if TYPE_CHECKING:
    from .workers.supervisor import Supervisor

__all__ = ["SingleProcess"]

#: Seconds between two looks at them.
LOOK = 0.05


class SingleProcess(Process):
    """It tells systemd how it stands, and can be replaced.

    When that is asked for, it starts workers on its own sockets; once they are ready, it stops in
    order. What is left is `supervisor`, for this process to become.
    """

    others = signals.OTHERS

    def __init__(self, app: Any, config: Config, ending: Ending, notifier: Notifier) -> None:
        super().__init__(app, config, ending)
        self._notifier = notifier
        self._spec = WorkerSpec.of(app, config)
        self._has_terminal = os.isatty(0)
        self.supervisor: Supervisor | None = None
        os.environ["TINYASGI_WORKER"] = "0"

    def announce(self) -> None:
        super().announce()
        self._notifier.ready()
        self._beat()

    def _beat(self) -> None:
        if self._notifier.interval is not None:
            self._notifier.beat()
            self.loop.call_later(self._notifier.interval, self._beat)

    def stop(self) -> None:
        self._notifier.stopping()
        if self.supervisor is not None:
            self.supervisor.stop()
        super().stop()

    @property
    def exits(self) -> bool:
        return self.supervisor is None

    def finish(self, runner: asyncio.Runner) -> None:
        if self.supervisor is None:
            super().finish(runner)
        else:  # the loop is not closed, which would wait for threads without a limit
            runner.run(self._wait_for_rest())

    async def _wait_for_rest(self) -> None:
        """Lets tasks, threads and processes end: the program that comes has none of them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self.end_tasks()
        deadline = self.loop.time() + self.config.timeout_graceful_shutdown
        while describe_rest() and not self._stops and self.loop.time() < deadline:
            await asyncio.sleep(LOOK)

    # Signals.

    def on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if name == "SIGUSR1":
            self.reopen()
        elif name == "SIGHUP" and self._has_terminal and not os.isatty(0):
            self._stops += 1
            self.on_stop()  # the terminal is gone
        elif self.supervisor is not None:
            self.supervisor.on_signal(name)
            self._turn()
        elif name == "SIGTTOU" or self._stops:
            pass
        elif not isinstance(self.app, str):
            logger.warning("%s: an app that is not given as module:attribute stays as it is", name)
        else:
            try:
                self._spec.check()
            except OptionError as error:
                logger.error("the app goes on as it was: %s", error)
            else:
                self._start_successors(self.config.workers + (name == "SIGTTIN"))

    def _start_successors(self, count: int) -> None:
        from .workers.supervisor import Supervisor  # not before it is needed

        logger.info("replacing the app")
        self._notifier.reloading()
        self.supervisor = Supervisor(
            replace(self._spec, config=self.config.replace(workers=count)),
            [sock.dup() for sock in self.server.sockets],
            self._notifier,
            metrics_store=self.server.metrics_store and self.server.metrics_store.copy(),
        )
        self.supervisor.start()
        self.loop.add_reader(self.supervisor, self._turn)

    def _turn(self) -> None:
        """Something has happened to the successors."""
        assert self.supervisor is not None
        self.supervisor.turn(wait=False)
        crew = self.supervisor.crew
        if crew.started:
            self.server.leave()
        elif crew.failure is not None and not crew.ending:
            self.loop.remove_reader(self.supervisor)
            self.supervisor.close()
            self.supervisor = None
            logger.error("the app goes on as it was:\n%s", crew.failure)
            self._notifier.ready()
