"""Graceful shutdown of a server: its steps and their time limits."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from ..app.lifespan import Lifespan
from ..config.config import Config
from ..net.accept import Acceptor, let_loop_read
from ..protocols.context import Context
from ..protocols.states import ServerState
from ..server_log import logger

#: Called with a function that lists what the server waits for, and with the limit in seconds.
OnWait: TypeAlias = Callable[[Callable[[], list[str]], float], None]

#: Seconds for each short step: first requests after the shutdown delay, cancellation, closing.
#: After `quit`, also the maximum seconds of every other step.
LAST = 1.0
#: Seconds to wait for peers that have read all data.
SETTLE = 0.15
#: Seconds between two checks of this limit.
INTERVAL = 0.05
#: Seconds for idle clients of a replaced server to send one more request.
LEAVE = 5.0


class Shutdown:
    """Graceful shutdown: the end of connections and requests, within time limits."""

    def __init__(self, config: Config, on_wait: OnWait) -> None:
        self._config = config
        self._on_wait = on_wait
        self.requested = asyncio.Event()
        """Set when the server should stop."""
        self.gone = asyncio.Event()
        """Set at the end of a connection, a handshake or an exchange."""
        self.replaced = False
        """Whether another server has replaced this one on the same sockets."""
        self._hurries = False
        self._timeout: asyncio.Timeout | None = None
        self._context: Context
        self._acceptor: Acceptor

    def stop(self) -> None:
        """Request the shutdown. After `leave`, do not wait for idle clients any longer."""
        self.replaced = False
        self.requested.set()
        self.gone.set()

    def leave(self) -> None:
        """Request the shutdown of a replaced server."""
        self.replaced = True
        self.requested.set()

    def quit(self) -> None:
        """Request the shutdown, and shorten each step to at most one second."""
        self._hurries = True
        self.requested.set()
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def drain(self, context: Context, acceptor: Acceptor) -> None:
        """End all connections and exchanges."""
        self._context, self._acceptor = context, acceptor
        context.enter(ServerState.LEAVING)
        if self.replaced:
            await acceptor.finish()
            await self.within(LEAVE, self._until_left(), context.describe)
        elif (delay := self._config.shutdown_delay) and not self._hurries:
            await self.within(delay, asyncio.Event().wait(), lambda: ["the shutdown delay"])
            await acceptor.finish()
            await self.within(LAST, self._until_asked(), context.describe)
        await acceptor.finish()
        for handshake in acceptor.handshakes:
            handshake.cancel()
        context.enter(ServerState.STOPPING)
        await let_loop_read()
        for connection in list(context.connections):
            connection.stop()
        grace = 0 if self._hurries else self._config.timeout_graceful_shutdown
        if not await self.within(grace, self._until_settled(), context.describe):
            await self._cancel(grace)
        for connection in list(context.connections):
            connection.close()
        await self.within(LAST, self._until(lambda: not context.connections), context.describe)

    async def _cancel(self, grace: float) -> None:
        """Cancel the requests that still run after the graceful shutdown timeout."""
        context = self._context
        if grace > 0 and not self._hurries:
            context.enter(ServerState.OVERDUE)
            if running := ", ".join(context.describe()):
                text = "still running after %g s (--timeout-graceful-shutdown): %s"
                logger.warning(text, grace, running)
        for exchange in list(context.running):
            exchange.cancel()
        await self.within(LAST, self._until_settled(), context.describe)
        if context.running:
            logger.warning(
                "%d requests did not react to cancellation and were abandoned", len(context.running)
            )

    async def _until_left(self) -> None:
        """Wait until all clients have disconnected, or until `stop` is called."""
        context = self._context
        present: tuple[set[Any], ...]
        present = context.connections, context.running, self._acceptor.handshakes
        await self._until(lambda: not (self.replaced and any(present)))

    async def _until_asked(self) -> None:
        """Wait for the first request on each connection, because it may be on its way."""
        connections, acceptor = self._context.connections, self._acceptor
        await self._until(lambda: not (acceptor.handshakes or any(c.fresh for c in connections)))

    async def _until_settled(self) -> None:
        """Wait until nothing is running and the remaining peers have read all data.

        The remaining peers have sent half a head, do not answer a Close frame, or continue to send.
        """
        context, loop = self._context, asyncio.get_running_loop()
        since = loop.time()
        while context.connections or context.running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._until(lambda: not (context.connections or context.running))
            if context.running or any(connection.busy for connection in context.connections):
                since = loop.time()
            elif loop.time() - since > SETTLE:
                break

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition. The end of a connection or an exchange may change it."""
        while not condition():
            self.gone.clear()
            await self.gone.wait()

    async def within(
        self, seconds: float, work: Awaitable[object], what: Callable[[], list[str]]
    ) -> bool:
        """Await `work`; return False after a timeout, which `quit` shortens.

        what: lists what the server waits for.
        """
        try:
            limit = min(seconds, LAST) if self._hurries else seconds
            self._on_wait(what, limit)
            async with asyncio.timeout(limit) as self._timeout:
                await work
        except TimeoutError:
            return False
        finally:
            self._timeout = None
        return True

    async def end_lifespan(self, lifespan: Lifespan) -> None:
        """Shut down the app. Raises LifespanFailed."""
        seconds = max(self._config.timeout_graceful_shutdown, LAST)
        if not await self.within(seconds, lifespan.shutdown(), lambda: ["the lifespan shutdown"]):
            level = logging.WARNING if self._hurries else logging.ERROR
            limit = LAST if self._hurries else seconds
            logger.log(level, "lifespan shutdown did not finish within %g s", limit)
