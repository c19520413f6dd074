"""Time limits of processes."""

from ..config.config import Config

#: Seconds until a stopping worker is killed, in addition to the worker's own time limits.
MARGIN = 10.0
#: Seconds for workers to stop after a second signal.
HURRY = 2.0
#: Seconds for workers to stop when a file has changed.
RELOAD = 2.0
#: Seconds between SIGTERM and SIGKILL for a worker that is blocked.
UNBLOCK = 2.0
#: Seconds between two measurements of memory.
MEASURE = 5.0


def time_to_stop(config: Config) -> float:
    """Return the seconds after which a worker that was told to stop is killed."""
    return config.shutdown_delay + 2 * config.timeout_graceful_shutdown + MARGIN
