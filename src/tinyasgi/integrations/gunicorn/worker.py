"""The worker class: event loop, signals and life of a process that gunicorn has started."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from ...app import load
from ...app.lifespan import LifespanFailed
from ...config.config import Config
from ...config.kinds import OptionError
from ...importer import LoadError
from ...net.listen import ListenError
from ...process import forks
from ...process.loop import loop_factory
from ...process.process import set_gc_thresholds
from ...server.server import Server
from ...server.shutdown import LAST
from .requests import observer, with_pre_request
from .settings import SPARE, UNSUPPORTED, is_set, options

#: Seconds between two signs of life to the master.
BEAT = 1.0
#: Errors whose message suffices, without a traceback.
EXPECTED = (OptionError, LoadError, ListenError, LifespanFailed)


class Worker(base.Worker):
    """Worker that serves ASGI and WSGI apps with tinyasgi."""

    OPTIONS: ClassVar[dict[str, Any]] = {}
    """Options of tinyasgi that a subclass sets, besides the settings of gunicorn."""

    _server: Server | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of settings that have no effect."""
        if ignored := [name for name in UNSUPPORTED if is_set(cfg, name)]:
            log.warning("settings without an effect on this worker class: %s", ", ".join(ignored))

    def run(self) -> None:
        """Serve until the master stops this worker. Called by gunicorn, as the methods below."""
        self._take_logger()
        set_gc_thresholds()
        try:
            config = Config(**options(self.cfg), **self.OPTIONS)
            with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
                runner.run(self._serve(config))
        except Exception as error:
            cause = error.__cause__ if isinstance(error, EXPECTED) else error
            self.log.error("%s", error, exc_info=cause)
            # With this code the master ends, instead of trying again and again.
            sys.exit(1 if self._server is not None else Arbiter.WORKER_BOOT_ERROR)
        finally:
            for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # the loop has restored the default

    def _take_logger(self) -> None:
        """Write the messages of the server to the error log of gunicorn."""
        logger, error_log = logging.getLogger("tinyasgi.server"), self.log.error_log
        logger.handlers, logger.propagate = error_log.handlers, False
        logger.setLevel(error_log.level)

    async def _serve(self, config: Config) -> None:
        self._loop = asyncio.get_running_loop()
        self._take_signals()
        self._beat()
        sockets = [each.sock for each in self.sockets]
        async with contextlib.AsyncExitStack() as stack:
            app = self.wsgi
            if is_set(self.cfg, "pre_request"):
                app = with_pre_request(load.as_asgi3(app, config, stack), self)
            server = Server(app, config, sockets=sockets, access=observer(self))
            stack.enter_context(forks.withheld(server.descriptors))
            await stack.enter_async_context(server)
            self._server = server
            gc.freeze()
            if self.alive:
                await server.stopped()
            if self.alive:  # the limit of requests is reached
                server.leave()
                self._loop.call_later(LAST, server.stop)

    def _beat(self) -> None:
        """Tell the master that the event loop runs; stop when the master has died."""
        self.notify()
        if self._server is not None and (self.ppid != os.getppid() or not self.alive):
            self._server.stop()  # `alive` is False when the reloader has noticed a change
        self._loop.call_later(min(BEAT, self.timeout / 2 or BEAT), self._beat)

    # Signals. SIGABRT is handled as in other workers, because it comes when the loop is blocked.

    def _take_signals(self) -> None:
        handlers: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self._on_stop,
            signal.SIGQUIT: self._on_quit,
            signal.SIGINT: self._on_quit,
            signal.SIGUSR1: self.log.reopen_files,
        }
        for number, handle in handlers.items():
            self._loop.add_signal_handler(number, handle)

    def _on_stop(self) -> None:
        """Stop gracefully. Another worker may have replaced this one: no idle client is cut off."""
        self.alive = False
        if self._server is None:
            return
        if self.cfg.graceful_timeout > SPARE:
            self._server.leave()
        else:
            self._server.stop()

    def _on_quit(self) -> None:
        self.alive = False
        if self._server is not None:
            self._server.quit()
        self.cfg.worker_int(self)
