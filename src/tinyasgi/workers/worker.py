"""A process that serves under a supervisor, with which it exchanges messages."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import signals
from ..config.config import Config
from ..process import forks, identity
from ..process.ending import Ending
from ..process.process import ServerProcess
from ..process.watchdog import LoopWatchdog, report_slow_start
from ..server_log import logger
from ..signals import Signals
from . import channel, spawn
from .channel import Channel
from .spec import WorkerSpec

#: Seconds to send the last messages before the process exits.
DRAIN = 1.0


def main() -> NoReturn:
    """Run a process that the supervisor has spawned."""
    messages, descriptors = spawn.inherited()
    spec = receive_spec(messages)
    spec.apply()
    identity.change_user(spec.config)
    sys.exit(run_worker(messages, descriptors, spec))


def receive_spec(messages: Channel) -> WorkerSpec:
    """Wait for the first message. Exit if the supervisor is gone."""
    found: list[channel.Message] = []
    while not found:
        select.select([messages], [], [])
        try:
            found = messages.receive()
        except EOFError:
            sys.exit(0)
    return WorkerSpec.load(found[0].text)


def run_worker(messages: Channel, descriptors: list[int], spec: WorkerSpec) -> int:
    """Serve as a worker; return the exit code."""
    os.environ["TINYASGI_WORKER"] = str(spec.index)
    identity.set_title(spec.config, f"worker {spec.index}")
    if spec.metrics is not None:
        *descriptors, file = descriptors
        spec = dataclasses.replace(spec, metrics=spec.metrics._replace(file=file))
    sockets = [socket.socket(fileno=number) for number in descriptors]
    ending = Ending(signals.take((signal.SIGTERM,), spawn.OF_GROUP), exits=True)
    try:
        with forks.withheld(lambda: [messages.fileno(), *(sock.fileno() for sock in sockets)]):
            process = WorkerProcess(messages, sockets, spec, ending)
            listen_to_supervisor(ending.signals, messages)
            code = process.run()
    finally:
        messages.drain(DRAIN)
        messages.close()
        for sock in sockets:
            sock.close()
    ending.leave(code)
    return code


def listen_to_supervisor(taken: Signals, messages: Channel) -> None:
    """Let a signal stop this process when the supervisor dies, even without an event loop."""

    def is_stop(number: int) -> bool:
        return number in taken.stops or (number == signal.SIGHUP and spawn.is_hung_up(messages))

    taken.is_stop = is_stop
    spawn.hang_up_with_parent()
    spawn.unblock_signals()
    if spawn.is_hung_up(messages):
        sys.exit(0)


def send_files(messages: Channel, config: Config, traceback: str = "") -> None:
    """With --reload, send the files of all modules and of a traceback, so that they are watched."""
    if config.reload:
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        files += re.findall(r'File "([^"]+)"', traceback)
        messages.send(channel.FILES, "\n".join(filter(None, files)))


class WorkerProcess(ServerProcess):
    """Process that serves until the supervisor stops it or has exited.

    If it should stop for another reason (a signal or a limit), it asks for a replacement and serves
    until the replacement is ready.
    """

    level = logging.DEBUG  # the supervisor reports starts and stops

    def __init__(
        self, messages: Channel, sockets: list[socket.socket], spec: WorkerSpec, ending: Ending
    ) -> None:
        if spec.metrics is not None:
            from ..metrics.store import MetricsStore

            self.metrics_store = MetricsStore.attach(spec.metrics, sockets)
            sockets = sockets[: -spec.metrics.listeners]
        super().__init__(spec.target, spec.config, ending, sockets)
        self._channel = messages
        self._start = contextlib.ExitStack()
        self._may_stop = asyncio.Event()  # the supervisor has sent `retire`, `stop` or `quit`
        self._word = ""  # the last of these messages
        self._shared: dict[str, Sequence[socket.socket]] = {}
        self._sharing: set[asyncio.Task[None]] = set()

    def run(self) -> int:
        with self._start:
            self._start.enter_context(report_slow_start(self.config.timeout_start))
            return super().run()

    def report(self, text: str) -> None:
        if self._ready:
            super().report(text)
        else:  # all workers may fail in the same way: the supervisor logs one of the reasons
            send_files(self._channel, self.config, text)
            self._channel.send(channel.FAILED, text)

    def watch(self) -> LoopWatchdog | None:
        limit = self.config.worker_timeout
        if not limit:
            return super().watch()
        seconds = min(limit, self.config.debug_blocking or limit)
        dump = self.config.log_format == "text"  # a dump is never JSON
        return LoopWatchdog(self.loop, seconds, self._beat, dump)

    def _beat(self) -> None:
        if not self._channel.is_blocked:  # a late beat is useless
            self._send(channel.BEAT)

    def announce(self) -> None:
        self._start.close()
        self.loop.add_reader(self._channel, self._on_messages)
        send_files(self._channel, self.config)
        self._send(channel.READY, self.parts)

    async def wait_for_stop(self) -> None:
        await self.server.stopped()
        if not self._may_stop.is_set():
            self._send(channel.REPLACE)
            await self._may_stop.wait()

    # Messages.

    def _send(self, word: str, text: str = "") -> None:
        self._channel.send(word, text)
        if self._channel.is_blocked:
            self.loop.add_writer(self._channel, self._flush)

    def _flush(self) -> None:
        self._channel.flush()
        if not self._channel.is_blocked:
            self.loop.remove_writer(self._channel)

    def _on_messages(self) -> None:
        try:
            messages = self._channel.receive()
        except EOFError:  # the supervisor is gone
            self.loop.remove_reader(self._channel)
            self.loop.remove_writer(self._channel)
            messages = [channel.Message(channel.STOP, "", [])]
        for message in messages:
            self._on_message(message)

    def _on_message(self, message: channel.Message) -> None:
        word = message.word
        if word == channel.REOPEN:
            self.reopen()
        elif not message.is_complete:
            logger.error("out of file descriptors; this worker asks for a replacement")
            self._send(channel.REPLACE)
        elif word == channel.SHARE:
            sockets = [socket.socket(fileno=number) for number in message.descriptors]
            self._shared[message.text] = sockets
            task = self.loop.create_task(self.server.take(sockets))
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)
        elif word == channel.UNSHARE:
            for sock in self._shared.pop(message.text, ()):
                self.loop.call_soon(self.server.give_back, sock)  # runs after `take`
        else:
            self._word = word
            self._may_stop.set()
            if word == channel.RETIRE:
                self.server.leave()
            elif word == channel.STOP:
                self.server.stop()
            else:
                self.server.quit()
                self.ending.hurry()

    @property
    def stops_by_signal(self) -> bool:
        return self._word == channel.STOP  # the supervisor sends `stop` after a signal

    # A worker that serves continues until it is replaced or the supervisor has exited. Another
    # SIGTERM changes nothing.

    def on_stop(self) -> None:
        if not self._ready or spawn.is_hung_up(self._channel):
            super().on_stop()
        elif not self._may_stop.is_set():
            self.stop()

    def _on_stop_signal(self, count: int) -> None:
        if not self._ready or spawn.is_hung_up(self._channel):
            super()._on_stop_signal(count)
