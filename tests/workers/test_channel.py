"""Messages between a supervisor and a worker: whole or not at all, and never a wait."""

import os
import select
import socket
from collections.abc import Iterator

import pytest

from tinyasgi.workers.channel import Channel, Message

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="needs unix sockets")


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def exchange(sender: Channel, receiver: Channel) -> list[Message]:
    """Flush and receive until nothing is left."""
    found = receiver.receive()
    while sender.is_blocked or select.select([receiver], [], [], 0)[0]:
        sender.flush()
        found += receiver.receive()
    return found


def test_messages(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    texts = ["", "one two", "line\nline", "ü€\udcff", "x" * 10_000]
    for text in texts:
        sender.send("word", text)
    assert receiver.receive() == [Message("word", text, []) for text in texts]
    assert receiver.receive() == []
    sender.close()
    with pytest.raises(EOFError):
        receiver.receive()


def test_large_messages_are_complete(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    texts = [str(number) * 300_000 for number in range(5)]
    for text in texts:
        sender.send("files", text)
    assert sender.is_blocked
    assert [message.text for message in exchange(sender, receiver)] == texts


def test_a_reader_that_stands_still_blocks_nobody(ends: tuple[Channel, Channel]) -> None:
    """What it gets in the end is whole messages, from the first one on."""
    sender, receiver = ends
    for number in range(1000):
        sender.send("files", f"{number} {'x' * 100_000}")
    found = exchange(sender, receiver)
    assert 10 < len(found) < 1000
    assert [message.text.split()[0] for message in found] == [str(n) for n in range(len(found))]
    assert {len(message.text.split()[1]) for message in found} == {100_000}


@pytest.mark.parametrize("count", [1, 16, 17, 200, 201, 900])
@pytest.mark.parametrize("blocked", [False, True])
def test_any_number_of_descriptors(
    count: int, blocked: bool, ends: tuple[Channel, Channel]
) -> None:
    sender, receiver = ends
    before = len(os.listdir("/proc/self/fd"))
    if blocked:
        while not sender.is_blocked:
            sender.send("beat", "x" * 10_000)
    sender.send("share", "1", [0] * count)
    sender.send("share", "2", [0])
    found = [each for each in exchange(sender, receiver) if each.word == "share"]
    assert [(each.text, len(each.descriptors)) for each in found] == [("1", count), ("2", 1)]
    for message in found:
        for number in message.descriptors:
            assert os.path.samestat(os.fstat(number), os.fstat(0))
            assert not os.get_inheritable(number)
            os.close(number)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("count", [3, 450])
@pytest.mark.parametrize("free", [0, 1])
def test_no_free_descriptors(free: int, count: int, ends: tuple[Channel, Channel]) -> None:
    """The channel goes on. The message says that its descriptors are lost."""
    sender, receiver = ends
    before = len(os.listdir("/proc/self/fd"))
    sender.send("reopen")
    sender.send("share", "1", [0] * count)
    sender.send("share", "2", [0] * free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        found = exchange(sender, receiver)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number in found[2].descriptors:
        os.close(number)
    assert [(each.word, each.text, each.is_complete) for each in found] == [
        ("reopen", "", True),
        ("share", "1", False),
        ("share", "2", True),
    ]
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_other_end_is_gone(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    receiver.send("last")
    receiver.close()
    sender.send("beat")
    assert sender.rest() == [Message("last", "", [])]
    with pytest.raises(EOFError):
        sender.receive()


def test_drain(ends: tuple[Channel, Channel]) -> None:
    """The end of a process waits for its last words, but not for long."""
    sender, receiver = ends
    while not sender.is_blocked:
        sender.send("failed", "x" * 10_000)
    sender.drain(0.01)
    assert sender.is_blocked
    receiver.receive()
    sender.drain(10)
    assert not sender.is_blocked
