"""Interface to systemd: inherited sockets, sd_listen_fds(3), and notifications, sd_notify(3)."""

import os
import re
import socket
import time
from contextlib import suppress

from ..config.kinds import OptionError

#: Number of the first inherited descriptor (SD_LISTEN_FDS_START).
FIRST = 3
#: Maximum seconds to wait while the queue of systemd is full.
FULL_QUEUE = 1.0


def inherited() -> tuple[str, ...]:
    """Return the sockets that systemd has passed to this process, as values for `Config.bind`.

    Remove their variables from the environment, so a second call returns none. Raises OptionError.
    """
    pid, count = os.environ.pop("LISTEN_PID", None), os.environ.pop("LISTEN_FDS", None)
    os.environ.pop("LISTEN_FDNAMES", None)
    if count is None or pid != str(os.getpid()):
        return ()
    numbers = range(FIRST, FIRST + _number("LISTEN_FDS", count))
    for number in numbers:
        try:
            os.set_inheritable(number, False)
        except OSError:
            text = f"LISTEN_FDS={count}: descriptor {number} is not open"
            raise OptionError(text) from None
    return tuple(f"fd://{number}" for number in numbers)


def _number(variable: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise OptionError(f"{variable}={text!r}: expected a whole number, as systemd sets it")
    return int(text)


class Notifier:
    """Notifications to systemd about the state of the service; no effect without systemd."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", None)
        pid = os.environ.pop("WATCHDOG_PID", None)
        self.interval: float | None = None
        """Seconds between two calls of `beat`: half of the timeout of systemd."""
        if self._address and microseconds and pid in (None, str(os.getpid())):
            self.interval = _number("WATCHDOG_USEC", microseconds) / 2e6

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def beat(self) -> None:
        self._send("WATCHDOG=1", timeout=0)  # a full queue contains earlier ones

    def _send(self, state: str, timeout: float | None = None) -> None:
        if self._address:
            address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(FULL_QUEUE if timeout is None else timeout)
                sock.connect(address)
                sock.sendall(state.encode())
