"""All workers of a supervisor: starts, watches, replaces and ends them."""

import dataclasses
import functools
import logging
import math
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ..config.config import Config
from ..logs.setup import ERROR_PREFIX
from ..net import listen
from ..process.spec import WorkerSpec
from ..server_log import logger
from . import channel, spawn
from .channel import Channel
from .slot import MARGIN, Child, Slot, WorkerFailed, fate, patience, reason

if TYPE_CHECKING:
    from ..metrics.store import MetricsStore

__all__ = ["Become", "WorkerPool"]

#: Seconds until a process that could not be made is tried again.
RETRY = 1.0
#: Seconds between SIGTERM and SIGKILL for a worker whose event loop is blocked.
UNBLOCK = 2.0
#: Seconds between two looks at the memory of the workers.
MEASURE = 5.0

#: Makes a forked process a worker; returns its exit code.
Become: TypeAlias = Callable[[Channel, list[socket.socket], WorkerSpec], int]


@dataclass(eq=False)
class WorkerPool:
    """Fills `config.workers` places, and fills them again.

    What happens calls its methods through the selector; `act` does what is due by then.
    """

    spec: WorkerSpec
    config: Config
    sockets: list[socket.socket]
    """Of the first place; the others have their like."""
    selector: selectors.BaseSelector
    become: Become | None = None
    """Given when workers are forked off this process, which has imported the app."""
    slots: list[Slot] = field(default_factory=list)
    ending: set[Child] = field(default_factory=set)
    """Workers that have no place any more."""
    generation: int = 0
    kept: int = 0
    """Workers of before the last HUP that go on, because there was no replacing them."""
    started: bool = False
    """All workers have been ready."""
    stopping: bool = False
    failure: WorkerFailed | None = None
    """Why the workers could not start for the first time."""
    measure_at: float = 0.0
    metrics_store: "MetricsStore | None" = None
    """Where the workers count."""
    on_files: Callable[[list[str]], None] | None = None
    """Called with the files that a worker has imported."""

    @property
    def children(self) -> list[Child]:
        """All workers, those that end included."""
        placed = [child for slot in self.slots for child in (slot.worker, slot.successor) if child]
        return [*placed, *self.ending]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "selector": None, "on_files": None}

    # What is done with all.

    def start(self) -> None:
        """Listens and fills the places; the workers are not waited for. Raises ListenError."""
        for sock in self.sockets:
            listen.listen(sock, self.config)
        self.slots.append(Slot(0, self.sockets.copy()))
        while len(self.slots) < self.config.workers:
            self.add()

    def add(self) -> None:
        """One place more."""
        index = min(set(range(len(self.slots) + 1)) - {slot.index for slot in self.slots})
        sockets = [listen.clone(sock) for sock in self.sockets]
        for sock in sockets:
            listen.listen(sock, self.config)
        self.slots.append(Slot(index, sockets))

    def remove(self) -> None:
        """One place less, unless it is the last.

        What waits in its queue, and comes there from now on, is for another worker: a listener that
        closes would reset it.
        """
        if len(self.slots) > 1:
            slot = self.slots.pop()
            self._vacate(slot, channel.LEAVE, patience(self.config))
            heir = min(self.slots, key=lambda other: len(other.sockets))
            queues = [sock for sock in slot.sockets if listen.has_own_queue(sock)]
            heir.sockets += queues
            if heir.worker is not None and heir.worker.ready_at is not None:
                heir.worker.take(queues)
            slot.sockets = [sock for sock in slot.sockets if sock not in queues]
            slot.close()

    def stop(self, word: str, seconds: float) -> None:
        """Ends all workers for good."""
        self.stopping = True
        for child in self.ending:
            child.tell(word, seconds)
        for slot in self.slots:
            self._vacate(slot, word, seconds)
            slot.close()  # from here on it is the workers who accept, for as long as they want

    def restart(self, seconds: float) -> None:
        """Ends all workers, and starts others when these are gone."""
        for slot in self.slots:
            self._vacate(slot, channel.STOP, seconds)
            self._allow(slot)

    def keep(self) -> None:
        """Gives up replacing what there is."""
        for child in self.children:
            child.generation = self.generation
        for slot in self.slots:
            slot.due = ""
        self.kept = len(self.slots)

    def is_current(self) -> bool:
        """Whether all workers are ready and of the last generation."""
        workers = [slot.worker for slot in self.slots]
        return all(w and w.ready_at and w.generation == self.generation for w in workers)

    # What happens.

    def watch(self, child: Child) -> None:
        """Waits for what a worker says, and for its end."""
        hear = functools.partial(self._on_word, child)
        self.selector.register(child.channel, selectors.EVENT_READ, hear)
        if child.process.sentinel is not None:
            end = functools.partial(self._on_exit, child)
            self.selector.register(child.process.sentinel, selectors.EVENT_READ, end)

    def _on_word(self, child: Child) -> None:
        try:
            said = child.channel.receive()
        except EOFError:
            self._unregister(child.channel)
            if child.process.sentinel is None:
                child.process.kill()  # no other sign of its end is to come
                child.process.wait()
                self._on_exit(child)
            return
        for word, text in said:
            self._hear(child, word, text)

    def _hear(self, child: Child, word: str, text: str) -> None:
        child.heard_at = time.monotonic()
        if word == channel.FAILED:
            child.failure = text
        elif word == channel.FILES and self.on_files is not None:
            self.on_files(text.split("\n"))
        elif child in self.ending:
            if word in (channel.READY, channel.REPLACE):  # it did not listen when it was told
                child.channel.send(channel.STOP)
        elif word == channel.READY:
            child.ready_at, child.parts = child.heard_at, text
            self._on_ready(child)
        elif word == channel.REPLACE and child is child.slot.worker:
            child.slot.due = child.slot.due or "it wants to leave"
        elif word == channel.BEAT:
            child.kill_at = math.inf

    def _on_ready(self, child: Child) -> None:
        slot = child.slot
        if child is slot.successor:
            logger.info("%s takes over", child)
            old, slot.worker, slot.successor, slot.due = slot.worker, child, None, ""
            if old is not None:
                self._end(old, channel.LEAVE, patience(self.config))
        elif self.started:
            logger.info("%s is ready", child)
        child.take(slot.sockets)  # there may be more by now
        slot.helper = None
        self.started = self.started or self.is_current()

    def _on_exit(self, child: Child) -> None:
        """A worker has ended: as it was told to, or for a reason that is worth a line."""
        code = child.process.poll()
        for word, text in child.channel.rest():
            self._hear(child, word, text)
        for file in (child.channel, child.process.sentinel):
            self._unregister(file)
        child.channel.close()
        child.process.close()
        if self.metrics_store is not None:
            self.metrics_store.retire(child.shard, reason(child, code, told=child in self.ending))
        what = f"{child} {'was killed' if child.is_killed else fate(code)}"
        if child in self.ending:
            self.ending.discard(child)
            # A signal to a whole group may find a Python that has given up its handlers.
            quiet = child.ready_at is None or not code or -code in spawn.SIGNALS
            logger.log(logging.DEBUG if quiet else logging.WARNING, "%s as it was to end", what)
            return
        slot = child.slot
        slot.back_off(child)
        if child.failure:
            what = f"{what}:\n{child.failure}"
        if child is slot.successor:
            slot.successor = None
            if slot.worker is not None and slot.worker.generation < child.generation:
                slot.worker.generation = child.generation  # a HUP is not tried again
                slot.due = ""
                self.kept += 1
            logger.error("%s\nits predecessor goes on", what)
            return
        slot.worker, slot.successor = slot.successor, None
        if not self.started and (not self.config.reload or code == 2):
            self._fail(child, code or 0, what)
            return
        logger.error("%s", what)
        if self.config.reload:
            self._wait(slot, for_requests=child.ready_at is not None)

    def _fail(self, child: Child, code: int, what: str) -> None:
        """The first start has failed: one worker tells why, for all."""
        if self.failure is None:
            text = child.failure or f"{ERROR_PREFIX}{what} before it was ready"
            self.failure = WorkerFailed(code if code > 0 else 3, text)
        self.stop(channel.STOP, MARGIN)

    def _wait(self, slot: Slot, for_requests: bool) -> None:
        """Starts no worker before a file changes, or a request comes."""
        slot.start_at = math.inf
        logger.info("the next change %sstarts it anew", "or request " * for_requests)
        if for_requests:
            for sock in slot.sockets:
                start = functools.partial(self._allow, slot)
                self.selector.register(sock, selectors.EVENT_READ, start)

    def _allow(self, slot: Slot) -> None:
        """The next worker of a slot may start."""
        slot.start_at = 0.0
        for sock in slot.sockets:
            self._unregister(sock)

    def _unregister(self, file: object) -> None:
        if file in self.selector.get_map():
            self.selector.unregister(file)  # type: ignore[arg-type]

    # What is due.

    def deadlines(self) -> Iterator[float]:
        """When `act` has something to do although nothing happens."""
        yield math.inf
        yield from (child.kill_at for child in self.children)
        if self.stopping:
            return
        config = self.config
        starting = any(slot.successor for slot in self.slots)
        for slot in self.slots:
            worker = slot.worker
            if (worker is None and not self._is_busy(slot)) or (slot.due and not starting):
                yield slot.start_at
            if worker is not None and worker.ready_at is not None:
                if config.worker_timeout and not worker.is_doomed:
                    yield worker.heard_at + config.worker_timeout + 1
                if config.worker_lifetime and not slot.due:
                    yield worker.ready_at + config.worker_lifetime
        if config.worker_max_rss and self.started:
            yield self.measure_at

    def act(self) -> None:
        """Starts, replaces and kills what is to be."""
        now = time.monotonic()
        if not self.stopping:
            for slot in self.slots:
                self._judge(slot, now)
                if slot.worker is None and now >= slot.start_at and not self._is_busy(slot):
                    self._allow(slot)
                    slot.worker = self._launch(slot)
            self._succeed(now)
            self._help()
        if self.started and now >= self.measure_at:
            self.measure_at = now + MEASURE
        for child in self.children:
            if now >= child.kill_at:
                logger.warning("%s does not end and is killed", child)
                child.process.kill()
                child.is_killed, child.kill_at = True, math.inf

    def _is_busy(self, slot: Slot) -> bool:
        """Whether a reload waits for the last worker to end."""
        return self.config.reload and any(child.slot is slot for child in self.ending)

    def _judge(self, slot: Slot, now: float) -> None:
        """Whether the worker of a slot has had its time, and whether it lives."""
        worker, config = slot.worker, self.config
        if worker is None or worker.ready_at is None:
            return
        if worker.generation < self.generation:
            slot.due = "HUP"
        elif config.worker_lifetime and now >= worker.ready_at + config.worker_lifetime:
            slot.due = slot.due or f"it has lived for {config.worker_lifetime:g} s"
        elif config.worker_max_rss and now >= self.measure_at:
            size = spawn.memory(worker.process.pid) >> 20
            if size >= config.worker_max_rss:
                slot.due = slot.due or f"it has {size} MiB of memory"
        limit = config.worker_timeout
        if limit and not worker.is_doomed and now >= worker.heard_at + limit + 1:
            logger.error("the event loop of %s has been blocked for %g s", worker, limit)
            worker.process.terminate()
            worker.kill_at = now + UNBLOCK

    def _succeed(self, now: float) -> None:
        """Starts the next successor, unless one is starting already."""
        if any(slot.successor is not None for slot in self.slots):
            return
        for slot in self.slots:
            worker = slot.worker
            if slot.due and worker is not None and worker.ready_at and now >= slot.start_at:
                logger.info("%s is replaced: %s", worker, slot.due)
                slot.successor = self._launch(slot)
                return

    def _help(self) -> None:
        """Lets another worker take from the queue of a place whose workers fail again and again."""
        workers = [slot.worker for slot in self.slots if slot.worker and slot.worker.ready_at]
        for slot in self.slots:
            down = slot.worker is None or slot.worker.ready_at is None
            if down and slot.failures > 1 and workers and slot.helper not in workers:
                slot.helper = workers[slot.index % len(workers)]
                slot.helper.take([sock for sock in slot.sockets if listen.has_own_queue(sock)])

    # One worker.

    def _launch(self, slot: Slot) -> Child | None:
        """A new process for a slot; None, and another try later, when there can't be one."""
        try:
            return self._start(slot)
        except OSError as error:  # out of processes, memory or descriptors
            logger.error("can't start worker %d: %s", slot.index, error.strerror or error)
            slot.start_at = time.monotonic() + RETRY
            return None

    def _start(self, slot: Slot) -> Child:
        ours, theirs = Channel.pair()
        spec, sockets, files, shard = self.spec, slot.sockets, [], 0
        if self.metrics_store is not None:
            metrics = self.metrics_store.allocate(child.shard for child in self.children)
            spec, shard = dataclasses.replace(spec, metrics=metrics), metrics.shard
            sockets, files = [*sockets, *self.metrics_store.listeners], [metrics.file]
        if self.become is not None:
            become = functools.partial(self.become, Channel(theirs), sockets, spec)
            process = spawn.fork(functools.partial(self._become_worker, slot, ours, become))
        else:
            environment = self.spec.environment | {"TINYASGI_WORKER": str(slot.index)}
            process = spawn.spawn([theirs, *sockets], environment, files)
            ours.send(channel.BEGIN, str(spec))
        theirs.close()
        child = Child(slot, process, ours, self.generation, slot.sockets.copy(), shard)
        logger.log(logging.DEBUG, "%s starts", child)
        self.watch(child)
        return child

    def _become_worker(self, slot: Slot, ours: Channel, become: Callable[[], int]) -> int:
        """In a forked process: leaves behind what is the supervisor's."""
        self.selector.close()
        ours.close()
        for child in self.children:
            child.channel.close()
            child.process.close()
        for other in self.slots:
            if other is not slot:
                other.close()
        os.environ["TINYASGI_WORKER"] = str(slot.index)
        return become()

    def _vacate(self, slot: Slot, word: str, seconds: float) -> None:
        for child in (slot.worker, slot.successor):
            if child is not None:
                self._end(child, word, seconds)
        slot.worker = slot.successor = None

    def _end(self, child: Child, word: str, seconds: float) -> None:
        child.tell(word, seconds)
        self.ending.add(child)
