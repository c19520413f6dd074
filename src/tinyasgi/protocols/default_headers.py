"""Response headers that the server adds: Date, Server and those of `--header`."""

import time

from .._version import __version__
from ..config.config import Config
from ..http.response import DefaultHeaders


def default_headers(config: Config, now: float) -> DefaultHeaders:
    """Return the headers that responses get unless the app sets them.

    now: time for the Date header, in seconds since the epoch.
    """
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in config.header]
    names = {name for name, _ in headers}
    if config.date_header and b"date" not in names:
        headers.insert(0, (b"date", _imf_fixdate(now)))
    if config.server_header and b"server" not in names:
        headers.insert(0, (b"server", f"tinyasgi/{__version__}".encode()))
    return DefaultHeaders(headers)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _imf_fixdate(seconds: float) -> bytes:
    """Format a Date (RFC 9110 §5.6.7). `email.utils` would cost 10 ms and 2 MiB to import."""
    t = time.gmtime(seconds)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    return f"{day}, {t.tm_mday:02} {month} {t.tm_year} {clock} GMT".encode()
