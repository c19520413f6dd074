"""A process that serves for a supervisor: what it is given, what it says, when it ends."""

import asyncio
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from .. import signals
from ..process import forks
from ..process.ending import Ending
from ..process.process import Process
from ..process.spec import WorkerSpec
from ..process.watchdog import LoopWatchdog
from . import channel, spawn
from .channel import Channel

__all__ = ["become", "main"]


def main() -> NoReturn:
    """What `spawn.spawn` starts."""
    mine, *sockets = spawn.given()
    messages = Channel(mine)
    try:
        (_, text), *_ = messages.receive()  # the rest is for a worker that listens already
    except EOFError:
        sys.exit(0)  # the supervisor is gone already
    spec = WorkerSpec.read(text)
    sys.path[:], sys.argv[:] = spec.path, spec.arguments
    os.chdir(spec.folder)
    sys.exit(become(messages, sockets, spec))


def become(messages: Channel, sockets: list[socket.socket], spec: WorkerSpec) -> int:
    """Serves as a worker; returns the exit code."""
    ending = Ending(signals.take(Worker.stops, Worker.others), exits=True)
    spawn.unblock_signals()
    _end_with_parent()
    try:
        with forks.withheld(lambda: [messages.fileno(), *(sock.fileno() for sock in sockets)]):
            code = Worker(messages, sockets, spec, ending).run()
    finally:
        messages.close()
        for sock in sockets:
            sock.close()
    ending.leave(code)
    return code


def _end_with_parent() -> None:
    """Lets Linux send SIGTERM when the supervisor dies, also while the event loop does not run."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Worker(Process):
    """It leaves when its supervisor says so, or is gone.

    Whatever else makes it want to leave, be it a signal, a limit or an error of the app, it asks
    to be replaced, and serves until another worker has its place.
    """

    level = logging.DEBUG  # of what its supervisor tells, too
    stops = (signal.SIGTERM,)
    others = spawn.OF_GROUP  # they are for the supervisor, and mean nothing here

    def __init__(
        self, messages: Channel, sockets: list[socket.socket], spec: WorkerSpec, ending: Ending
    ) -> None:
        if spec.metrics is not None:
            from ..metrics.store import MetricsStore

            self.metrics_store = MetricsStore.attach(spec.metrics, sockets)
            sockets = sockets[: -spec.metrics.listeners]
        super().__init__(spec.target, spec.config, ending, sockets)
        self._parent = os.getppid()
        self._channel = messages
        self._told = asyncio.Event()
        self._word = ""  # that has told it to end

    def tell(self, text: str) -> None:
        if self._ready:
            super().tell(text)
        else:  # perhaps all workers fail alike: the supervisor tells it once
            self._tell_files(re.findall(r'File "([^"]+)"', text))
            self._channel.send(channel.FAILED, text)

    def watch(self) -> LoopWatchdog | None:
        limit = self.config.worker_timeout
        if not limit:
            return super().watch()
        seconds = min(limit, self.config.debug_blocking or limit)
        dump = self.config.log_format == "text"  # no handler could make JSON of it
        return LoopWatchdog(self.loop, seconds, lambda: self._channel.send(channel.BEAT), dump)

    def announce(self) -> None:
        self._listen()
        self._tell_files()
        self._channel.send(channel.READY, self.parts)

    def _tell_files(self, others: Sequence[str] = ()) -> None:
        """Says which files a change of which matters: those of modules, and others."""
        if self.config.reload:
            modules = list(sys.modules.values())
            files = [getattr(module, "__file__", None) for module in modules]
            self._channel.send(channel.FILES, "\n".join(filter(None, [*files, *others])))

    async def until_told(self) -> None:
        await self.server.stopped()
        if not self._told.is_set():
            self._channel.send(channel.REPLACE)
            await self._told.wait()

    # What the supervisor says.

    def _listen(self) -> None:
        if sys.platform != "win32":
            self.loop.add_reader(self._channel, self._hear)
            return

        def listen() -> None:  # its event loop does not wait for sockets of others
            while True:
                try:
                    said = self._channel.receive()
                except EOFError:
                    said = [(channel.STOP, "")]
                for word, _ in said:
                    self.loop.call_soon_threadsafe(self._obey, word)

        threading.Thread(target=listen, daemon=True).start()

    def _hear(self) -> None:
        try:
            said = self._channel.receive()
        except EOFError:  # the supervisor is gone
            self.loop.remove_reader(self._channel)
            said = [(channel.STOP, "")]
        for word, _ in said:
            self._obey(word)

    def _obey(self, word: str) -> None:
        if word == channel.REOPEN:
            self.reopen()
            return
        if word == channel.TAKE:
            sockets, self._channel.sockets = self._channel.sockets, []
            self._taking = self.loop.create_task(self.server.take(sockets))
            return
        self._word = word
        self._told.set()
        if word == channel.LEAVE:
            self.server.leave()
        elif word == channel.STOP:
            self.server.stop()
        elif word == channel.QUIT:
            self.server.quit()
            self.ending.hurry()

    @property
    def stops_by_signal(self) -> bool:
        return self._word == channel.STOP  # its supervisor has got one

    def _on_stop_signal(self, count: int) -> None:
        # When it serves it goes on until it is replaced, or until its supervisor is gone.
        if count > 1 or not self._ready or os.getppid() != self._parent:
            super()._on_stop_signal(count)
