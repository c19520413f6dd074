"""Listeners of the workers."""

import selectors
import socket
from collections.abc import Callable

from ..config.config import Config
from ..net import listen
from .slot import Slot


class Listeners:
    """The listeners of each slot.

    For TCP on Linux, each slot has its own listeners, and the kernel distributes the connections
    (SO_REUSEPORT). They stay open until the end, even if the slot is removed, because closing a
    listener would reset the connections in its queue. All workers share the other listeners.
    """

    def __init__(
        self, config: Config, sockets: list[socket.socket], selector: selectors.BaseSelector
    ) -> None:
        """sockets: bound, one for each address."""
        self._config = config
        self._selector = selector
        self.awaiting: set[Slot] = set()
        """Slots that have no worker until a connection waits for one of them."""
        self._queues = {0: [sock for sock in sockets if listen.has_own_queue(sock)]}
        self._shared = [sock for sock in sockets if not listen.has_own_queue(sock)]

    @property
    def have_queues(self) -> bool:
        """Whether slots have listeners of their own."""
        return bool(self._queues[0])

    @property
    def all(self) -> list[socket.socket]:
        return [*(sock for queue in self._queues.values() for sock in queue), *self._shared]

    def listen(self, count: int) -> None:
        """Begin to listen. count: number of slots. Raises ListenError."""
        for sock in self.all:
            listen.listen(sock, self._config)
        for index in range(count):
            self.of(index)

    def of(self, index: int) -> list[socket.socket]:
        """Return the listeners of a slot. Raises OSError."""
        if index not in self._queues:
            sockets: list[socket.socket] = []
            try:
                for sock in self._queues[0]:
                    sockets.append(listen.clone(sock))
                    listen.listen(sockets[-1], self._config)
            except OSError:
                for sock in sockets:
                    sock.close()
                raise
            self._queues[index] = sockets
        return [*self._queues[index], *self._shared]

    def queue(self, index: int) -> list[socket.socket]:
        """Return the listeners that only one slot has."""
        return self._queues.get(index, [])

    def await_connection(self, slot: Slot, callback: Callable[[], None]) -> None:
        """Call `callback` when a connection waits for a slot. Raises OSError."""
        self.awaiting.add(slot)
        for sock in self.of(slot.index):
            if sock not in self._selector.get_map():
                self._selector.register(sock, selectors.EVENT_READ, callback)

    def stop_awaiting(self, *slots: Slot) -> None:
        if self.awaiting:
            self.awaiting.difference_update(slots)
            for sock in self.all:
                if not self.awaiting and sock in self._selector.get_map():
                    self._selector.unregister(sock)

    def close(self) -> None:
        for sock in self.all:
            sock.close()
