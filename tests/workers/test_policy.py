"""The policy of the supervisor: no process is started, and time is virtual."""

import itertools
import logging
import math
import os
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tinyasgi import Config
from tinyasgi.workers import actions, limits
from tinyasgi.workers.channel import QUIT, RETIRE, STOP
from tinyasgi.workers.policy import Policy
from tinyasgi.workers.slot import BACK_OFF, SlotState, Worker, WorkerState, describe_exit

S = SlotState
#: `make trials` says 20.
TRIALS = int(os.environ.get("TRIALS", "2"))


class World:
    """Stands for the processes: performs the actions of a policy, and keeps the time."""

    def __init__(self, has_queues: bool = True, **options: Any) -> None:
        self.policy = Policy(Config(**options), has_queues)
        self.now = 1000.0
        self.pids = iter(range(1, 1_000_000))
        self.alive: list[Worker] = []
        self.told: dict[Worker, list[str]] = {}
        self.shares: dict[Worker, set[int]] = {}
        self.log: list[str] = []
        self.notices: list[str] = []
        self.starts: list[tuple[float, Worker]] = []
        self.awaited: set[int] = set()
        self.measures = 0
        self.done: tuple[int, str] | None = None
        self.closed = False
        self.asked_at = 0.0
        """The last time at which something asked for starts."""

    def do(self, event: str, *arguments: Any) -> list[Any]:
        if event not in ("exited", "failed_to_start", "tick", "alive"):
            self.asked_at = self.now
        actions = getattr(self.policy, event)(self.now, *arguments)
        for action in actions:
            self.perform(action)
        return list(actions)

    def perform(self, action: Any) -> None:
        match action:
            case actions.Start(worker):
                assert self.done is None
                worker.pid = next(self.pids)
                self.alive.append(worker)
                self.told[worker], self.shares[worker] = [], {worker.slot.index}
                self.starts.append((self.now, worker))
                self.awaited.discard(worker.slot.index)
            case actions.Tell(worker, word):
                assert worker in self.alive
                assert worker.ready_at is not None
                self.told[worker].append(word)
            case actions.Terminate(worker):
                self.told[worker].append("TERM")
            case actions.Kill(worker):
                self.told[worker].append("KILL")
            case actions.Share(worker, queue):
                assert worker.slot.serving is worker
                assert queue not in self.shares[worker]
                self.shares[worker].add(queue)
            case actions.Unshare(worker, queue):
                self.shares[worker].remove(queue)
            case actions.Await(slot):
                self.awaited.add(slot.index)
            case actions.Measure():
                self.measures += 1
            case actions.Started():
                self.log.append("started")
            case actions.Notify(state):
                self.notices.append(state)
            case actions.Log(level, text):
                if level > logging.DEBUG:
                    self.log.append(text)
            case actions.Close():
                self.closed = True
            case actions.Done(code, text):
                assert self.done is None
                self.done = code, text
            case _:
                raise AssertionError(action)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the policy asks for one."""
        end = self.now + seconds
        while (due := self.policy.deadline()) <= end and self.done is None:
            self.now = max(self.now, due)
            self.do("tick")
            assert self.policy.deadline() > self.now, "the supervisor would spin"
        self.now = end

    def ready(self, *workers: Worker) -> None:
        for worker in workers:
            self.do("ready", worker)

    def exit(self, worker: Worker, code: int | None = 0) -> None:
        self.alive.remove(worker)
        self.do("exited", worker, code)

    def starting(self) -> list[Worker]:
        return [worker for worker in self.alive if worker.state is WorkerState.STARTING]

    def serving(self) -> list[Worker]:
        return [slot.serving for slot in self.policy.slots if slot.serving is not None]

    @property
    def states(self) -> list[SlotState]:
        return [slot.state for slot in self.policy.slots]


def started(**options: Any) -> World:
    """A world in which all workers are ready, and have been for a while."""
    world = World(**options)
    world.do("start")
    while world.starting():
        world.ready(*world.starting())
    world.pass_time(2)
    return world


# Start.


def test_start() -> None:
    world = World(workers=3)
    world.do("start")
    assert [str(worker) for worker in world.alive] == [
        f"worker {n} (pid {n + 1})" for n in range(3)
    ]
    assert world.states == [S.STARTING] * 3
    world.ready(*world.alive[:2])
    assert world.log == world.notices == []
    world.ready(world.alive[2])
    assert world.log == ["started"]
    assert world.notices == ["ready"]
    assert world.states == [S.READY] * 3


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (9, 9), (-9, 3), (0, 3), (None, 3)])
def test_first_start_that_fails(code: int | None, expected: int) -> None:
    """One worker gives the reason; the others are terminated, and killed if they do not end."""
    world = World(workers=3)
    world.do("start")
    first, second, third = world.alive
    world.exit(first, code)
    assert world.told[second] == world.told[third] == ["TERM"]
    second.failure = "another reason"
    world.exit(second, 7)
    assert world.done is None
    world.pass_time(limits.MARGIN)
    assert world.told[third] == ["TERM", "KILL"]
    world.exit(third, -9)
    what = describe_exit(code)
    text = f"tinyasgi: error: worker 0 (pid 1) {what} before it was ready"
    assert world.done == (expected, text)


def test_reason_of_a_first_start_that_fails() -> None:
    world = World(workers=1)
    world.do("start")
    world.alive[0].failure = "Traceback …"
    world.exit(world.alive[0], 3)
    assert world.done == (3, "Traceback …")


def test_start_that_takes_too_long() -> None:
    world = World(workers=2, timeout_start=60.0)
    world.do("start")
    world.ready(world.alive[0])
    world.pass_time(60)
    worker = world.alive[1]
    assert world.told[worker] == ["TERM"]
    assert world.log == ["worker 1 (pid 2) did not start within 60 s (--timeout-start); ending it"]
    world.pass_time(limits.UNBLOCK)
    assert world.told[worker] == ["TERM", "KILL"]
    world.exit(worker, -9)
    world.exit(world.alive[0])
    assert world.done is not None
    assert world.done[0] == 3


def test_no_process_can_be_made() -> None:
    """The slots back off, and the reason is logged once."""
    world = started(workers=2, timeout_start=0.0)
    for worker in world.alive.copy():
        world.exit(worker, -9)
    for _ in range(8):
        for worker in world.starting():
            world.alive.remove(worker)
            world.do("failed_to_start", worker, "no memory")
        while not world.starting():
            world.pass_time(world.policy.deadline() - world.now)
    assert world.log[3:] == ["can't start worker 0, will try again: no memory"]
    times = [at for at, worker in world.starts[2:] if worker.slot.index == 0]
    assert [b - a for a, b in itertools.pairwise(times)] == [*BACK_OFF[1:], BACK_OFF[-1]]
    world.ready(*world.alive)
    world.pass_time(2)
    world.exit(world.alive[0], -9)
    (worker,) = world.starting()
    world.alive.remove(worker)
    world.do("failed_to_start", worker, "no memory")
    assert world.log[-1] == "can't start worker 0, will try again: no memory"


# Failures.


def test_worker_that_dies_is_replaced_at_once() -> None:
    world = started(workers=2)
    world.exit(world.alive[1], -9)
    assert world.log[1:] == ["worker 1 (pid 2) was killed by SIGKILL, maybe out of memory"]
    assert world.states == [S.READY, S.STARTING]
    world.ready(*world.starting())
    assert world.log[2:] == ["worker 1 (pid 3) is ready"]


def test_crash_loop_backs_off() -> None:
    world = started(workers=2)
    world.exit(world.alive[1], -9)
    begun = world.now
    for _ in range(12):
        (worker,) = world.starting()
        world.pass_time(0.5)
        world.exit(worker, 3)
        while not world.starting():
            world.pass_time(world.policy.deadline() - world.now)
    times = [at for at, _ in world.starts[2:]]
    assert times[0] == begun
    pauses = [b - a - 0.5 for a, b in itertools.pairwise(times)]
    assert pauses == [0.0, *BACK_OFF[2:], *[BACK_OFF[-1]] * 5]


def test_queue_of_a_slot_without_a_worker() -> None:
    """Another worker accepts from it, until the slot has a worker again."""
    world = started(workers=2)
    helper, failing = world.alive
    world.exit(failing, -9)
    assert world.states == [S.READY, S.STARTING]
    assert world.shares[helper] == {0, 1}
    world.exit(world.starting()[0], 3)
    world.exit(world.starting()[0], 3)
    assert world.states == [S.READY, S.BACKING_OFF]
    assert world.shares[helper] == {0, 1}
    world.pass_time(2)
    world.ready(*world.starting())
    assert world.shares[helper] == {0}


def test_queue_moves_on_with_the_helper() -> None:
    world = started(workers=2)
    world.do("shrink")
    (helper,) = world.serving()
    assert world.shares[helper] == {0, 1}
    world.do("reload")
    world.ready(*world.starting())
    (helper,) = world.serving()
    assert world.shares[helper] == {0, 1}
    world.do("grow")
    world.ready(*world.starting())
    assert [world.shares[worker] for worker in world.serving()] == [{0}, {1}]


def test_a_shared_queue_needs_no_helper() -> None:
    world = started(has_queues=False, workers=2)
    world.do("shrink")
    assert [world.shares[worker] for worker in world.serving()] == [{0}]


def test_blocked_event_loop() -> None:
    world = started(workers=1, worker_timeout=5.0)
    (worker,) = world.alive
    for _ in range(10):
        world.do("alive", worker)
        world.pass_time(5)
    assert world.told[worker] == []
    world.pass_time(1)
    assert world.told[worker] == ["TERM"]
    assert world.log[1:] == ["the event loop of worker 0 (pid 1) was blocked for 5 s"]
    world.do("alive", worker)  # it runs again in time
    world.pass_time(5)
    assert world.told[worker] == ["TERM"]
    world.pass_time(1 + limits.UNBLOCK)
    assert world.told[worker] == ["TERM", "TERM", "KILL"]
    world.exit(worker, -9)
    world.ready(*world.starting())
    assert world.states == [S.READY]


def test_supervisor_that_was_stopped_ends_nobody() -> None:
    """Signs of life that came meanwhile are reported before time limits apply."""
    world = started(workers=2, worker_timeout=5.0)
    world.now += 100
    for worker in world.alive:
        world.do("alive", worker)
    world.do("tick")
    assert [world.told[worker] for worker in world.alive] == [[], []]


# Replacement.


def test_reload() -> None:
    """One worker at a time; the old one retires when its successor is ready."""
    world = started(workers=2)
    first, second = world.alive
    world.do("reload")
    assert world.notices == ["ready", "reloading"]
    assert world.states == [S.REPLACING, S.READY]
    (new,) = world.starting()
    world.ready(new)
    assert world.told[first] == [RETIRE]
    assert world.told[second] == []
    assert world.states == [S.READY, S.REPLACING]
    world.ready(*world.starting())
    assert world.told[second] == [RETIRE]
    assert world.log[1:] == [
        "replacing the workers",
        "replacing worker 0 (pid 1): SIGHUP received",
        "worker 0 (pid 3) is ready and has replaced pid 1",
        "replacing worker 1 (pid 2): SIGHUP received",
        "worker 1 (pid 4) is ready and has replaced pid 2",
        "all workers are replaced",
    ]
    assert world.notices == ["ready", "reloading", "ready"]
    world.exit(first)
    world.pass_time(limits.time_to_stop(Config()))
    assert world.told[second] == [RETIRE, "KILL"]
    assert world.log[-1] == "worker 1 (pid 2) did not stop in time; killing it"


def test_newer_reload_supersedes_an_older_one() -> None:
    """Also when a successor hangs in its import."""
    world = started(workers=2)
    world.do("reload")
    (hanging,) = world.starting()
    world.do("reload")
    assert world.told[hanging] == ["TERM"]
    (new,) = world.starting()
    assert new.generation == 2
    world.pass_time(limits.MARGIN)
    assert world.told[hanging] == ["TERM", "KILL"]
    world.exit(hanging, -9)
    world.ready(new)
    world.ready(*world.starting())
    assert world.log[-1] == "all workers are replaced"
    assert {worker.generation for worker in world.serving()} == {2}


def test_reload_that_fails() -> None:
    """The workers stay, it is logged once, and a later reload starts afresh."""
    world = started(workers=3)
    old = world.alive.copy()
    world.do("reload")
    world.ready(*world.starting())
    (failing,) = world.starting()
    failing.failure = "ValueError"
    world.exit(failing, 3)
    assert world.log[-1] == (
        "reload failed; 2 of 3 workers keep running the old code:"
        " the new worker 1 (pid 5) exited with code 3:\nValueError"
    )
    assert world.notices[-2:] == ["reloading", "ready"]
    world.pass_time(1000)
    assert world.serving()[1:] == old[1:]
    world.do("reload")
    for _ in range(3):
        world.ready(*world.starting())
    assert world.log[-1] == "all workers are replaced"


def test_old_worker_dies_while_its_successor_starts() -> None:
    world = started(workers=1)
    (old,) = world.alive
    world.do("reload")
    world.exit(old, -9)
    assert world.states == [S.STARTING]
    world.ready(*world.starting())
    assert world.states == [S.READY]
    assert len(world.starts) == 2


@pytest.mark.parametrize(
    ("options", "event", "reason"),
    [
        ({}, "asked_for_replacement", "it received SIGTERM or reached --limit-max-requests"),
        ({"worker_lifetime": 60.0}, "", "it has run for 60 s (--worker-lifetime)"),
        ({"worker_max_rss": 100}, "measured", "it uses 100 MiB of memory (--worker-max-rss)"),
    ],
)
def test_reasons(options: Any, event: str, reason: str) -> None:
    world = started(workers=1, **options)
    (old,) = world.alive
    if event:
        world.do(event, old, *[100] * (event == "measured"))
    world.pass_time(60)
    assert world.log[1:] == [f"replacing worker 0 (pid 1): {reason}"]
    (new,) = world.starting()
    world.exit(new, 3)
    failure = "the old one keeps running, because the new worker 0 (pid 2) exited"
    assert world.log[-2].startswith(failure)
    assert world.states == [S.REPLACING]  # it is tried again
    world.ready(*world.starting())
    assert world.told[old] == [RETIRE]
    assert bool(world.measures) == ("worker_max_rss" in options)


def test_worker_that_ends_asks_for_nothing_more() -> None:
    world = started(workers=1)
    (old,) = world.alive
    world.do("reload")
    world.ready(*world.starting())
    world.do("asked_for_replacement", old)
    assert world.told[old] == [RETIRE, STOP]
    assert world.states == [S.READY]


# Preloading.


def test_preload() -> None:
    world = World(workers=2, preload=True)
    world.do("start")
    (zygote,) = world.alive
    assert str(zygote) == "zygote (pid 1)"
    assert world.states == [S.EMPTY] * 2
    world.ready(zygote)
    assert world.states == [S.STARTING] * 2
    world.ready(*world.starting())
    assert world.log == ["started"]


def test_reload_with_a_zygote() -> None:
    world = started(workers=2, preload=True)
    zygote, first, second = world.alive
    world.do("reload")
    (new,) = world.starting()
    assert new.slot is world.policy.zygote
    assert world.states == [S.READY] * 2
    world.ready(new)
    assert world.told[zygote] == [RETIRE]
    world.ready(*world.starting())
    world.ready(*world.starting())
    assert world.told[first] == world.told[second] == [RETIRE]
    assert world.log[-1] == "all workers are replaced"


@pytest.mark.parametrize("how", ["exits", "hangs", "is killed"])
def test_reload_with_a_zygote_that_fails(how: str) -> None:
    world = started(workers=2, preload=True, timeout_start=60.0)
    before = world.alive.copy()
    world.do("reload")
    (new,) = world.starting()
    if how == "hangs":
        world.pass_time(60)
        assert world.told[new] == ["TERM"]
    world.exit(new, {"exits": 3, "hangs": -15, "is killed": -9}[how])
    assert world.log[-1].startswith("reload failed; 2 of 2 workers keep running the old code: the")
    assert world.alive == before
    assert world.notices[-1] == "ready"
    world.exit(before[1], -9)
    world.ready(*world.starting())  # forked from the old zygote
    assert world.states == [S.READY] * 2


def test_zygote_that_dies() -> None:
    """Workers stay. It is started again, later each time if it keeps failing."""
    world = started(workers=2, preload=True)
    zygote, first, second = world.alive
    world.exit(zygote, -9)
    (new,) = world.starting()
    world.exit(first, -9)
    assert world.states == [S.EMPTY, S.READY]
    assert world.shares[second] == {0, 1}
    world.exit(new, 3)
    world.exit(world.starting()[0], 3)
    assert world.starting() == []
    world.pass_time(1)
    world.ready(*world.starting())
    world.ready(*world.starting())
    assert world.states == [S.READY] * 2
    assert world.shares[second] == {1}


def test_zygote_that_dies_after_a_fork() -> None:
    """The worker that it has forked goes on starting."""
    world = started(workers=1, preload=True)
    zygote, worker = world.alive
    world.exit(worker, -9)
    (new,) = world.starting()
    world.exit(zygote, -9)
    assert world.told[new] == []
    assert new in world.starting()
    world.ready(*world.starting())
    assert world.states == [S.READY]


def test_zygote_that_does_not_fork() -> None:
    """As after SIGSTOP: it is ended, not the worker that does not exist."""
    world = started(workers=1, preload=True, timeout_start=60.0)
    zygote, worker = world.alive
    world.exit(worker, -9)
    (new,) = world.starting()
    new.pid = 0
    world.pass_time(60)
    assert world.told[zygote] == ["TERM"]
    assert world.told[new] == []


# Reload on changes.


def test_change() -> None:
    world = started(workers=2, reload=True)
    world.do("changed", ["app.py", "b.py"])
    assert world.log[1:] == ["app.py and 1 more file changed; restarting the app"]
    assert world.states == [S.STOPPING] * 2
    first, second = world.alive
    world.exit(first)
    assert world.states == [S.STARTING, S.STOPPING]
    world.pass_time(limits.RELOAD)
    assert world.told[second] == [STOP, "KILL"]
    world.exit(second, -9)
    world.ready(*world.starting())
    assert world.states == [S.READY] * 2


def test_change_with_a_zygote() -> None:
    world = started(workers=1, reload=True, preload=True)
    before = world.alive.copy()
    world.do("changed", ["app.py", "b.py", "c.py"])
    assert world.log[1:] == ["app.py and 2 more files changed; restarting the app"]
    assert [world.told[worker] for worker in before] == [[STOP], [STOP]]
    world.exit(before[1])
    assert world.starting() == []
    world.exit(before[0])
    world.ready(*world.starting())
    world.ready(*world.starting())
    assert world.states == [S.READY]


def test_change_of_one_file() -> None:
    world = started(workers=1, reload=True)
    world.do("changed", ["app.py"])
    assert world.log[1:] == ["app.py changed; restarting the app"]


def test_change_forgets_earlier_failures() -> None:
    world = started(workers=1, reload=True, preload=True)
    before = world.alive.copy()
    world.do("changed", ["app.py"])
    for worker in before:
        world.exit(worker)
    world.ready(*world.starting())
    world.ready(*world.starting())
    zygote = world.policy.zygote
    assert zygote is not None and zygote.worker is not None
    world.exit(zygote.worker, -9)
    assert zygote.start_at == world.now + BACK_OFF[1]


def test_crash_of_a_zygote_waits_for_nothing() -> None:
    world = started(workers=1, reload=True, preload=True)
    zygote, worker = world.alive
    world.exit(zygote, -9)
    world.exit(worker, -9)
    world.do("requested", world.policy.slots[0])
    world.ready(*world.starting())
    world.ready(*world.starting())
    assert world.states == [S.READY]


def test_error_waits_for_a_change() -> None:
    world = World(workers=1, reload=True)
    world.do("start")
    world.exit(world.alive[0], 3)
    assert world.states == [S.WAITING]
    assert world.log[-1] == "waiting for a file change to restart the app"
    assert world.awaited == set()
    world.do("changed", ["app.py"])
    world.ready(*world.starting())
    assert world.states == [S.READY]


@pytest.mark.parametrize("event", ["requested", "changed", "reload"])
def test_crash_waits_for_a_change_or_a_request(event: str) -> None:
    world = started(workers=1, reload=True)
    world.exit(world.alive[0], -9)
    assert world.states == [S.WAITING]
    assert world.awaited == {0}
    slot = world.policy.slots[0]
    world.do(event, *{"requested": [slot], "changed": [["app.py"]]}.get(event, []))
    assert world.states == [S.STARTING]
    assert world.awaited == set()


def test_wrong_option_is_not_waited_for() -> None:
    world = World(workers=1, reload=True)
    world.do("start")
    world.exit(world.alive[0], 2)
    assert world.done is not None
    assert world.done[0] == 2


# Stop.


def test_stop() -> None:
    world = started(workers=2)
    world.do("stop")
    assert world.closed
    assert world.notices[-1] == "stopping"
    assert world.log[-1] == "stopping 2 workers within 25 s; a second signal exits at once"
    first, second = world.alive
    world.do("stop")
    world.do("stop")
    world.do("tick")
    assert world.told[first] == [STOP, QUIT, QUIT, "KILL"]
    world.exit(first)
    assert world.done is None
    world.exit(second)
    assert world.done == (0, "")


@pytest.mark.parametrize("other", ["reload", "grow", "shrink"])
@pytest.mark.parametrize("stop_first", [True, False])
def test_a_stop_wins(other: str, stop_first: bool) -> None:
    """Whichever of two signals is read first."""
    world = started(workers=2, preload=True)
    for event in ["stop", other] if stop_first else [other, "stop"]:
        world.do(event)
    for worker in world.alive.copy():
        world.exit(worker)
    assert world.done == (0, "")


def test_stop_while_workers_become_ready() -> None:
    """READY and a stop may be read in the same iteration."""
    for order in (("ready", "stop"), ("stop", "ready")):
        world = World(workers=1)
        world.do("start")
        (worker,) = world.alive
        for event in order:
            world.do(event, *[worker] * (event == "ready"))
        assert STOP in world.told[worker]
        world.exit(worker)
        assert world.done == (0, "")


# Everything together.


class Anything(RuleBasedStateMachine):
    """Events in any order, and what must hold after each."""

    options: ClassVar[Any] = {}

    @initialize(workers=st.integers(1, 3), queues=st.booleans(), ready=st.booleans())
    def begin(self, workers: int, queues: bool, ready: bool) -> None:
        self.world = World(queues, workers=workers, **self.options)
        self.world.do("start")
        while ready and self.world.starting():
            self.world.ready(*self.world.starting())
        self.capacity = 0
        self.stopped_at = math.inf

    # Events.

    def choose(self, data: Any, workers: list[Worker]) -> Worker:
        return workers[data.draw(st.integers(0, len(workers) - 1))]

    @precondition(lambda self: self.world.starting())
    @rule(data=st.data())
    def become_ready(self, data: Any) -> None:
        self.world.ready(self.choose(data, self.world.starting()))

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 2, 3, -9, -15, None]))
    def exit(self, data: Any, code: int | None) -> None:
        worker = self.choose(data, self.world.alive)
        was_serving = worker in self.world.serving()
        self.world.exit(worker, code)
        self.capacity -= was_serving

    @rule()
    def crash_again_and_again(self) -> None:
        """All that starts exits at once."""
        for _ in range(5):
            for worker in self.world.starting():
                if self.world.policy.is_started and worker in self.world.alive:
                    self.world.exit(worker, 3)

    @precondition(lambda self: self.world.starting())
    @rule(data=st.data())
    def fail_to_start(self, data: Any) -> None:
        worker = self.choose(data, self.world.starting())
        self.world.alive.remove(worker)
        self.world.do("failed_to_start", worker, "no memory")

    @precondition(lambda self: self.world.serving())
    @rule(data=st.data(), event=st.sampled_from(["alive", "asked_for_replacement", "measured"]))
    def say(self, data: Any, event: str) -> None:
        ready = [worker for worker in self.world.alive if worker.ready_at is not None]
        self.world.do(event, self.choose(data, ready), *[100] * (event == "measured"))

    @rule()
    def reload(self) -> None:
        self.world.do("reload")

    @rule()
    def grow(self) -> None:
        self.world.do("grow")

    @rule()
    def shrink(self) -> None:
        if len(self.world.policy.slots) > 1:
            slot = self.world.policy.slots[-1]
            self.capacity -= slot.serving is not None
        self.world.do("shrink")

    @rule()
    def change(self) -> None:
        if self.world.policy.config.reload:
            self.world.do("changed", ["app.py"])
            self.capacity = 0

    @rule()
    def request(self) -> None:
        for slot in self.world.policy.slots:
            if slot.index in self.world.awaited:
                self.world.awaited.discard(slot.index)
                self.world.do("requested", slot)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 30.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Each worker that is ready sends signs of life meanwhile."""
        for _ in range(int(seconds) // 3 + 1):
            self.world.pass_time(min(seconds, 3.0))
            for worker in self.world.alive:
                if worker.ready_at is not None and self.world.done is None:
                    self.world.do("alive", worker)

    @precondition(lambda self: self.world.policy.is_started)
    @rule()
    def stop(self) -> None:
        if self.stopped_at == math.inf:
            self.stopped_at = self.world.now
        self.world.do("stop")

    # Invariants.

    @invariant()
    def slots_are_consistent(self) -> None:
        found = self.world.policy
        for slot in found._all_slots:
            has = slot.worker is not None, slot.successor is not None
            expected = {
                S.STARTING: (True, False),
                S.READY: (True, False),
                S.REPLACING: (True, True),
            }.get(slot.state, (False, False))
            assert has == expected, slot
            if slot.worker is not None:
                assert (slot.worker.ready_at is not None) == (slot.serving is not None)
        placed = [worker for slot in found._all_slots for worker in slot.workers]
        assert not found.ending & set(placed)
        assert sorted(map(id, found.workers)) == sorted(map(id, self.world.alive))
        assert [slot.index for slot in found.slots] == list(range(len(found.slots)))

    @invariant()
    def no_replacement_costs_capacity(self) -> None:
        """There are never fewer serving workers but for exits, TTOU, changes and stops."""
        serving = len(self.world.serving())
        if self.world.policy.is_stopping:
            return
        assert serving >= self.capacity
        self.capacity = serving

    @invariant()
    def every_queue_has_an_acceptor(self) -> None:
        """As long as any worker serves; a slot that waits for an event keeps its connections."""
        found = self.world.policy
        if found.is_stopping:
            return
        serving = self.world.serving()
        assert all(worker in serving for worker in found.queues.helpers.values())
        slots = {slot.index: slot for slot in found.slots}
        for queue in found.queues.numbers:
            slot = slots.get(queue)
            acceptors = [worker for worker in serving if queue in self.world.shares[worker]]
            if not serving or not found.is_started:
                continue
            waits = slot is not None and slot.state in (S.WAITING, S.STOPPING)
            assert len(acceptors) == (0 if waits else 1), (queue, found.slots, found.queues.helpers)

    @invariant()
    def something_is_in_progress(self) -> None:
        """No slot waits for nothing."""
        found = self.world.policy
        if found.is_stopping:
            return
        for slot in found._all_slots:
            if slot.state is S.BACKING_OFF:
                assert self.world.now < slot.start_at < math.inf
                assert found.deadline() <= slot.start_at
            elif slot.state is S.EMPTY:
                assert found.zygote is not None
                assert found.zygote.serving is None
            elif slot.state is S.STOPPING:
                assert any(worker.slot is slot for worker in found.ending)
            elif slot.state is S.WAITING:
                assert found.config.reload

    @invariant()
    def the_newest_reload_counts(self) -> None:
        """Whatever starts has the newest code that there is."""
        found = self.world.policy
        if found.is_started and not found.is_stopping:
            for worker in self.world.starting():
                # The target is 0 if the zygote has exited since it forked the worker.
                assert found._target(worker.slot) in (0, worker.generation)

    @invariant()
    def no_crash_loop_is_faster_than_its_back_off(self) -> None:
        world = self.world
        since = max(world.now - 0.99, world.asked_at + 0.01)
        recent = [str(worker.slot.name) for at, worker in world.starts if at >= since]
        assert max(map(recent.count, recent), default=0) <= 3

    @invariant()
    def a_stop_keeps_its_bound(self) -> None:
        world = self.world
        if world.now > self.stopped_at + limits.time_to_stop(world.policy.config):
            assert all("KILL" in world.told[worker] for worker in world.alive)
        if world.policy.is_stopping:
            assert (world.done is not None) == (not world.alive)
            assert len(world.starts) == self.starts
        self.starts = len(world.starts)

    def teardown(self) -> None:
        """From any state: a stop ends everything, in its time."""
        if not hasattr(self, "world"):
            return
        world = self.world
        if world.done is None and not world.policy.is_stopping:
            world.do("stop")
        world.pass_time(limits.time_to_stop(world.policy.config))
        for worker in world.alive.copy():
            assert "KILL" in world.told[worker]
            world.exit(worker, -9)
        assert world.done is not None
        assert world.policy.workers == []


LIMITS = {"worker_lifetime": 50.0, "worker_max_rss": 100, "worker_timeout": 5.0}
MACHINES = {
    "spawned": {},
    "forked": {"preload": True},
    "limits": {**LIMITS, "timeout_start": 20.0},
    "forked_with_limits": {**LIMITS, "timeout_start": 20.0, "preload": True},
    "changes": {"reload": True},
    "changes_with_a_zygote": {"reload": True, "preload": True},
}


@pytest.mark.parametrize("name", MACHINES)
def test_anything(name: str) -> None:
    machine = type(name, (Anything,), {"options": MACHINES[name]})
    machine.TestCase.settings = settings(
        max_examples=10 * TRIALS,
        stateful_step_count=40,
        derandomize=TRIALS == 2,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case = machine.TestCase()
    case.runTest()
