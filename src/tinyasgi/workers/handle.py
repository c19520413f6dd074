"""The process of a worker, as the supervisor sees it."""

import selectors
from dataclasses import dataclass

from .channel import Channel
from .slot import Worker


@dataclass(eq=False)
class WorkerHandle:
    """The process of a worker, with its channel and its parent."""

    worker: Worker
    channel: Channel
    shard: int
    """Number of the worker's part of the shared metrics, or 0."""
    zygote: "WorkerHandle | None"
    """The zygote that forks the process, and reports its exit while the zygote runs."""
    request: int
    """Number of the request to fork the process."""
    silent_since: float | None = None
    """The time at which the process closed its end of the channel."""

    def wait_for_room(self, selector: selectors.BaseSelector) -> None:
        """Let the selector wait for room in the channel if messages wait to be written."""
        if self.silent_since is None:
            key, events = selector.get_key(self.channel), selectors.EVENT_READ
            if self.channel.is_blocked:
                events |= selectors.EVENT_WRITE
            if key.events != events:
                selector.modify(self.channel, events, key.data)
