"""Listeners of slots."""

import errno
import os
import selectors
import socket
from typing import Any

import pytest

from tinyasgi import Config
from tinyasgi.net import listen
from tinyasgi.workers.listeners import Listeners


def test_queue_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made of it is closed, and a later attempt makes all of it."""
    made: list[socket.socket] = []

    def clone(sock: Any) -> socket.socket:
        if len(made) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(listen, "has_own_queue", lambda sock: True)
    monkeypatch.setattr(listen, "clone", clone)
    monkeypatch.setattr(listen, "listen", lambda sock, config: None)
    with selectors.DefaultSelector() as selector, socket.socket() as one, socket.socket() as other:
        listeners = Listeners(Config(), [one, other], selector)
        with pytest.raises(OSError, match="Too many open files"):
            listeners.of(1)
        assert made[0].fileno() < 0
        assert listeners.queue(1) == []
        made.append(socket.socket())
        assert len(listeners.of(1)) == 2
        assert all(sock.fileno() >= 0 for sock in listeners.queue(1))
        made[1].close()
        listeners.close()
