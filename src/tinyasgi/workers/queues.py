"""Accept queues: which worker accepts the connections for a slot that has no worker."""

from collections.abc import Iterator, Sequence

from .actions import Share, Unshare
from .slot import Slot, SlotState, Worker

#: States in which connections wait for the slot itself, and no other worker accepts them.
_WAITS = (SlotState.STOPPING, SlotState.WAITING)


class AcceptQueues:
    """The accept queues, each with the number of its slot. They remain if the slot is removed."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.helpers: dict[int, Worker] = {}
        """Workers of other slots that accept from a queue."""

    def assign(self, slots: Sequence[Slot]) -> Iterator[Share | Unshare]:
        """Let another worker accept from the queue of each slot without a worker."""
        serving = [slot.serving for slot in slots if slot.serving is not None]
        kept = [slot.index for slot in slots if slot.serving or slot.state in _WAITS]
        for queue in self.numbers:
            helper = self.helpers.get(queue)
            if queue in kept:
                if self.helpers.pop(queue, None) in serving and helper is not None:
                    yield Unshare(helper, queue)
            elif helper not in serving:
                self.helpers.pop(queue, None)
                if serving:
                    shares = list(self.helpers.values())
                    helper = self.helpers[queue] = min(serving, key=shares.count)
                    yield Share(helper, queue)
