"""Descriptors that forked children of this process must not keep.

If `multiprocessing` or the app forks a child, the child inherits all descriptors. It would keep the
address in use after the server has exited, and keep connections open that the server has closed.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

_withheld: list[Callable[[], Iterable[int]]] = []
_keeps = False


@contextmanager
def withheld(descriptors: Callable[[], Iterable[int]]) -> Iterator[None]:
    """In children that are forked in the block, replace these descriptors by /dev/null."""
    _withheld.append(descriptors)
    try:
        yield
    finally:
        _withheld.remove(descriptors)


@contextmanager
def keeping() -> Iterator[None]:
    """Let children that are forked in the block keep all descriptors. Their children do not."""
    global _keeps
    _keeps = True
    try:
        yield
    finally:
        _keeps = False


def _after_fork() -> None:
    global _keeps
    if _keeps:
        _keeps = False  # the child runs in the block of its parent, and may never leave it
        return
    numbers: list[int] = []
    for descriptors in _withheld:
        with suppress(Exception):  # the fork may interrupt a change by another thread
            numbers += [number for number in descriptors() if number >= 0]
    _withheld.clear()
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        # Not closed: the next file that is opened would get a closed number. An object that still
        # has the number would then close that file.
        for number in numbers:
            os.dup2(null, number, inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
