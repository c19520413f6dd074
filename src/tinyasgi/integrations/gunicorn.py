"""A worker class for gunicorn: `gunicorn -k tinyasgi.integrations.gunicorn.Worker app:main`."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter
from types import SimpleNamespace
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers import base

from ..app.lifespan import LifespanFailed
from ..config.config import Config
from ..config.kinds import OptionError
from ..importer import LoadError
from ..logs.access import FIELDS
from ..net.listen import ListenError
from ..process import forks
from ..process.loop import loop_factory
from ..process.process import set_gc_thresholds
from ..protocols.exchange import Exchange
from ..server.server import Server
from ..server.shutdown import LAST, LEAVE

#: Seconds between two signs of life to the master.
BEAT = 1.0
#: Seconds of `graceful_timeout` that are kept for idle clients and for what is cancelled: after
#: `graceful_timeout` the master kills the worker.
SPARE = LEAVE + 2 * LAST
#: Errors whose message says all.
EXPECTED = (OptionError, LoadError, ListenError, LifespanFailed)
#: Settings with which gunicorn logs requests.
ACCESS_LOGS = ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "syslog")
#: Settings that this worker class does not apply.
UNSUPPORTED = (
    "asgi_disconnect_grace_period",
    "casefold_http_method",
    "forwarder_headers",
    "header_map",
    "http_parser",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "post_request",
    "pre_request",
    "protocol",
    "secure_scheme_headers",
    "ssl_version",
    "strip_header_spaces",
)


class Worker(base.Worker):
    """Worker that serves ASGI and WSGI apps with tinyasgi."""

    OPTIONS: ClassVar[dict[str, Any]] = {}
    """Options of tinyasgi that a subclass sets, besides the settings of gunicorn."""

    _server: Server | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Warn of settings that have no effect."""
        settings = cfg.settings
        if ignored := [name for name in UNSUPPORTED if _is_set(settings.get(name))]:
            log.warning("settings without an effect on this worker class: %s", ", ".join(ignored))

    def run(self) -> None:
        """Serve until the master stops this worker. Called by gunicorn, as the methods below."""
        self._take_logger()
        set_gc_thresholds()
        try:
            config = Config(**options(self.cfg), **self.OPTIONS)
            with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
                runner.run(self._serve(config))
        except Exception as error:
            cause = error.__cause__ if isinstance(error, EXPECTED) else error
            self.log.error("%s", error, exc_info=cause)
            # With this code the master ends, instead of trying again and again.
            sys.exit(1 if self._server is not None else Arbiter.WORKER_BOOT_ERROR)
        finally:
            for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # the loop has restored the default

    def _take_logger(self) -> None:
        """Write the messages of the server to the error log of gunicorn."""
        logger, error_log = logging.getLogger("tinyasgi.server"), self.log.error_log
        logger.handlers, logger.propagate = error_log.handlers, False
        logger.setLevel(error_log.level)

    async def _serve(self, config: Config) -> None:
        self._loop = asyncio.get_running_loop()
        self._take_signals()
        self._beat()
        sockets = [each.sock for each in self.sockets]
        access = self._log_exchange if _logs_requests(self.log, self.cfg) else None
        async with contextlib.AsyncExitStack() as stack:
            server = Server(self.wsgi, config, sockets=sockets, access=access)
            stack.enter_context(forks.withheld(server.descriptors))
            await stack.enter_async_context(server)
            self._server = server
            gc.freeze()
            if self.alive:
                await server.stopped()
            if self.alive:  # the limit of requests is reached
                server.leave()
                self._loop.call_later(LAST, server.stop)

    def _beat(self) -> None:
        """Tell the master that the event loop runs; stop when the master has died."""
        self.notify()
        if self._server is not None and (self.ppid != os.getppid() or not self.alive):
            self._server.stop()  # `alive` is False when the reloader has noticed a change
        self._loop.call_later(min(BEAT, self.timeout / 2 or BEAT), self._beat)

    def _log_exchange(self, exchange: Exchange) -> None:
        self.log.access(*access_arguments(exchange))

    # Signals. SIGABRT is handled as in other workers, because it comes when the loop is blocked.

    def _take_signals(self) -> None:
        handlers: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self._on_stop,
            signal.SIGQUIT: self._on_quit,
            signal.SIGINT: self._on_quit,
            signal.SIGUSR1: self.log.reopen_files,
        }
        for number, handle in handlers.items():
            self._loop.add_signal_handler(number, handle)

    def _on_stop(self) -> None:
        """Stop gracefully. Another worker may have replaced this one: no idle client is cut off."""
        self.alive = False
        if self._server is None:
            return
        if self.cfg.graceful_timeout > SPARE:
            self._server.leave()
        else:
            self._server.stop()

    def _on_quit(self) -> None:
        self.alive = False
        if self._server is not None:
            self._server.quit()
        self.cfg.worker_int(self)


