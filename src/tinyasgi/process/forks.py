"""Descriptors that forked children of this process must not keep.

A child that `multiprocessing` or the app forks inherits them: it would keep an address in use when
the server is gone, and connections open that the server has closed.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

_withheld: list[Callable[[], Iterable[int]]] = []
_keeps = False


@contextmanager
def withheld(descriptors: Callable[[], Iterable[int]]) -> Iterator[None]:
    """While in the block, a forked child has /dev/null in the place of these descriptors."""
    _withheld.append(descriptors)
    try:
        yield
    finally:
        _withheld.remove(descriptors)


@contextmanager
def keeping() -> Iterator[None]:
    """A child that is forked in the block keeps them. Its own children do not."""
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
        with suppress(Exception):  # another thread may have been about to change them
            numbers += [number for number in descriptors() if number >= 0]
    _withheld.clear()
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        # Not closed: a number that is free would be taken by another file, and objects of this
        # process that still have it would close that.
        for number in numbers:
            os.dup2(null, number, inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
