"""Requests as the logger and the hooks of gunicorn see them."""

import functools
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from gunicorn.glogging import Logger, SafeAtoms

from ...logs.access import FIELDS, Getter, getter
from ...protocols.exchange import Exchange
from ...typing import App, Receive, Scope, Send
from .settings import is_set

#: Settings with which gunicorn logs requests.
ACCESS_LOGS = ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "syslog")


def observer(worker: Any) -> Callable[[Exchange], None] | None:
    """Return a function that logs an exchange and calls `post_request`; None if neither is set."""
    log, cfg = worker.log, worker.cfg
    hook = cfg.post_request if is_set(cfg, "post_request") else None
    # A subclass may count requests, or drop some of them.
    own = log.atoms_wrapper_class, type(log).access, type(log).atoms
    is_own = own != (SafeAtoms, Logger.access, Logger.atoms)

    def log_line(exchange: Exchange) -> None:
        log.access_log.info(cfg.access_log_format, Atoms(exchange))

    def call(exchange: Exchange) -> None:
        response, request, environ, duration = arguments(exchange)
        try:
            log.access(response, request, environ, duration)
            if hook is not None:
                hook(worker, request, environ, response)
        except Exception:
            log.exception("the hook post_request raised an exception")

    if is_own or hook is not None:
        return call
    return log_line if any(getattr(cfg, name, None) for name in ACCESS_LOGS) else None


def with_pre_request(app: App, worker: Any) -> App:
    """Wrap the app, so that the hook `pre_request` is called before each request."""
    hook = worker.cfg.pre_request

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            method, version = scope.get("method", "GET"), scope["http_version"]
            hook(worker, _request(method, version, scope, scope["headers"]))
        await app(scope, receive, send)

    return observed


class Atoms(Mapping[str, Any]):
    """The values of an access line. Each is computed when the format, or a filter, reads it.

    `Logger.atoms` computes all of them for each request, which takes three times as long.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __getitem__(self, key: str) -> Any:
        value = _getter(key)(self._exchange)
        if isinstance(value, str):
            return value.replace('"', '\\"')
        return "-" if value is None else value

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)


@functools.lru_cache(1000)
def _getter(key: str) -> Getter:
    if key.startswith("{") and key.endswith("}e"):  # a variable of WSGI
        name = key[1:-2].upper()
        return lambda exchange: arguments(exchange)[2].get(name)
    try:
        return getter(key)
    except ValueError:  # no such field
        return lambda _: None


def arguments(exchange: Exchange) -> tuple[Any, Any, dict[str, Any], timedelta]:
    """Return the arguments of `Logger.access`: response, request, WSGI environ and duration."""
    line = exchange.line
    request = _request(line.method, line.version, line.scope, exchange.scope.get("headers"))
    environ = {f"HTTP_{name.replace('-', '_')}": value for name, value in request.headers}
    environ |= {
        "REMOTE_ADDR": FIELDS["h"](exchange) or "-",
        "REQUEST_METHOD": request.method or "-",
        "RAW_URI": request.uri,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_PROTOCOL": FIELDS["H"](exchange) or "-",
    }
    status = str(FIELDS["s"](exchange))
    headers = _decoded(getattr(exchange, "response_headers", ()))
    response = SimpleNamespace(status=status, sent=exchange.sent, headers=headers)
    return response, request, environ, timedelta(seconds=perf_counter() - exchange.started)


def _request(method: str, version: str, line: Mapping[str, Any], headers: Any) -> Any:
    """Return an object with the attributes of a request of gunicorn."""
    path, query = line["raw_path"].decode("latin-1"), line["query_string"].decode("latin-1")
    return SimpleNamespace(
        method=method,
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        uri=f"{path}?{query}" if query else path,
        path=path,
        query=query,
        headers=[(name.upper(), value) for name, value in _decoded(headers)],
    )


def _decoded(pairs: Any) -> list[tuple[str, str]]:
    try:
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
    except Exception:  # the app may have put anything into its headers
        return []
