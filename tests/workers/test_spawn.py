"""Processes that can't be started."""

import errno
import os
import signal
import sys

import pytest

from tinyasgi.workers import spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")


def test_signals_after_a_fork_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that is out of processes can still be stopped."""

    def fail() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "fork", fail)
    try:
        with pytest.raises(OSError, match="temporarily"):
            spawn.fork(lambda: 0)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
