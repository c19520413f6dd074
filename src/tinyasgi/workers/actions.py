"""Actions that the policy returns and the supervisor performs."""

from typing import NamedTuple, TypeAlias

from .slot import Slot, Worker


class Start(NamedTuple):
    """Start a process; then report `ready`, `failed_to_start` or `exited`."""

    worker: Worker


class Tell(NamedTuple):
    """Send a message of one word to a worker that is ready."""

    worker: Worker
    word: str


class Terminate(NamedTuple):
    """Send SIGTERM."""

    worker: Worker


class Kill(NamedTuple):
    """Send SIGKILL."""

    worker: Worker


class Share(NamedTuple):
    """Let a worker accept from the queue of another slot as well."""

    worker: Worker
    queue: int


class Unshare(NamedTuple):
    """End a `Share`."""

    worker: Worker
    queue: int


class Await(NamedTuple):
    """Report `requested` when a connection waits for a slot. A start of the slot ends this."""

    slot: Slot


class Measure(NamedTuple):
    """Measure the memory of each worker, and report it with `measured`."""


class Started(NamedTuple):
    """All workers are ready for the first time."""


class Notify(NamedTuple):
    """Tell the service manager: ready, reloading or stopping."""

    state: str


class Log(NamedTuple):
    level: int
    text: str


class Close(NamedTuple):
    """Close the listeners: the workers have their own copies."""


class Done(NamedTuple):
    """Exit. text: an error message, or empty."""

    code: int
    text: str


Action: TypeAlias = (
    Start | Tell | Terminate | Kill | Share | Unshare | Await | Measure | Started | Notify | Log
    | Close | Done
)  # fmt: skip
