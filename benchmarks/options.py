"""Connections with one option each, which `hotpath --options` runs under valgrind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import uvloop

from . import apps
from .in_memory import GET, OTHER, fed

FORWARDED = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.%d\r\n\r\n")
QUIET = {"access_log": False}

#: The options of each row, as keyword arguments of `Config`. The first row is the base.
OPTIONS: dict[str, dict[str, Any]] = {
    "no access log": QUIET,
    "access log": {},
    "access log, --access-log-format combined": {"access_log_format": "combined"},
    "access log, --log-format json": {"log_format": "json"},
    "access log, --access-log-exclude": {"access_log_exclude": ("/static/*",)},
    "--metrics-bind": QUIET | {"metrics_bind": "127.0.0.1:0"},
    "--request-id-header": QUIET | {"request_id_header": "x-request-id"},
    "--limit-concurrency": QUIET | {"limit_concurrency": 1000},
    "--limit-max-requests": QUIET | {"limit_max_requests": 10**9},
    "--header": QUIET | {"header": (("x-frame-options", "DENY"),)},
    "--no-date-header --no-server-header": QUIET | {"date_header": False, "server_header": False},
}
#: Rows whose request has a header that changes each time. The first row is the base.
CHANGING: dict[str, tuple[bytes, dict[str, Any]]] = {
    "one header changes each time": (OTHER, QUIET),
    "one header changes, --no-proxy-headers": (OTHER, QUIET | {"proxy_headers": False}),
    "one header changes, --http h11": (OTHER, QUIET | {"http": "h11"}),
    "X-Forwarded-For of a trusted proxy changes": (FORWARDED, QUIET),
}


def connection(options: dict[str, Any], app: Any) -> asyncio.Protocol:
    """Return a connection like one of a server with these options."""
    from tinyasgi.config.config import Config
    from tinyasgi.logs.access import exchange_filter, line_formatter
    from tinyasgi.logs.writer import AccessLog, AccessLogFile
    from tinyasgi.metrics.prometheus import Metrics
    from tinyasgi.metrics.store import MetricsStore
    from tinyasgi.protocols.context import Context
    from tinyasgi.protocols.hooks import Hooks
    from tinyasgi.protocols.http1 import HTTP1Connection

    config = Config(**{"http": "httptools", "access_log_file": "/dev/null", **options})
    loop = asyncio.get_running_loop()
    log = metrics = None
    if config.access_log:
        log = AccessLog(line_formatter(config), AccessLogFile(config), loop)
    if config.metrics_bind:
        metrics = Metrics(MetricsStore.create(config, shard=1))
        app = metrics.observed(app)
    access = exchange_filter(config, None if metrics is None else metrics.count, log)
    context = Context(app, config, loop, Hooks(access=access))
    if metrics is not None:
        metrics.start(context)
    return HTTP1Connection(context)


def repeat(request: bytes) -> Iterator[bytes]:
    return iter(lambda: request, None)


def change(request: bytes) -> Iterator[bytes]:
    """Yield the request with different numbers."""
    return (request % (number % 256) for number in count())


async def main(name: str) -> None:
    """Run one row, because rows in the same process would affect each other."""
    if name in OPTIONS:
        row, options = (apps.hello, GET, partial(repeat, GET)), OPTIONS[name]
    else:
        request, options = CHANGING[name]
        row = (apps.hello, GET, partial(change, request))
    await fed(partial(connection, options), row)
    print(name, "tinyasgi", sep="\t", flush=True)
    os._exit(0)  # skip the cleanup


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
