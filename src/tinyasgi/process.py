"""A process that serves: loads the app, chooses the loop, sets up logging, takes signals."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__, env_file, load, log
from .access import formatter, records
from .blocking import Watch
from .config import Config
from .lifespan import LifespanFailed
from .listen import ListenError
from .loop import loop_factory
from .options import OptionError
from .server import Server
from .server_log import logger
from .writer import AccessLines, Output

if TYPE_CHECKING:
    from .tally import Tally

__all__ = ["APP_FAILED", "BAD_OPTION", "CANNOT_LISTEN", "Process", "explain"]
__all__ += ["leaving_on"]

#: New objects that may be there before the garbage collector looks at them. Requests under way are
#: more than its usual 700, and with ten thousand connections each full collection takes 14 ms.
YOUNG = 10_000

# Exit codes, besides 0 for a stop in order and what an app gives to SystemExit.
CANNOT_LISTEN = 1
BAD_OPTION = 2
APP_FAILED = 3
_CODES = {
    OptionError: BAD_OPTION,
    ListenError: CANNOT_LISTEN,
    load.LoadError: APP_FAILED,
    LifespanFailed: APP_FAILED,
}


def explain(error: Exception) -> str:
    """What a user is told of an error: the traceback of its cause, if it has one, and a line."""
    cause = error.__cause__
    lines = traceback.format_exception(cause) if cause is not None else []
    failed = "the app failed: " if isinstance(error, LifespanFailed) else ""
    return "".join([*lines, f"{log.ERROR}{failed}{error}"])


class Process:
    """This process, as it serves one app in one event loop, alone or as a worker."""

    level = logging.INFO
    """The level of what is told of its course."""
    stops: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
    """The signals that end it."""
    server: Server
    loop: asyncio.AbstractEventLoop
    tally: "Tally | None" = None
    """Where it counts, if that is shared with other processes."""

    def __init__(self, app: Any, config: Config, sockets: Sequence[socket.socket] = ()) -> None:
        self.app = app
        self.config = config
        self._sockets = sockets
        self._access: AccessLines | None = None
        self._ready = False
        self._signals = 0

    def run(self) -> int:
        """Serves until it is to end; returns the exit code. What goes wrong is told."""
        config = self.config
        if 0 < gc.get_threshold()[0] < YOUNG:  # an app may set another as it is imported
            gc.set_threshold(YOUNG)
        try:
            log.begin(config)
            with leaving_on(self.stops):
                env_file.load(config)
                app = self.app
                target = load.load(app, config.app_dir) if isinstance(app, str) else app
                with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
                    runner.run(self._main(target))
        except (OptionError, ListenError, load.LoadError, LifespanFailed) as error:
            self.tell(explain(error))
            return next(code for kind, code in _CODES.items() if isinstance(error, kind))
        except SystemExit as leaving:
            if leaving.code is None or isinstance(leaving.code, int):
                raise
            self.tell(f"{log.ERROR}{leaving.code}")
            return 1  # as Python does with a text
        except asyncio.CancelledError as error:
            if not self._signals:  # no signal during startup
                failure = load.LoadError("the app cancelled the task of the server")
                failure.__cause__ = error
                self.tell(explain(failure))
                return APP_FAILED
        return 0

    def tell(self, text: str) -> None:
        """Says why it ends."""
        log.tell(text, self.config.log_format)

    async def _main(self, target: Any) -> None:
        config = self.config
        self.loop = loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self.take_signals()
        async with contextlib.AsyncExitStack() as stack:
            if config.factory:
                target = await stack.enter_async_context(load.created(target))
            # From here on it is known how the app has configured logging, but for its startup.
            log.set_up(config)
            if config.access_log:
                to_handlers = records(config) if config.access_log_file == "-" else None
                self._access = AccessLines(formatter(config), Output(config), loop, to_handlers)
                stack.callback(self._access.close)
            server = Server(
                target, config, sockets=self._sockets, access=self._access, tally=self.tally
            )
            self.server = await stack.enter_async_context(server)
            log.set_up(config)
            gc.freeze()  # what startup has made stays: no collection need look at it again
            self._ready = True
            if (watch := self.watch()) is not None:
                stack.callback(watch.close)
            self.announce()
            await self.until_told()
            logger.log(self.level, "stopping")
        await self.finish()
        logger.log(self.level, "stopped")

    def announce(self) -> None:
        """Says that it serves."""
        where = self.server.addresses.copy()
        if self.server.tally is not None:
            where.append(f"metrics on {self.server.tally.url}")
        logger.info(
            "tinyasgi %s on %s (%s, pid %d); Ctrl-C stops it",
            __version__,
            ", ".join(where),
            self.parts,
            os.getpid(),
        )

    def watch(self) -> Watch | None:
        """What looks after the event loop, if anything does."""
        seconds = self.config.debug_blocking
        return Watch(self.loop, seconds) if seconds else None

    @property
    def parts(self) -> str:
        """The names of the parser and the event loop in use."""
        return f"{self.server.parser}, {type(self.loop).__module__.partition('.')[0]}"

    async def until_told(self) -> None:
        """Returns when it is to end."""
        await self.server.stopped()

    async def finish(self) -> None:
        """What is left to do when the server has stopped."""

    def reopen(self) -> None:
        """Opens all log files again, for whoever has moved them away."""
        log.reopen()
        if self._access is not None:
            self._access.reopen()

    # Signals.

    def take_signals(self) -> None:
        """Of `stops` the first stops it in order, the second at once, the third as it may."""
        for number in self.stops:
            self.take_signal(number, self.on_stop)

    def take_signal(self, number: int, act: Callable[[], object]) -> None:
        """Calls `act` in the event loop when a signal comes."""
        if not _takes_signals():
            return
        try:
            self.loop.add_signal_handler(number, act)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: self.loop.call_soon_threadsafe(act))

    def on_stop(self) -> None:
        self._signals += 1
        if not self._ready:
            assert self._task is not None
            self._task.cancel()
        elif self._signals == 1:
            self.stop()
        else:
            self.server.quit()
        if self._signals > 1:
            for number in self.stops:
                signal.signal(number, signal.SIG_DFL)

    def stop(self) -> None:
        self.server.stop()


def _takes_signals() -> bool:
    """They are for the main thread only."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def leaving_on(signals: Sequence[int]) -> Iterator[None]:
    """Until the loop takes them, signals end the process quietly."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    numbers = signals if _takes_signals() else ()
    previous = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