def _logs_requests(log: Any, cfg: Any) -> bool:
    """Return whether `Logger.access` does anything. A subclass of Logger may count requests."""
    is_logged = any(getattr(cfg, name, None) for name in ACCESS_LOGS)
    return is_logged or type(log).access is not Logger.access


def _is_set(setting: Any) -> bool:
    """Return whether the user has set a setting to another value than its default."""
    if setting is None:  # this version of gunicorn does not have it
        return False
    default = type(setting)()
    return bool(setting.get() != default.get())


def options(cfg: Any) -> dict[str, Any]:
    """Return the options of tinyasgi for the settings of gunicorn. Raises OptionError."""
    grace = cfg.graceful_timeout
    found = {
        "access_log": False,  # gunicorn writes it
        "backlog": cfg.backlog,
        "timeout_keep_alive": cfg.keepalive,
        "timeout_graceful_shutdown": grace - SPARE if grace > SPARE else grace / 2,
        "limit_max_requests": cfg.max_requests,
        "limit_max_requests_jitter": cfg.max_requests_jitter,
        "limit_head_fields": cfg.limit_request_fields,
        "limit_head_size": max(65536, cfg.limit_request_line, cfg.limit_request_field_size),
        # A proxy at a unix socket is trusted, as in gunicorn.
        "forwarded_allow_ips": [*cfg.forwarded_allow_ips, "unix"],
        "proxy_protocol": cfg.proxy_protocol not in ("off", False),
        "http2": "h2" in getattr(cfg, "http_protocols", ()),
    }
    if found["proxy_protocol"] and cfg.proxy_allow_ips != cfg.forwarded_allow_ips:
        raise OptionError("proxy_allow_ips must be the same as forwarded_allow_ips")
    renamed = {
        "asgi_lifespan": "lifespan",
        "asgi_loop": "loop",
        "root_path": "root_path",
        "threads": "wsgi_threads",
        "websocket_max_message_size": "ws_max_size",
        "worker_connections": "limit_connections",
    }
    for theirs, ours in renamed.items():
        if _is_set(setting := cfg.settings.get(theirs)):
            found[ours] = setting.get()
    return found | (_tls(cfg) if cfg.is_ssl else {})


def _tls(cfg: Any) -> dict[str, Any]:
    found = {
        "ssl_certfile": cfg.certfile,
        "ssl_keyfile": cfg.keyfile,
        "ssl_cert_reqs": cfg.cert_reqs,
        "ssl_ca_certs": cfg.ca_certs,
        "ssl_ciphers": cfg.ciphers,
    }
    if _is_set(cfg.settings.get("ssl_context")):
        found["ssl_context_factory"] = lambda _, make_default: cfg.ssl_context(cfg, make_default)
    return found


def access_arguments(exchange: Exchange) -> tuple[Any, Any, dict[str, Any], timedelta]:
    """Return the arguments of gunicorn's `Logger.access` for a request."""
    headers = _decoded(exchange.scope.get("headers", ()))
    response_headers = _decoded(getattr(exchange, "response_headers", ()))
    environ: dict[str, Any] = {
        f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers
    }
    path, query = FIELDS["U"](exchange), FIELDS["q"](exchange)
    environ |= {
        "REMOTE_ADDR": FIELDS["h"](exchange) or "-",
        "REQUEST_METHOD": exchange.line.method or "-",
        "RAW_URI": f"{path}?{query}" if query else path,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": FIELDS["H"](exchange) or "-",
    }
    status = str(FIELDS["s"](exchange))
    response = SimpleNamespace(status=status, sent=exchange.sent, headers=response_headers)
    duration = timedelta(seconds=perf_counter() - exchange.started)
    return response, SimpleNamespace(headers=headers), environ, duration


def _decoded(pairs: Any) -> list[tuple[str, str]]:
    try:
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
    except Exception:  # the app may have put anything into its headers
        return []
