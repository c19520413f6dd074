"""What systemd gives to a service, and what it is told: sd_listen_fds(3) and sd_notify(3)."""

import os
import re
import socket
import time
from contextlib import suppress

from ..config.kinds import OptionError

#: The first descriptor of a socket that systemd hands over (SD_LISTEN_FDS_START).
FIRST = 3
#: Seconds to send a state, if the queue of the service manager is full.
PATIENCE = 1.0

#: Seconds to wait while the queue of systemd is full.
FULL_QUEUE = 1.0


def inherited() -> tuple[str, ...]:
    """The sockets that this process was started with, as addresses for `Config.bind`.

    They are given once: the environment is cleared of them. Raises OptionError.
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
    """Tells systemd how the service stands; does nothing where nobody wants to know."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", None)
        pid = os.environ.pop("WATCHDOG_PID", None)
        self.interval: float | None = None
        """Seconds in which systemd expects a `beat`: half of what it allows."""
        if self._address and microseconds and pid in (None, str(os.getpid())):
            self.interval = _number("WATCHDOG_USEC", microseconds) / 2e6

    def ready(self) -> None:
        self._tell("READY=1")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def beat(self) -> None:
        self._tell("WATCHDOG=1", timeout=0)  # others are in the queue if it is full

    def _tell(self, state: str, timeout: float | None = None) -> None:
        if self._address:
            address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(FULL_QUEUE if timeout is None else timeout)
                sock.connect(address)
                sock.sendall(state.encode())
