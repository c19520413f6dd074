"""States of connections, exchanges and the server.

`docs/design.md` shows the transitions. While the tests run, any other transition is an error.
"""

from enum import Enum, IntEnum
from typing import Final


class ConnectionState(Enum):
    """State of a connection: the event that it waits for. `timeouts` has the timeout of each."""

    NEW = "the first byte of the first request"
    IDLE = "the first byte of another request"
    HEAD = "the rest of a request head"
    APP = "the app"
    BODY = "request body that the app waits for, or that is dropped"
    CLOSING = "the peer: it reads what was written, and closes"
    # WebSocket only:
    OPEN = "a frame"
    PONG = "any frame, after a ping"
    GOING_AWAY = "the last messages of the app, because the server stops"
    CLOSE_SENT = "the Close frame of the peer, which answers ours"


class Phase(IntEnum):
    """Phase of an exchange. It only grows, except from SENDING_FILE to STREAMING."""

    WAITING = 0
    """The app has sent nothing."""
    STARTED = 1
    """The app has sent http.response.start; the head is not written."""
    STREAMING = 2
    """The head is written, and more body follows. Or a WebSocket is open."""
    SENDING_FILE = 3
    """The head is written, and a file is being sent."""
    TRAILERS = 4
    """The body is written, and trailers follow."""
    COMPLETE = 5
    """The response is complete."""
    LOST = 6
    """The response can't be completed any more."""
    REFUSED = 7
    """The server has answered instead of the app."""


class ServerState(IntEnum):
    """State of a server. It only grows."""

    SERVING = 0
    LEAVING = 1
    """Each connection closes after its next response."""
    STOPPING = 2
    """Idle connections are closed, and streaming apps receive a disconnect."""
    OVERDUE = 3
    """The graceful shutdown timeout has expired; running requests are cancelled."""


# Compared for each read and each message; an attribute of an enum would take longer.

NEW: Final = ConnectionState.NEW
IDLE: Final = ConnectionState.IDLE
HEAD: Final = ConnectionState.HEAD
APP: Final = ConnectionState.APP
BODY: Final = ConnectionState.BODY
CLOSING: Final = ConnectionState.CLOSING
OPEN: Final = ConnectionState.OPEN
PONG: Final = ConnectionState.PONG
GOING_AWAY: Final = ConnectionState.GOING_AWAY
CLOSE_SENT: Final = ConnectionState.CLOSE_SENT

WAITING: Final = Phase.WAITING
STARTED: Final = Phase.STARTED
STREAMING: Final = Phase.STREAMING
SENDING_FILE: Final = Phase.SENDING_FILE
TRAILERS: Final = Phase.TRAILERS
COMPLETE: Final = Phase.COMPLETE
LOST: Final = Phase.LOST
REFUSED: Final = Phase.REFUSED
