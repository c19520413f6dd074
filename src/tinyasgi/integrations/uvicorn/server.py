"""`Server`: the methods and attributes of uvicorn's, on a server of tinyasgi."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType

from ...app.lifespan import LifespanFailed
from ...config.kinds import OptionError
from ...importer import LoadError
from ...net.listen import ListenError
from ...protocols.exchange import Exchange
from ...server import server
from ...signals import STOPS
from .config import STARTUP_FAILURE, Config, Lifespan
from .logging import access_logger, log_exchange, logger, redirect_messages

HANDLED_SIGNALS = STOPS

#: Seconds between two calls of `on_tick`.
TICK = 0.1
#: Ticks of the shutdown until the log says what it waits for.
REPORT = 10


class ServerState:
    """State that the connections of a server share."""

    def __init__(self) -> None:
        self.total_requests = 0
        """Requests that have been answered."""
        self.connections: Collection[object] = set()
        """The open connections."""
        self.tasks: Collection[object] = set()
        """The requests that are running."""


class Server:
    """Server with the life cycle of uvicorn's: `startup`, `main_loop`, `shutdown`.

    A program stops it with `should_exit`, from any thread. `force_exit` then shortens the shutdown.
    If the task of `serve` is cancelled, the server stops within seconds.
    """

    _server: server.Server
    _stopped: asyncio.Task[None]
    _end: asyncio.Task[None] | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started = False
        self.should_exit = False
        self.force_exit = False
        self.servers: list[server.Server] = []
        """The server with its listeners, `servers[0].sockets`."""
        self.lifespan: Lifespan = config.lifespan_class(config)
        self.server_state = ServerState()
        self.last_notified = 0.0
        self._captured_signals: list[int] = []
        self._waits_for: Callable[[], list[str]] = list

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in a new event loop."""
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets=sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set. In the main thread, SIGINT and SIGTERM set it."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        logger.info("Started server process [%d]", os.getpid())
        await self.startup(sockets=sockets)
        try:
            if not self.should_exit:
                await self.main_loop()
        except asyncio.CancelledError:
            self.force_exit = True
            raise
        finally:
            await self.shutdown(sockets=sockets)
        logger.info("Finished server process [%d]", os.getpid())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app and listen. Exit if that fails."""
        config = self.config
        redirect_messages()
        if not config.loaded:
            config.load()
        self._logs_access = config.access_log and access_logger.hasHandlers()
        try:
            self._server = server.Server(
                config.loaded_app,
                config.translated(),
                sockets=sockets or (),
                access=self._on_exchange,
                on_wait=self._on_wait,
            )
            await self._server.__aenter__()
        except (OptionError, LoadError, ListenError, LifespanFailed) as error:
            logger.error("%s", error, exc_info=error.__cause__)
            self.lifespan.should_exit = isinstance(error, LifespanFailed)
            sys.exit(STARTUP_FAILURE)
        self.lifespan.state = self._server.app_state
        self.server_state.connections = self._server.connections
        self.server_state.tasks = self._server.running
        self._stopped, self._end = asyncio.create_task(self._server.stopped()), None
        self.servers = [self._server]
        self.started = True
        where = ", ".join(self._server.addresses)
        logger.info("Application startup complete.")  # programs wait for this line, or for the next
        logger.info("tinyasgi running on %s (Press CTRL+C to quit)", where)

    def _on_exchange(self, exchange: Exchange) -> None:
        self.server_state.total_requests += 1
        if self._logs_access:
            log_exchange(exchange)

    async def main_loop(self) -> None:
        """Call `on_tick` until it returns True."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            await asyncio.sleep(TICK)

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server should stop; call `callback_notify` from time to time."""
        config, now = self.config, time.time()
        notify = config.callback_notify
        if notify is not None and now - self.last_notified > config.timeout_notify:
            self.last_notified = now
            await notify()
        has_stopped = self._stopped.done() and not self._stopped.cancelled()
        return self.should_exit or has_stopped  # at the limit of requests

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Stop gracefully, or within seconds once `force_exit` is set."""
        if self._end is None:  # a program may have called this method before `serve` does
            logger.info("Shutting down")
            self._stopped.cancel()
            self._end = asyncio.create_task(self._close())
        ticks, hurries = 0, False
        while not self._end.done():
            if self.force_exit and not hurries:
                hurries = True
                self._server.quit()
            await asyncio.wait([self._end], timeout=TICK)
            ticks += 1
            if ticks == REPORT and (what := self._waits_for()):
                logger.info("Waiting for %s. (CTRL+C to force quit)", ", ".join(what))

    async def _close(self) -> None:
        try:
            await self._server.__aexit__(None, None, None)
        except LifespanFailed as error:
            logger.error("%s", error, exc_info=error.__cause__)

    def _on_wait(self, what: Callable[[], list[str]], limit: float) -> None:
        self._waits_for = what

    # Signals.

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals stop the server while in the block. Raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
        self.install_signal_handlers()
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # None: not set by Python code
                    signal.signal(number, handler)
        for number in reversed(self._captured_signals):
            signal.raise_signal(number)

    def install_signal_handlers(self) -> None:
        """Set the signal handlers; a program that handles signals itself overrides this."""
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one stops the server, a second SIGINT forces its exit."""
        self._captured_signals.append(sig)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True
