"""The supervisor: reports events to the policy and performs its actions.

A single `select` waits for the next event: a message or the exit of a worker, a signal, a changed
file, or a deadline. The supervisor never imports the app.
"""

import dataclasses
import functools
import itertools
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .._version import __version__
from ..config.kinds import OptionError
from ..errors import plural
from ..logs import setup as log
from ..net import listen
from ..process import identity
from ..process.systemd import Notifier
from ..server_log import logger
from ..signals import Signals
from . import actions, channel, spawn
from .channel import Channel
from .handle import WorkerHandle
from .listeners import Listeners
from .policy import Policy
from .slot import Slot, Worker, WorkerState, exit_reason
from .spec import WorkerSpec

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore
    from .reload import Changes

READ = selectors.EVENT_READ
#: Modules that spawned processes run.
WORKER = f"{__package__}.worker"
ZYGOTE = f"{__package__}.zygote"
#: Maximum seconds of one wait: a day, as in asyncio. epoll accepts at most 24 days.
LONGEST = 24 * 3600.0
#: Seconds between two checks of a worker that has closed its channel and has not exited yet.
CHECK = 0.05
#: Seconds after which the parent of such a worker should have reported its exit.
REPORT = 1.0


class Supervisor:
    """Supervisor of workers that serve an app on bound sockets.

    metrics_store: shared with the workers; it is closed at the end. reaps_orphans: this process may
    reap all its children, because all of them are workers or adopted orphans.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        sockets: list[socket.socket],
        notifier: Notifier,
        metrics_store: "MetricsStore | None" = None,
        reaps_orphans: bool = False,
    ) -> None:
        self.config = config = spec.config
        self._spec = spec.for_workers()
        self._environment = dict(os.environ)
        self._selector = selectors.DefaultSelector()
        self._listeners = Listeners(config, sockets, self._selector)
        self._policy = Policy(config, self._listeners.have_queues)
        self._handles: dict[Worker, WorkerHandle] = {}
        self._requests = itertools.count(1)
        self._actions: deque[actions.Action] = deque()
        self._notifier = notifier
        self._metrics_store = metrics_store
        self._reaps_orphans = reaps_orphans
        self._files = listen.socket_files(sockets)
        self._addresses = [listen.address(sock, config.speaks_tls) for sock in sockets]
        if metrics_store is not None:
            self._addresses.append(f"metrics on {metrics_store.url}")
        self._beat_at = 0.0 if notifier.interval else math.inf
        self._child_has_exited = False
        self._changes: Changes | None = None
        self._parts = ""  # parser and event loop of the workers
        self._result: actions.Done | None = None

    def run(self, taken: Signals) -> actions.Done:
        """Supervise until all workers have stopped. Raises ListenError."""
        taken.add(signal.SIGCHLD)
        self._selector.register(taken, READ, functools.partial(self._on_signals, taken))
        try:
            self._listeners.listen(self.config.workers or 1)
            if self.config.reload:
                self._watch_files()
            self._perform(self._policy.start(time.monotonic()))
            while self._result is None:
                self._turn()
        finally:
            self._close()
        return self._result

    def abandon(self) -> None:
        """Kill the workers, because this process exits at its time limit."""
        for worker in list(self._handles):
            self._signal(worker, signal.SIGKILL)
        listen.remove_files(self._files)

    def _close(self) -> None:
        if self._changes is not None:
            self._changes.close()
        self._selector.close()
        self._listeners.close()
        listen.remove_files(self._files)
        if self._metrics_store is not None:
            self._metrics_store.close()

    # Events.

    def _turn(self) -> None:
        """Wait for the next events and handle them."""
        timeout = min(self._policy.deadline(), self._beat_at) - time.monotonic()
        if any(handle.silent_since for handle in self._handles.values()):
            timeout = min(timeout, CHECK)
        for key, _ in self._selector.select(min(max(timeout, 0.0), LONGEST)):
            # An earlier event may have unregistered or closed it.
            if key in self._selector.get_map().values():
                key.data()
        self._reap()
        now = time.monotonic()
        if now >= self._policy.deadline():
            self._perform(self._policy.tick(now))
        if now >= self._beat_at:
            self._notifier.beat()
            self._beat_at = now + (self._notifier.interval or math.inf)
        for handle in self._handles.values():
            handle.wait_for_room(self._selector)

    def _on_signals(self, taken: Signals) -> None:
        policy = self._policy
        events = {
            signal.SIGHUP: policy.reload,
            signal.SIGTTIN: policy.grow,
            signal.SIGTTOU: policy.shrink,
        }
        for number in map(signal.Signals, taken.received()):
            if number in taken.stops or taken.is_hang_up(number):
                self._perform(policy.stop(time.monotonic()))
            elif number in events:
                self._perform(events[number](time.monotonic()))
            elif number == signal.SIGUSR1:
                self._reopen_log_files()
            else:
                self._child_has_exited = True

    def _reopen_log_files(self) -> None:
        log.reopen_files()
        try:
            identity.give_log_files(self.config)
        except OptionError as error:
            logger.error("%s", error)
        for handle in self._handles.values():
            handle.channel.send(channel.REOPEN)

    def _reap(self) -> None:
        """Collect processes that have exited."""
        silent = [handle for handle in self._handles.values() if handle.silent_since]
        if not (self._child_has_exited or silent):
            return
        self._child_has_exited = False
        handles = {h.worker.pid: h for h in self._handles.values() if h.worker.pid}
        for pid in [-1] if self._reaps_orphans else list(handles):
            with suppress(ChildProcessError):
                while (found := spawn.wait(pid)) is not None:
                    if found[0] in handles:
                        self._on_exit(handles[found[0]], found[1])
        for handle in silent:  # their zygote may be gone, or suspended
            assert handle.silent_since is not None
            is_late = time.monotonic() >= handle.silent_since + REPORT
            if is_late and not identity.is_running(handle.worker.pid):
                self._on_exit(handle, None)

    def _on_exit(self, handle: WorkerHandle, code: int | None) -> None:
        worker = handle.worker
        if worker not in self._handles:
            return
        for message in handle.channel.rest():
            self._on_message(handle, message)
        self._forget(handle)
        if self._metrics_store is not None and handle.shard:
            self._metrics_store.retire(handle.shard, exit_reason(worker, code))
        self._perform(self._policy.exited(time.monotonic(), worker, code))
        for other in self._forked_by(handle, 0):  # it has not forked them
            self._on_exit(other, None)

    def _forked_by(self, zygote: WorkerHandle, pid: int) -> list[WorkerHandle]:
        found = self._handles.values()
        return [each for each in found if each.zygote is zygote and each.worker.pid == pid]

    def _forget(self, handle: WorkerHandle) -> None:
        del self._handles[handle.worker]
        if handle.silent_since is None:
            self._selector.unregister(handle.channel)
        handle.channel.close()

    def _on_channel(self, handle: WorkerHandle) -> None:
        handle.channel.flush()
        try:
            messages = handle.channel.receive()
        except EOFError:
            self._selector.unregister(handle.channel)
            handle.silent_since = time.monotonic()
            return
        for message in messages:
            self._on_message(handle, message)

    def _on_message(self, handle: WorkerHandle, message: channel.Message) -> None:
        now, worker, text = time.monotonic(), handle.worker, message.text
        match message.word:
            case channel.READY:
                self._parts = text or self._parts
                self._perform(self._policy.ready(now, worker))
            case channel.FAILED:
                worker.failure = text
            case channel.REPLACE:
                self._perform(self._policy.asked_for_replacement(now, worker))
            case channel.BEAT:
                self._perform(self._policy.alive(now, worker))
            case channel.FILES:
                if self._changes is not None:
                    self._changes.imported(text.split("\n"))
            case channel.FORKED:
                self._on_forked(*text.split(" ", 2))
            case channel.EXITED:
                pid, code = map(int, text.split())
                for other in self._forked_by(handle, pid):
                    self._on_exit(other, code)

    def _on_forked(self, request: str, pid: str, reason: str = "") -> None:
        for handle in list(self._handles.values()):
            if handle.request == int(request):
                handle.worker.pid = int(pid)
                if reason:
                    self._forget(handle)
                    now = time.monotonic()
                    self._perform(self._policy.failed_to_start(now, handle.worker, reason))

    def _watch_files(self) -> None:
        from .reload import Changes

        self._changes = Changes(self.config)
        self._selector.register(self._changes, READ, self._on_change)

    def _on_change(self) -> None:
        assert self._changes is not None
        if files := [os.path.relpath(file) for file in self._changes.take()]:
            self._perform(self._policy.changed(time.monotonic(), files))

    def _on_connection(self) -> None:
        for slot in self._listeners.awaiting.copy():
            self._perform(self._policy.requested(time.monotonic(), slot))

    # Actions.

    def _perform(self, new: list[actions.Action]) -> None:
        """Perform actions in order, and then the actions that result from them."""
        is_running = bool(self._actions)
        self._actions.extend(new)
        while self._actions and not is_running:
            self._perform_one(self._actions[0])
            self._actions.popleft()

    def _perform_one(self, action: actions.Action) -> None:
        match action:
            case actions.Start(worker):
                self._start(worker)
            case actions.Tell(worker, word):
                self._send(worker, word)
            case actions.Terminate(worker):
                self._signal(worker, signal.SIGTERM)
            case actions.Kill(worker):
                self._signal(worker, signal.SIGKILL)
            case actions.Share(worker, queue):
                sockets = self._listeners.queue(queue)
                self._send(worker, channel.SHARE, str(queue), [sock.fileno() for sock in sockets])
            case actions.Unshare(worker, queue):
                self._send(worker, channel.UNSHARE, str(queue))
            case actions.Await(slot):
                self._listeners.await_connection(slot, self._on_connection)
            case actions.Measure():
                self._measure()
            case actions.Started():
                self._announce()
            case actions.Notify(state):
                getattr(self._notifier, state)()
            case actions.Log(level, text):
                logger.log(level, "%s", text)
            case actions.Close():
                self._listeners.stop_awaiting(*self._listeners.awaiting)
                self._listeners.close()
            case actions.Done():
                self._result = action

    def _start(self, worker: Worker) -> None:
        self._listeners.stop_awaiting(worker.slot)
        try:
            self._handles[worker] = self._start_process(worker)
        except OSError as error:  # out of processes, memory, descriptors or epoll watches
            reason = error.strerror or str(error)
            self._perform(self._policy.failed_to_start(time.monotonic(), worker, reason))
        else:
            logger.log(logging.DEBUG, "%s starts", worker)

    def _start_process(self, worker: Worker) -> WorkerHandle:
        """Spawn a process, or ask the zygote to fork one. Raises OSError."""
        slot, zygote = worker.slot, None
        spec, descriptors = self._spec, list[int]()
        if slot is not self._policy.zygote:
            spec, descriptors = self._describe(slot)
            if self._policy.zygote is not None and self._policy.zygote.worker is not None:
                zygote = self._handles[self._policy.zygote.worker]
        ours, theirs = Channel.pair()
        shard = spec.metrics.shard if spec.metrics is not None else 0
        handle = WorkerHandle(worker, ours, shard, zygote, next(self._requests))
        with theirs:
            descriptors.insert(0, theirs.fileno())
            try:
                if zygote is not None:
                    text = f"{handle.request} {spec.dump()}"
                    zygote.channel.send(channel.FORK, text, descriptors)
                else:
                    module = ZYGOTE if slot is self._policy.zygote else WORKER
                    worker.pid = spawn.spawn(module, descriptors, self._environment)
                    ours.send(channel.BEGIN, spec.dump())
                on_channel = functools.partial(self._on_channel, handle)
                self._selector.register(ours, READ, on_channel)
            except OSError:
                ours.close()  # a process that has started notices this and exits
                raise
        return handle

    def _describe(self, slot: Slot) -> tuple[WorkerSpec, list[int]]:
        """Return the spec and the descriptors for a worker of a slot. Raises OSError."""
        metrics = None
        descriptors = [sock.fileno() for sock in self._listeners.of(slot.index)]
        if self._metrics_store is not None:
            metrics = self._metrics_store.allocate(
                handle.shard for handle in self._handles.values()
            )
            descriptors += [sock.fileno() for sock in self._metrics_store.listeners]
            descriptors.append(metrics.file)
        return dataclasses.replace(self._spec, index=slot.index, metrics=metrics), descriptors

    def _send(
        self, worker: Worker, word: str, text: str = "", descriptors: Sequence[int] = ()
    ) -> None:
        if worker in self._handles:
            try:
                self._handles[worker].channel.send(word, text, descriptors)
            except OSError as error:  # no descriptor is free, and the worker does not read
                logger.error("can't send '%s' to %s: %s", word, worker, error)

    def _signal(self, worker: Worker, number: int) -> None:
        if worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)
        elif worker in self._handles:  # not forked yet: it will find its channel closed
            self._on_exit(self._handles[worker], None)

    def _measure(self) -> None:
        for worker in list(self._handles):
            if worker.slot is not self._policy.zygote and worker.state is WorkerState.READY:
                mebibytes = spawn.memory(worker.pid) >> 20
                self._perform(self._policy.measured(time.monotonic(), worker, mebibytes))

    def _announce(self) -> None:
        workers = plural(len(self._policy.slots), "worker")
        addresses = ", ".join(self._addresses)
        text = "tinyasgi %s on %s (%s, %s, pid %d); Ctrl-C stops it"
        logger.info(text, __version__, addresses, self._parts, workers, os.getpid())
