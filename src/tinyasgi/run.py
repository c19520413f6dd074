"""The process: loads the app, chooses the loop, sets up logging, takes signals."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from . import __version__, load, log
from .config import Config
from .lifespan import LifespanFailed
from .listen import ListenError
from .loop import loop_factory
from .options import OptionError
from .server import Server

__all__ = ["run"]

logger = logging.getLogger("tinyasgi.server")

# Exit codes, besides 0 for a stop in order and what an app gives to SystemExit.
CANNOT_LISTEN = 1
BAD_OPTION = 2
APP_FAILED = 3


def run(app: Any, config: Config | None = None, **options: Any) -> int:
    """Serves an app as this process until SIGINT or SIGTERM; returns the exit code.

    app: `"module:attribute"`, an ASGI application, or a factory of one. options: fields of
    `Config`. What goes wrong is told on stderr. A second signal cuts short what a stop waits for.
    """
    try:
        config = (config or Config()).replace(**options)
        with _leaving_on_signals():
            target = load.load(app, config.app_dir) if isinstance(app, str) else app
            with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
                runner.run(_main(target, config))
    except OptionError as error:
        return _tell(BAD_OPTION, error)
    except ListenError as error:
        return _tell(CANNOT_LISTEN, error)
    except load.LoadError as error:
        return _tell(APP_FAILED, error)
    except LifespanFailed as error:
        return _tell(APP_FAILED, f"the app failed: {error}")
    except asyncio.CancelledError:
        pass  # a signal during startup
    return 0


def _tell(code: int, what: object) -> int:
    if isinstance(what, Exception) and what.__cause__ is not None:
        traceback.print_exception(what.__cause__)
    print(f"tinyasgi: error: {what}", file=sys.stderr)
    return code


async def _main(target: Any, config: Config) -> None:
    loop = asyncio.get_running_loop()
    use_records = log.set_up(config)
    access = None
    if config.access_log and not use_records:
        access = log.AccessLines(sys.stdout, loop)
    signals = _Signals(loop)
    async with contextlib.AsyncExitStack() as stack:
        if access is not None:
            stack.callback(access.flush)
        if config.factory:
            target = await stack.enter_async_context(load.created(target))
        server = await stack.enter_async_context(Server(target, config, access=access))
        gc.freeze()  # what startup has made stays: no collection need look at it again
        signals.server = server
        _announce(server, loop)
        await server.stopped()
        logger.info("stopping")
    logger.info("stopped")


def _announce(server: Server, loop: asyncio.AbstractEventLoop) -> None:
    logger.info(
        "tinyasgi %s on %s (%s, %s, pid %d); Ctrl-C stops it",
        __version__,
        ", ".join(server.addresses),
        server.parser,
        type(loop).__module__.partition(".")[0],
        os.getpid(),
    )


def _signals() -> tuple[int, ...]:
    """The signals that end the process; none are taken outside of the main thread."""
    main = threading.current_thread() is threading.main_thread()
    return (signal.SIGINT, signal.SIGTERM) if main else ()


class _Signals:
    """SIGINT and SIGTERM: the first stops in order, the second at once, the third as it may."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.server: Server | None = None
        self._task = asyncio.current_task()
        self._count = 0
        for number in _signals():
            try:
                loop.add_signal_handler(number, self._on_signal)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._on_signal))

    def _on_signal(self) -> None:
        self._count += 1
        if self.server is None:
            assert self._task is not None
            self._task.cancel()
        elif self._count == 1:
            self.server.stop()
        else:
            self.server.quit()
        if self._count > 1:
            for number in _signals():
                signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """Until the loop takes them, signals end the process quietly."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    previous = {number: signal.signal(number, leave) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
