"""What a connection waits for, and for how long."""

import math
from typing import Final, NamedTuple

from ..config.config import Config

__all__ = ["APP", "BODY", "CLOSE", "CLOSING", "FAREWELL", "FIRST", "FRAME", "HEAD", "LINGER"]
__all__ += ["MAX_LINGER", "NEXT", "PONG", "WRITE", "Pace", "limits", "pace"]

#: Seconds from the last byte that went either way until a connection closes whose peer may still
#: be sending: an earlier close would reset it (RFC 9112 §9.6).
LINGER = 2
#: Seconds in which the peer may go on sending after it has taken the last byte.
MAX_LINGER = 30

# Plain numbers, they index the time limits.
FIRST: Final = 0  # the first byte of the first request
NEXT: Final = 1  # the first byte of a further request
HEAD: Final = 2  # the rest of a head
BODY: Final = 3  # body that the app asked for, or that is dropped
APP: Final = 4  # the app
CLOSE: Final = 5  # the peer's end of a connection that serves no more
FAREWELL: Final = 6  # the last messages of a WebSocket app, when the server stops
CLOSING: Final = 7  # the Close frame that answers ours
FRAME: Final = 8  # a frame
PONG: Final = 9  # a sign of life, after a ping
WRITE: Final = 10  # the peer to read what is written: judged besides the others


class Pace(NamedTuple):
    """The slowest pace at which a peer may send or read."""

    rate: int
    """Bytes per second."""
    slack: float
    """Bytes that the peer may be behind."""


def pace(rate: int, timeout: float) -> Pace:
    """A rate as an average over `timeout` seconds, so a peer may pause for nearly so long."""
    return Pace(rate, rate * math.ceil(timeout) or math.inf)


def limits(config: Config) -> tuple[float, ...]:
    """Time limits in seconds, in the order of the above; they pass when more ticks have."""
    head, keep_alive, body = config.timeout_head, config.timeout_keep_alive, config.timeout_body
    http = head, keep_alive, head, body, 0, LINGER
    websocket = 0, LINGER, config.ws_ping_interval, config.ws_ping_timeout
    found = [math.ceil(limit) or math.inf for limit in (*http, *websocket, config.timeout_write)]
    return tuple(found)
