"""The thread pool: running, waiting and closing; and wake-ups of an event loop."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from tests.support.helpers import PATIENCE, in_loop
from tests.support.processes import wait_until
from tinyasgi.app.wsgi.threads import LoopWaker, ThreadPool


@pytest.fixture
def pool() -> Iterator[Callable[[int], ThreadPool]]:
    """Make pools, and check that all their threads end."""
    before = set(threading.enumerate())
    pools = []

    def make(max_threads: int) -> ThreadPool:
        pools.append(ThreadPool(max_threads))
        return pools[-1]

    yield make
    for each in pools:
        each.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Task:
    """A job that reports its thread, and ends when `end` is set."""

    def __init__(self) -> None:
        self.began: SimpleQueue[threading.Thread] = SimpleQueue()
        self.end = threading.Event()

    def __call__(self) -> None:
        self.began.put(threading.current_thread())
        assert self.end.wait(PATIENCE)

    @property
    def thread(self) -> threading.Thread:
        return self.began.get(timeout=PATIENCE)


def refuse_to_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_most_recently_used_thread_is_woken_first(pool: Callable[[int], ThreadPool]) -> None:
    threads = pool(3)
    first, second, third = Task(), Task(), Task()
    assert threads.submit(first)
    assert threads.submit(second)
    one, two = first.thread, second.thread
    assert one is not two
    second.end.set()
    wait_until(lambda: len(threads._idle) == 1)
    first.end.set()
    wait_until(lambda: len(threads._idle) == 2)
    assert threads.submit(third)
    assert third.thread is one
    third.end.set()


def test_jobs_wait_in_order(pool: Callable[[int], ThreadPool]) -> None:
    threads = pool(1)
    tasks = [Task() for _ in range(4)]
    assert [threads.submit(task) for task in tasks] == [True, False, False, False]
    assert threads.cancel(tasks[2])
    assert not threads.cancel(tasks[2])
    assert not threads.cancel(tasks[0])
    for task in (tasks[0], tasks[1], tasks[3]):
        assert task.thread.name == "wsgi"
        assert all(later.began.empty() for later in tasks)
        task.end.set()


def test_waiting_jobs_run_before_the_end(pool: Callable[[int], ThreadPool]) -> None:
    threads = pool(1)
    first, second = Task(), Task()
    threads.submit(first)
    threads.submit(second)
    threads.close()
    first.end.set()
    second.end.set()
    thread = second.thread
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_thread_can_be_started(
    pool: Callable[[int], ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = pool(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_to_start)
        with pytest.raises(RuntimeError):
            threads.submit(Task())
    task = Task()
    assert threads.submit(task)
    task.end.set()


def test_another_thread_continues_when_one_blocks(pool: Callable[[int], ThreadPool]) -> None:
    threads = pool(3)
    tasks = [Task() for _ in range(4)]
    assert [threads.submit(task) for task in tasks] == [True, True, True, False]
    assert len({task.thread for task in tasks[:3]}) == 3
    assert tasks[3].began.empty()
    for task in tasks:
        task.end.set()


def test_no_second_thread_can_be_started(
    pool: Callable[[int], ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = pool(2)
    first, waiting, second = Task(), Task(), Task()
    threads.submit(first)
    thread = first.thread
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_to_start)
        assert not threads.submit(waiting)
    assert threads.cancel(waiting)
    threads.submit(second)
    assert second.thread is not thread
    first.end.set()
    second.end.set()


def test_running_threads_take_all_jobs(
    pool: Callable[[int], ThreadPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = pool(2)
    first, second = Task(), Task()
    threads.submit(first)
    thread = first.thread
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    assert not threads.submit(second)
    first.end.set()
    assert second.thread is thread
    second.end.set()


@in_loop
async def test_many_calls_need_one_wake_up() -> None:
    waker, done, called = LoopWaker(asyncio.get_running_loop()), asyncio.Event(), []

    def call() -> None:
        for number in range(100):
            waker.call(lambda number=number: called.append(number))
        waker.call(done.set)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE)  # within one iteration of the event loop
    assert called == []
    assert len(waker.loop._ready) == 1
    await done.wait()
    assert called == list(range(100))


def test_closed_event_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    waker = LoopWaker(loop)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            waker.call(int)
