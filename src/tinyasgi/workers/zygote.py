"""The zygote: a process that imports the app once and forks workers, which share its memory."""

import errno
import functools
import gc
import os
import select
import signal
import socket
import sys
from collections import deque
from typing import NoReturn

from .. import importer, signals
from ..config import env_file
from ..logs import setup as log
from ..process import forks, identity
from ..process.ending import Ending, flush_files
from ..process.loop import loop_factory
from ..process.process import exit_code
from ..process.watchdog import report_slow_start
from ..protocols.context import create_parser
from . import channel, spawn, worker
from .channel import Channel, Message
from .spec import WorkerSpec

_STOPS = (signal.SIGTERM,)


def main() -> NoReturn:
    """Run a process that the supervisor has spawned."""
    messages, _ = spawn.inherited()
    spec = worker.receive_spec(messages)
    spec.apply()
    identity.change_user(spec.config)
    identity.set_title(spec.config, "zygote")
    sys.exit(Zygote(messages, spec).run())


class Zygote:
    """Process that forks workers until the supervisor stops it or has exited."""

    def __init__(self, messages: Channel, spec: WorkerSpec) -> None:
        self._channel = messages
        self._spec = spec
        self._messages: deque[Message] = deque()  # received, but not handled yet
        self._children: set[int] = set()
        self._signals = signals.take(_STOPS, spawn.OF_GROUP)
        self._signals.add(signal.SIGCHLD)

    def run(self) -> int:
        """Import the app and fork workers; return the exit code."""
        config = self._spec.config
        ending = Ending(self._signals, exits=True)
        worker.listen_to_supervisor(self._signals, self._channel)
        self._signals.on_stop = lambda count: ending.begin(config.timeout_graceful_shutdown)
        code = exit_code(self._serve, self._fail, self._signals)
        self._channel.drain(1.0)
        self._channel.close()
        ending.leave(code)
        return code

    def _fail(self, text: str) -> None:
        worker.send_files(self._channel, self._spec.config, text)
        self._channel.send(channel.FAILED, text)

    def _serve(self) -> None:
        config = self._spec.config
        log.set_up_process(config)
        withheld = forks.withheld(lambda: [self._channel.fileno()])
        with report_slow_start(config.timeout_start), self._signals.exiting(), withheld:
            env_file.load(config)
            importer.load(self._spec.target, config.app_dir)
            loop_factory(config)  # imports libraries that the workers then share
            create_parser(config)
        self._signals.install()  # the app may have set others
        log.set_up_loggers(config)  # and may have configured logging
        flush_files()  # else each worker would write the data in their buffers
        gc.freeze()  # a collection would write to memory that is shared, and so copy it
        worker.send_files(self._channel, config)
        self._channel.send(channel.READY)
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for the next event and handle it; return whether to go on."""
        ours, wakeup = self._channel.fileno(), self._signals.fileno()
        select.select([ours, wakeup], [ours] if self._channel.is_blocked else [], [])
        self._channel.flush()
        self._signals.received()
        self._reap()
        try:
            self._messages += self._channel.receive()
        except EOFError:
            return False
        while self._messages:
            message = self._messages.popleft()
            if message.word == channel.FORK:
                self._fork(message)
            elif message.word == channel.REOPEN:
                log.reopen_files()
            else:
                return False
        return not self._signals.count

    def _reap(self) -> None:
        for pid in list(self._children):
            if (found := spawn.wait(pid)) is not None:
                self._children.remove(pid)
                self._channel.send(channel.EXITED, f"{pid} {found[1]}")

    def _fork(self, message: Message) -> None:
        request, _, text = message.text.partition(" ")
        run = functools.partial(self._run_worker, message.descriptors, text)
        try:
            if not message.is_complete:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            with forks.keeping():
                pid = spawn.fork(run)
        except OSError as error:
            self._channel.send(channel.FORKED, f"{request} 0 {error.strerror}")
        else:
            self._children.add(pid)
            self._channel.send(channel.FORKED, f"{request} {pid}")
        message.close()

    def _run_worker(self, descriptors: list[int], text: str) -> int:
        """Run in the forked process."""
        self._channel.close()
        for message in self._messages:  # for the next workers
            message.close()
        mine, *others = descriptors
        return worker.run_worker(Channel(socket.socket(fileno=mine)), others, WorkerSpec.load(text))
