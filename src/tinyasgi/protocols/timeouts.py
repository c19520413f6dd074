"""Timeouts and minimum rates of connections."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..config.config import Config
from .states import ConnectionState

#: Seconds without a byte in either direction until the server closes a connection whose peer may
#: still be sending. Closing earlier would reset it (RFC 9112 §9.6).
LINGER = 2
#: Maximum seconds for which the peer may continue to send after it has read everything.
MAX_LINGER = 30


class Pace(NamedTuple):
    """Minimum rate at which a peer must send or read."""

    rate: int
    """Bytes per second."""
    slack: float
    """Bytes by which the peer may lag behind."""


def pace(rate: int, timeout: float) -> Pace:
    """Return a rate that is averaged over `timeout` seconds, so a peer may pause for that long."""
    return Pace(rate, rate * math.ceil(timeout) or math.inf)


def ticks(seconds: float) -> float:
    """Return a timeout in ticks. It expires when more ticks have passed; 0 seconds: never."""
    return math.ceil(seconds) or math.inf


def timeouts(config: Config) -> Mapping[ConnectionState, float]:
    """Return the timeout of each state in ticks."""
    seconds = {
        ConnectionState.NEW: config.timeout_head,
        ConnectionState.IDLE: config.timeout_keep_alive,
        ConnectionState.HEAD: config.timeout_head,
        ConnectionState.APP: 0,
        ConnectionState.BODY: config.timeout_body,
        ConnectionState.CLOSING: LINGER,
        ConnectionState.OPEN: config.ws_ping_interval,
        ConnectionState.PONG: config.ws_ping_timeout,
        ConnectionState.GOING_AWAY: 0,  # `check_timeouts` ends it
        ConnectionState.CLOSE_SENT: LINGER,
    }
    return {state: ticks(limit) for state, limit in seconds.items()}
