"""Policy of the supervisor: a pure state machine over slots. Events in, actions out.

Each event is a method. Its argument `now` is the time, and it returns the next actions. The method
first records the event. Then `_advance` derives the actions from the state of the slots, not from
the sequence of events. So events that arrive in another order need no code of their own.
"""

import logging
import math

from ..config.config import Config
from ..errors import plural
from ..logs.setup import ERROR_PREFIX
from ..process.process import BAD_OPTION, FAILED
from . import actions
from .actions import Action
from .channel import QUIT, RETIRE, STOP
from .limits import HURRY, MARGIN, MEASURE, RELOAD, UNBLOCK, time_to_stop
from .queues import AcceptQueues
from .slot import SIGNALS, ZYGOTE, Slot, SlotState, Worker, WorkerState, describe_exit


class Policy:
    """State machine that keeps the configured number of workers running.

    With `preload`, a zygote forks the workers.

    has_queues: each slot has its own accept queue. While a slot has no worker, a worker of another
    slot accepts from its queue.
    """

    def __init__(self, config: Config, has_queues: bool) -> None:
        self.config = config
        self.generation = 0
        """Number of reloads."""
        self.slots: list[Slot] = []
        self.zygote = Slot(-1, ZYGOTE) if config.preload else None
        self.ending: set[Worker] = set()
        """Workers that have no slot any more."""
        self.queues = AcceptQueues()
        self.is_started = self.is_reloading = False
        self.stops = 0
        self._has_queues = has_queues
        self._is_kept = False  # the last reload has failed
        self._failure: actions.Done | None = None
        self._is_done = False
        self._measure_at = math.inf
        self._no_process = ""  # why the last process could not be started
        self._actions: list[Action] = []

    @property
    def is_stopping(self) -> bool:
        return self.stops > 0 or self._failure is not None

    @property
    def workers(self) -> list[Worker]:
        """All processes, including the zygote and those that are stopping."""
        return [*(worker for slot in self._all_slots for worker in slot.workers), *self.ending]

    @property
    def _all_slots(self) -> list[Slot]:
        return [self.zygote, *self.slots] if self.zygote is not None else self.slots

    # Events.

    def start(self, now: float) -> list[Action]:
        """Start the first workers, after the addresses are bound."""
        while len(self.slots) < (self.config.workers or 1):
            self._add_slot()
        return self._advance(now)

    def failed_to_start(self, now: float, worker: Worker, reason: str) -> list[Action]:
        """Handle a system error that prevented the start of a process."""
        level = logging.DEBUG if reason == self._no_process else logging.ERROR
        self._no_process = reason
        self._log(level, f"can't start {worker.slot.name}, will try again: {reason}")
        self.ending.discard(worker)
        worker.slot.remove(worker, now)
        return self._advance(now)

    def ready(self, now: float, worker: Worker) -> list[Action]:
        """Handle a complete start: a worker serves, or the zygote has imported the app."""
        slot = worker.slot
        worker.ready_at = worker.heard_at = now
        self._no_process = ""
        if worker.state is WorkerState.ENDING:  # SIGTERM has had no effect
            self._actions.append(actions.Tell(worker, STOP))
            return self._advance(now)
        worker.state = WorkerState.READY
        if worker is slot.successor:
            old, slot.worker, slot.successor, slot.reason = slot.worker, worker, None, ""
            if old is not None:
                self._log(logging.INFO, f"{worker} is ready and has replaced pid {old.pid}")
                self._end(now, old, RETIRE, time_to_stop(self.config))
        elif self.is_started:
            self._log(logging.INFO, f"{worker} is ready")
        slot.state = SlotState.READY
        return self._advance(now)

    def alive(self, now: float, worker: Worker) -> list[Action]:
        """Record that the event loop of a worker runs."""
        worker.heard_at = now
        if worker.state is WorkerState.READY and not worker.is_killed:
            worker.kill_at = math.inf
        return self._advance(now)

    def asked_for_replacement(self, now: float, worker: Worker) -> list[Action]:
        """Replace a worker that has reached a limit or got SIGTERM. It serves until then."""
        if worker.state is WorkerState.ENDING:
            self._actions.append(actions.Tell(worker, STOP))
        elif worker is worker.slot.worker:
            worker.slot.reason = "it received SIGTERM or reached --limit-max-requests"
        return self._advance(now)

    def measured(self, now: float, worker: Worker, mebibytes: int) -> list[Action]:
        """Replace a worker that uses too much memory. mebibytes: its memory."""
        limit = self.config.worker_max_rss
        if limit and mebibytes >= limit and worker is worker.slot.worker:
            worker.slot.reason = f"it uses {mebibytes} MiB of memory (--worker-max-rss)"
        return self._advance(now)

    def exited(self, now: float, worker: Worker, code: int | None) -> list[Action]:
        """Handle the exit of a process. code: exit code; None if it is not known."""
        slot, was_successor = worker.slot, worker is worker.slot.successor
        what = f"{worker} {'was killed' if worker.is_killed else describe_exit(code)}"
        if worker in self.ending:
            self.ending.discard(worker)
            quiet = worker.ready_at is None or not code or -code in SIGNALS
            self._log(logging.DEBUG if quiet else logging.WARNING, f"{what} while it was stopping")
            return self._advance(now)
        slot.remove(worker, now)
        if worker.failure:
            what += f":\n{worker.failure}"
        if was_successor:
            self._on_failed_successor(slot, worker, what)
        elif not self.is_started and (not self.config.reload or code == BAD_OPTION):
            self._fail(now, worker, code, what)
        else:
            self._log(logging.ERROR, what)
            # A zygote that was ready waits for no request, because its slot has no listeners.
            is_ready_zygote = slot is self.zygote and worker.ready_at is not None
            if self.config.reload and slot.worker is None and not is_ready_zygote:
                self._wait(slot, for_requests=worker.ready_at is not None)
        return self._advance(now)

    def reload(self, now: float) -> list[Action]:
        """Replace all workers, one after another (SIGHUP)."""
        if self.is_stopping:
            return self._advance(now)
        self._log(logging.INFO, "replacing the workers")
        self._actions.append(actions.Notify("reloading"))
        self.generation += 1
        self.is_reloading, self._is_kept = True, False
        for slot in self._all_slots:
            slot.start_at = now  # the reload may have repaired what failed
            if slot.state is SlotState.WAITING:
                slot.state = SlotState.EMPTY
        return self._advance(now)

    def grow(self, now: float) -> list[Action]:
        """Add a worker (SIGTTIN)."""
        if not self.is_stopping:
            self._add_slot()
            self._log_count()
        return self._advance(now)

    def shrink(self, now: float) -> list[Action]:
        """Remove a worker, but not the last one (SIGTTOU)."""
        if not self.is_stopping:
            if len(self.slots) > 1:
                self._vacate(now, self.slots.pop(), RETIRE, time_to_stop(self.config))
            self._log_count()
        return self._advance(now)

    def changed(self, now: float, files: list[str]) -> list[Action]:
        """Stop all workers, and start new ones after they have exited (--reload)."""
        if not self.is_stopping:
            others = f" and {plural(len(files) - 1, 'more file')}" if files[1:] else ""
            self._log(logging.INFO, f"{files[0]}{others} changed; restarting the app")
            for slot in self._all_slots:
                self._vacate(now, slot, STOP, RELOAD)
                slot.state, slot.start_at, slot.failures = SlotState.STOPPING, now, 0
        return self._advance(now)

    def requested(self, now: float, slot: Slot) -> list[Action]:
        """Start a worker for a slot that is WAITING, because a connection waits for it."""
        if slot.state is SlotState.WAITING:
            slot.state = SlotState.EMPTY
        return self._advance(now)

    def stop(self, now: float) -> list[Action]:
        """Stop all workers. A second call shortens the time limit, a third one kills them."""
        self.stops += 1
        if self.stops == 1:
            workers = plural(len(self.slots), "worker")
            text = f"stopping {workers} within {self.config.timeout_graceful_shutdown:g} s"
            self._log(logging.INFO, f"{text}; a second signal exits at once")
            self._actions.append(actions.Notify("stopping"))
            self._stop_all(now, STOP, time_to_stop(self.config))
        elif self.stops == 2:
            self._log(logging.INFO, "stopping at once")
            self._stop_all(now, QUIT, HURRY)
        else:
            self._stop_all(now, QUIT, 0.0)
        return self._advance(now)

    def tick(self, now: float) -> list[Action]:
        """Enforce time limits at the time of `deadline`. Report all earlier events first."""
        for worker in self.workers:
            if now >= worker.kill_at:
                worker.is_killed, worker.kill_at = True, math.inf
                self._log(logging.WARNING, f"{worker} did not stop in time; killing it")
                self._actions.append(actions.Kill(worker))
            elif now >= worker.blocked_at(self.config):
                self._end_blocked(now, worker)
        if now >= self._measure_at:
            self._measure_at = now + MEASURE
            self._actions.append(actions.Measure())
        return self._advance(now)

    def deadline(self) -> float:
        """Return the time of the next `tick`, or infinity."""
        times = [math.inf if self.is_stopping else self._measure_at]
        for worker in self.workers:
            times += [worker.kill_at, worker.blocked_at(self.config)]
        for slot in self._all_slots:
            is_waiting = slot.state is SlotState.BACKING_OFF
            times.append(slot.start_at if is_waiting else self._replacement(slot)[0])
        return min(times)

    # Helpers of the events.

    def _log(self, level: int, text: str) -> None:
        self._actions.append(actions.Log(level, text))

    def _log_count(self) -> None:
        self._log(logging.INFO, f"now running {plural(len(self.slots), 'worker')}")

    def _add_slot(self) -> None:
        if self._has_queues:
            self.queues.numbers.add(len(self.slots))
        self.slots.append(Slot(len(self.slots), f"worker {len(self.slots)}"))

    def _end(self, now: float, worker: Worker, word: str, seconds: float) -> None:
        """Stop a worker, or retire it. seconds: time until it is killed."""
        is_ready = worker.ready_at is not None
        self._actions.append(actions.Tell(worker, word) if is_ready else actions.Terminate(worker))
        worker.state = WorkerState.ENDING
        if not worker.is_killed:
            worker.kill_at = min(worker.kill_at, now + seconds)
        self.ending.add(worker)

    def _vacate(self, now: float, slot: Slot, word: str, seconds: float) -> None:
        for worker in slot.workers:
            self._end(now, worker, word, seconds)
        slot.worker, slot.successor, slot.reason = None, None, ""

    def _stop_all(self, now: float, word: str, seconds: float) -> None:
        for worker in self.ending:
            self._end(now, worker, word, seconds)
        for slot in self._all_slots:
            self._vacate(now, slot, word, seconds)
            slot.state = SlotState.STOPPING
        self._actions.append(actions.Close())

    def _fail(self, now: float, worker: Worker, code: int | None, what: str) -> None:
        """Stop because the first start has failed. The first worker that fails gives the reason."""
        if self._failure is None:
            text = worker.failure or f"{ERROR_PREFIX}{what} before it was ready"
            self._failure = actions.Done(code if code and code > 0 else FAILED, text)
            self._stop_all(now, STOP, MARGIN)

    def _wait(self, slot: Slot, for_requests: bool) -> None:
        slot.state = SlotState.WAITING
        what = "a file change or a request" if for_requests else "a file change"
        self._log(logging.INFO, f"waiting for {what} to restart the app")
        if for_requests:
            self._actions.append(actions.Await(slot))

    def _on_failed_successor(self, slot: Slot, successor: Worker, what: str) -> None:
        assert slot.worker is not None
        if slot.worker.generation >= successor.generation:  # always without a reload
            self._log(logging.ERROR, f"the old one keeps running, because the new {what}")
            return
        # The other replacements would fail in the same way, so the reload ends.
        target, count = self.generation, len(self.slots)
        kept = sum(each.worker.generation < target for each in self.slots if each.worker)
        text = f"reload failed; {kept} of {count} workers keep running the old code: the new {what}"
        self._log(logging.ERROR, text)
        for worker in self.workers:
            worker.generation = target
        self._is_kept = True

    # Actions that follow from the state.

    def _advance(self, now: float) -> list[Action]:
        if not self.is_stopping:
            self._supersede(now)
            self._start_empty(now)
            self._replace_next(now)
            self._finish(now)
            if self.is_started:
                self._actions += self.queues.assign(self.slots)
        elif not (self.ending or self._is_done):
            self._is_done = True
            self._actions.append(self._failure or actions.Done(0, ""))
        new, self._actions = self._actions, []
        return new

    def _can_start(self, slot: Slot) -> bool:
        return slot is self.zygote or self.zygote is None or self.zygote.serving is not None

    def _target(self, slot: Slot) -> int:
        """Return the generation of a worker that would start now, or 0 if none can."""
        if slot is self.zygote or self.zygote is None:
            return self.generation
        return self.zygote.serving.generation if self.zygote.serving is not None else 0

    def _new_worker(self, now: float, slot: Slot) -> Worker:
        worker = Worker(slot, self._target(slot), now)
        self._actions.append(actions.Start(worker))
        return worker

    def _supersede(self, now: float) -> None:
        """End workers that start for an older reload."""
        for slot in self._all_slots:
            if slot.successor is not None and slot.successor.generation < self._target(slot):
                self._end(now, slot.successor, STOP, MARGIN)
                slot.successor, slot.state = None, SlotState.READY
            if slot.state is SlotState.STARTING and self.is_started:
                assert slot.worker is not None
                if slot.worker.generation < self._target(slot):
                    self._vacate(now, slot, STOP, MARGIN)
                    slot.state = SlotState.EMPTY

    def _start_empty(self, now: float) -> None:
        for slot in self._all_slots:
            if slot.state is SlotState.STOPPING and not any(w.slot is slot for w in self.ending):
                slot.state = SlotState.EMPTY
            if slot.state is SlotState.BACKING_OFF and now >= slot.start_at:
                slot.state = SlotState.EMPTY
            if slot.state is SlotState.EMPTY and self._can_start(slot):
                slot.worker, slot.state = self._new_worker(now, slot), SlotState.STARTING

    def _replace_next(self, now: float) -> None:
        """Start the next successor: of the zygote, or of one worker at a time."""
        for slot in self._all_slots:
            due, reason = self._replacement(slot)
            if now >= due:
                self._log(logging.INFO, f"replacing {slot.worker}: {reason}")
                slot.successor, slot.state = self._new_worker(now, slot), SlotState.REPLACING

    def _replacement(self, slot: Slot) -> tuple[float, str]:
        """Return the earliest start of a successor, and the reason; infinity if none is due."""
        worker, lifetime = slot.worker, self.config.worker_lifetime
        if slot.state is not SlotState.READY or not worker or not self._can_start(slot):
            return math.inf, ""
        if slot is not self.zygote and any(s.state is SlotState.REPLACING for s in self.slots):
            return math.inf, ""
        if worker.generation < self._target(slot):
            return slot.start_at, "SIGHUP received"
        if slot.reason:
            return slot.start_at, slot.reason
        if lifetime and slot is not self.zygote:
            reason = f"it has run for {lifetime:g} s (--worker-lifetime)"
            return max(slot.start_at, (worker.ready_at or 0.0) + lifetime), reason
        return math.inf, ""

    def _finish(self, now: float) -> None:
        """Report when the first start, or a reload, is complete."""
        if not all(slot.serving for slot in self.slots):
            return
        if not self.is_started:
            self.is_started = True
            self._measure_at = now if self.config.worker_max_rss else math.inf
            self._actions += [actions.Started(), actions.Notify("ready")]
        workers = [slot.worker for slot in self._all_slots]
        if self.is_reloading and all(w and w.generation == self.generation for w in workers):
            self.is_reloading = False
            if not self._is_kept:
                self._log(logging.INFO, "all workers are replaced")
            self._actions.append(actions.Notify("ready"))

    def _end_blocked(self, now: float, worker: Worker) -> None:
        if worker.state is WorkerState.READY:
            limit = self.config.worker_timeout
            self._log(logging.ERROR, f"the event loop of {worker} was blocked for {limit:g} s")
        else:
            if not worker.pid and self.zygote is not None and self.zygote.worker is not None:
                worker.started_at = now  # it is the zygote that is blocked, before it forks
                worker = self.zygote.worker
            limit = self.config.timeout_start
            text = f"{worker} did not start within {limit:g} s (--timeout-start); ending it"
            self._log(logging.ERROR, text)
        self._actions.append(actions.Terminate(worker))
        worker.kill_at = now + UNBLOCK
