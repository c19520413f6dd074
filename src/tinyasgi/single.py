"""A process that serves without a supervisor."""

import os
import signal
from typing import Any

from .config.config import Config
from .process.ending import Ending
from .process.process import ServerProcess
from .process.systemd import Notifier
from .server_log import logger

#: Signals that only a supervisor can handle.
_FOR_SUPERVISOR = ("SIGHUP", "SIGTTIN", "SIGTTOU")


class SingleProcess(ServerProcess):
    """Process without a supervisor. It reports its state to systemd, and can't be replaced."""

    def __init__(self, app: Any, config: Config, ending: Ending, notifier: Notifier) -> None:
        super().__init__(app, config, ending)
        self._notifier = notifier
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
        super().stop()

    def on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if name == "SIGUSR1":
            self.reopen()
        elif self._signals.is_hang_up(number):
            self._stops += 1
            self.on_stop()
        elif name in _FOR_SUPERVISOR:
            text = "%s ignored: a single process can't be replaced; start it with --workers 1"
            logger.warning(text, name)
