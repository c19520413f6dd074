"""A process that serves an app: imports it, sets up logging and signals, runs the event loop."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import importer, signals
from .._version import __version__
from ..app import load
from ..app.lifespan import LifespanFailed
from ..config import env_file
from ..config.config import Config
from ..config.kinds import OptionError
from ..logs import setup as log
from ..logs.access import line_formatter, record_logger
from ..logs.writer import AccessLog, AccessLogFile
from ..net import listen
from ..net.listen import ListenError
from ..server.server import Server
from ..server_log import is_first_worker, logger
from . import forks
from .ending import BLOCKED, LAST, THREADS, Ending, describe_tasks, describe_threads
from .loop import loop_factory
from .watchdog import LoopWatchdog

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore

#: Thresholds of the garbage collector. Running requests have more objects than the 700 after which
#: CPython collects the youngest generation, and with 10,000 connections a full collection takes
#: 14 ms. The second generation is collected often and so in small parts: with the default of 10, a
#: collection takes 30 ms while 10,000 clients connect. CPython 3.14 does not have it.
GC_THRESHOLDS = (10_000, 1, 50) if sys.version_info < (3, 14) else (10_000,)

# Exit codes, besides 0 for a normal stop and the code of a SystemExit of the app.
BAD_OPTION = 2
FAILED = 3  # startup or shutdown has failed; uvicorn has the same code


def explain(error: Exception) -> str:
    """Return the message for an error: the traceback of its cause, if it has one, and one line."""
    cause = error.__cause__
    lines = traceback.format_exception(cause) if cause is not None else []
    failed = "the app failed: " if isinstance(error, LifespanFailed) else ""
    return "".join([*lines, f"{log.ERROR_PREFIX}{failed}{error}"])


def exit_code(
    work: Callable[[], int | None], report: Callable[[str], None], taken: signals.Signals
) -> int:
    """Run `work`; return its exit code, or the one for an exception, which is reported."""
    try:
        return work() or 0
    except (OptionError, ListenError, importer.LoadError, LifespanFailed) as error:
        report(explain(error))
        return BAD_OPTION if isinstance(error, OptionError) else FAILED
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        report(f"{log.ERROR_PREFIX}{leaving.code}")
        return 1  # as Python does with a text
    except asyncio.CancelledError as error:
        if not taken.count:  # no signal during startup
            failure = importer.LoadError("the app cancelled the task of the server")
            failure.__cause__ = error
            report(explain(failure))
            return FAILED
    return 0


def set_gc_thresholds() -> None:
    """Collect garbage less often, unless that is disabled or a higher threshold is set."""
    if 0 < gc.get_threshold()[0] < GC_THRESHOLDS[0]:
        gc.set_threshold(*GC_THRESHOLDS)


class ServerProcess:
    """A process that serves one app in one event loop."""

    level = logging.INFO
    """Level of the log messages about start and stop."""
    server: Server
    loop: asyncio.AbstractEventLoop
    metrics_store: "MetricsStore | None" = None
    """Shared with other processes, if set."""

    def __init__(
        self, app: Any, config: Config, ending: Ending, sockets: Sequence[socket.socket] = ()
    ) -> None:
        self.app = app
        self.config = config
        self._sockets = sockets
        self._signals = ending.signals
        self._access: AccessLog | None = None
        self._ready = False
        self._stops = 0
        self._early: list[int] = []  # signals that wait until it is ready
        self.ending = ending

    def run(self) -> int:
        """Serve until the process has to stop; return the exit code. Failures are reported."""
        set_gc_thresholds()  # the import of the app may set others
        self._signals.on_stop = self._on_stop_signal
        return exit_code(self._load_and_serve, self.report, self._signals)

    def report(self, text: str) -> None:
        """Report a failure."""
        log.report_failure(text, self.config.log_format)

    def _load_and_serve(self) -> int:
        log.set_up_process(self.config)
        with self._signals.exiting():
            env_file.load(self.config)
            app = self.app
            target = importer.load(app, self.config.app_dir) if isinstance(app, str) else app
        runner = asyncio.Runner(loop_factory=loop_factory(self.config))
        try:
            runner.get_loop()
        except OSError as error:  # the process has no descriptor left, for example
            self.report(f"{log.ERROR_PREFIX}the event loop can't be created: {error}")
            return FAILED
        main = partial(runner.run, self._main(target))
        code = self.ending.code = exit_code(main, self.report, self._signals)
        self._finish(runner)
        if not code:
            logger.log(self.level, "stopped")
        return code

    def _finish(self, runner: asyncio.Runner) -> None:
        """End tasks and threads that the app has left running."""
        self.ending.begin(LAST)
        runner.run(self._end_tasks())
        self.ending.last_step(describe_threads, THREADS)
        runner.close()

    async def _end_tasks(self) -> None:
        """Cancel the tasks that the app has left running."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        self.ending.last_step(lambda: describe_tasks(tasks), LAST)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _main(self, target: Any) -> None:
        config = self.config
        self.loop = loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.take_signals()
        async with contextlib.AsyncExitStack() as stack:
            if config.factory:
                target = await stack.enter_async_context(load.created(target))
            # The app has configured logging by now, unless it does so in its startup.
            log.set_up_loggers(config)
            if config.access_log:
                log_record = record_logger(config) if config.access_log_file == "-" else None
                file = AccessLogFile(config)
                self._access = AccessLog(line_formatter(config), file, loop, log_record)
                stack.callback(self._access.close)
            server = Server(
                target,
                config,
                sockets=self._sockets,
                access=self._access,
                on_wait=lambda what, seconds: self.ending.step(what, seconds, BLOCKED),
                metrics_store=self.metrics_store,
            )
            stack.enter_context(forks.withheld(server.descriptors))
            self.ending.on_exit = lambda: listen.force_close(server.sockets, server.files)
            self.server = await stack.enter_async_context(server)
            log.set_up_loggers(config)
            gc.freeze()  # objects from the startup stay: exclude them from collections
            stack.callback(gc.unfreeze)  # otherwise files of the app are not flushed at the end
            if self._stops:  # a factory has swallowed the cancellation
                return
            self._ready = True
            self._report_other_loggers()
            if (watch := self.watch()) is not None:
                stack.callback(watch.close)
            self.announce()
            for number in self._early:
                self.on_signal(number)
            await self.wait_for_stop()
            self._begin_end()
            logger.log(self.level, "stopping")

    def _report_other_loggers(self) -> None:
        """Log once which logging settings for uvicorn or gunicorn have no effect."""
        names = log.other_loggers() if is_first_worker() else None
        if names:
            text = "the configuration of %s does not apply to this server; configure"
            logger.info(f"{text} tinyasgi.server and tinyasgi.access", ", ".join(names))

    def announce(self) -> None:
        """Log that the server is ready."""
        where = self.server.addresses.copy()
        if self.server.metrics_store is not None:
            where.append(f"metrics on {self.server.metrics_store.url}")
        logger.info(
            "tinyasgi %s on %s (%s, pid %d); Ctrl-C stops it",
            __version__,
            ", ".join(where),
            self.parts,
            os.getpid(),
        )

    def watch(self) -> LoopWatchdog | None:
        """Return a running watchdog of the event loop, or None if no option asks for one."""
        seconds = self.config.debug_blocking
        return LoopWatchdog(self.loop, seconds) if seconds else None

    @property
    def parts(self) -> str:
        """The names of the parser and the event loop in use."""
        return f"{self.server.parser}, {type(self.loop).__module__.partition('.')[0]}"

    async def wait_for_stop(self) -> None:
        """Wait until the process has to stop."""
        await self.server.stopped()

    def reopen(self) -> None:
        """Open all log files again, because they may have been moved."""
        try:
            log.reopen_files()
            if self._access is not None:
                self._access.reopen()
        except OSError as error:  # out of descriptors
            logger.error("can't reopen the log files: %s", error)

    # Signals.

    def take_signals(self) -> None:
        """Handle signals. The second stop signal shortens the shutdown, the third one kills."""
        self._signals.install()  # the import of the app may have set others
        try:
            self.loop.add_reader(self._signals.fileno(), self._on_signals)
        except NotImplementedError:  # Windows
            self._signals.wake = lambda: self.loop.call_soon_threadsafe(self._on_signals)

    def _on_signals(self) -> None:
        for number in self._signals.received():
            if self._signals.is_stop(number):
                self._stops += 1
                self.on_stop()
            elif self._ready:
                self.on_signal(number)
            else:
                self._early.append(number)

    def on_stop(self) -> None:
        """Handle a signal to stop."""
        if not self._ready:
            assert self._task is not None
            self._task.cancel()
        elif self._stops == 1:
            self.stop()
        else:
            self.server.quit()

    def stop(self) -> None:
        self.server.stop()

    def on_signal(self, number: int) -> None:
        """Handle a signal that does not stop the process."""

    # The end.

    @property
    def stops_by_signal(self) -> bool:
        """Whether a signal has stopped the process, so that a second one makes it exit at once."""
        return self._signals.count > 0

    def _begin_end(self) -> None:
        """Limit the time until the exit."""
        seconds = self.config.shutdown_delay + self.config.timeout_graceful_shutdown
        self.ending.begin(seconds, by_signal=self.stops_by_signal)

    def _on_stop_signal(self, count: int) -> None:
        """Handle a stop signal in the signal handler, as the event loop may be blocked."""
        if count == 1:
            self._begin_end()
        else:
            self.ending.hurry()
            self._signals.let_next_one_kill()
