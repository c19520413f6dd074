"""`Config`: the options of uvicorn."""

import dataclasses
import inspect
import logging
import logging.config
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from ssl import CERT_NONE, PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, ClassVar

from ... import importer
from ...config import config as tinyasgi_config
from ...config import env_file, other_servers
from ...config.kinds import MAX_SECONDS, OptionError, Spelling
from ...logs import setup
from ...net import listen
from ...process.loop import loop_factory
from ...tls.contexts import TLSContexts
from .logging import TRACE_LOG_LEVEL, access_logger, logger

#: Exit code if the server can't start.
STARTUP_FAILURE = 3

LOG_LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE_LOG_LEVEL,
}
#: The default of `log_config`. Programs change copies of it.
LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "tinyasgi.integrations.uvicorn.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "tinyasgi.integrations.uvicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {
            "formatter": "default",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
        },
        "access": {
            "formatter": "access",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
        },
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}

#: Options that `Server` or this class implements.
_OWN = {"app", "callback_notify", "timeout_notify", "log_config", "env_file", "factory"}


#: Attributes of uvicorn's `Config` without a counterpart, and what to write instead.
_MISSING = {
    "setup_event_loop": "call get_loop_factory()",
    "http_protocol_class": "there are no protocol classes; write a middleware",
    "ws_protocol_class": "there are no protocol classes; write a middleware",
}


class Lifespan:
    """The lifespan of an app. `Server.startup` and `Server.shutdown` run it."""

    def __init__(self, config: "Config") -> None:
        self.state: dict[str, Any] = {}
        self.should_exit = False
        """Whether the startup has failed."""


@dataclass(eq=False, repr=False)
class Config:
    """The options of uvicorn 0.54, with the same names and defaults.

    They are converted to those of tinyasgi when the server starts, so a program may change
    attributes until then. An option without a counterpart is logged as a warning. An invalid value
    raises OptionError.
    """

    app: Any
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    loop: str = "auto"
    http: str = "auto"
    http2: bool = False
    ws: str = "auto"
    ws_max_size: int = 16 * 1024 * 1024
    ws_max_queue: int = 32
    ws_ping_interval: float | None = 20.0
    ws_ping_timeout: float | None = 20.0
    ws_per_message_deflate: bool = True
    lifespan: str = "auto"
    env_file: str | os.PathLike[str] | None = None
    log_config: Any = field(default_factory=lambda: LOGGING_CONFIG)
    log_level: str | int | None = None
    access_log: bool = True
    use_colors: bool | None = None
    interface: str = "auto"
    reload: bool = False
    reload_dirs: Any = None
    reload_delay: float = 0.25
    reload_includes: Any = None
    reload_excludes: Any = None
    workers: int | None = None
    proxy_headers: bool = True
    server_header: bool = True
    date_header: bool = True
    forwarded_allow_ips: list[str] | str | None = None
    root_path: str = ""
    limit_concurrency: int | None = None
    limit_max_requests: int | None = None
    limit_max_requests_jitter: int = 0
    backlog: int = 2048
    timeout_keep_alive: int = 5
    timeout_notify: int = 30
    timeout_graceful_shutdown: int | None = None
    timeout_worker_healthcheck: int = 5
    callback_notify: Callable[..., Awaitable[None]] | None = None
    ssl_keyfile: str | os.PathLike[str] | None = None
    ssl_certfile: str | os.PathLike[str] | None = None
    ssl_keyfile_password: str | None = None
    ssl_version: int = PROTOCOL_TLS_SERVER
    ssl_cert_reqs: int = CERT_NONE
    ssl_ca_certs: str | os.PathLike[str] | None = None
    ssl_ciphers: str | None = None
    ssl_context_factory: Callable[..., SSLContext] | None = None
    headers: list[tuple[str, str]] | None = None
    factory: bool = False
    h11_max_incomplete_event_size: int | None = None
    reset_contextvars: bool = False

    lifespan_class: ClassVar = Lifespan

    def __post_init__(self) -> None:
        self.loaded = False
        self.loaded_app: Any = None
        self.headers = self.headers or []
        for name in ("reload_dirs", "reload_includes", "reload_excludes"):
            given = getattr(self, name) if self.should_reload else None
            setattr(self, name, [given] if isinstance(given, str) else list(given or ()))
        if self.should_reload:
            self.reload_dirs = [Path(each).resolve() for each in self.reload_dirs or ["."]]
        self.reload_dirs_excludes: list[Path] = []
        self.configure_logging()
        if self.env_file is not None:
            env_file.load(tinyasgi_config.Config(env_file=os.fspath(self.env_file)))
        if self.workers is None:
            self.workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
        if self.forwarded_allow_ips is None:
            self.forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
        self.workers = self.workers or 1
        for name in other_servers.WITHOUT_MEANING.keys() - _OWN:
            try:
                other_servers.check(Spelling(name), name, getattr(self, name))
            except OptionError as error:
                logger.warning("%s", error)
        self.translated()

    def __getattr__(self, name: str) -> Any:
        text = _MISSING.get(name)
        hint = f" in tinyasgi: {text}" if text else ""
        raise AttributeError(f"Config has no attribute {name!r}{hint}")

    @property
    def is_ssl(self) -> bool:
        return bool(self.ssl_keyfile or self.ssl_certfile or self.ssl_context_factory)

    @cached_property
    def ssl(self) -> SSLContext | None:
        """The TLS context. A program may change or replace it before the server starts."""
        return TLSContexts(self.translated()).current() if self.is_ssl else None

    @property
    def should_reload(self) -> bool:
        return isinstance(self.app, str) and self.reload

    @property
    def use_subprocess(self) -> bool:
        return bool(self.reload or (self.workers or 1) > 1)

    def translated(self) -> tinyasgi_config.Config:
        """Return the options of tinyasgi. Raises OptionError."""
        names = {each.name for each in dataclasses.fields(Config)}
        names -= _OWN | other_servers.WITHOUT_MEANING.keys()
        options = {name: getattr(self, name) for name in names}
        options["host"] = self.host or ""  # all addresses
        options["port"] = int(self.port)
        if self.reload or self.workers == 1:
            options["workers"] = None  # as in uvicorn, --reload has one worker
        if self.timeout_graceful_shutdown is None:
            options["timeout_graceful_shutdown"] = MAX_SECONDS
        if not self.ssl_certfile:
            options["ssl_keyfile"] = None
        if (context := vars(self).get("ssl")) is not None:
            options["ssl_context_factory"] = lambda *_: context
        elif (make := self.ssl_context_factory) is not None and not self.use_subprocess:
            options["ssl_context_factory"] = lambda _, make_default: make(self, make_default)
        return tinyasgi_config.Config(**options)

    def configure_logging(self) -> None:
        """Set up the loggers, as `log_config`, `log_level`, `use_colors` and `access_log` say."""
        logging.addLevelName(TRACE_LOG_LEVEL, "TRACE")
        config = self.log_config
        if isinstance(config, dict):
            if self.use_colors is not None:
                for name in ("default", "access"):
                    config["formatters"][name]["use_colors"] = self.use_colors
            logging.config.dictConfig(config)
        elif isinstance(config, str | os.PathLike):
            path = os.fspath(config)
            setup.apply_config(tinyasgi_config.Config(log_config=path), path)
        elif config is not None:  # a parser or a file
            logging.config.fileConfig(config, disable_existing_loggers=False)
        if (level := self.log_level) is not None:
            number = LOG_LEVELS[level.lower()] if isinstance(level, str) else level
            logger.setLevel(number)
            access_logger.setLevel(number)
        if not self.access_log:
            access_logger.handlers = []
            access_logger.propagate = False

    def load_app(self) -> Any:
        """Return the object that `app` names, or `app` itself. Exit if it can't be imported."""
        try:
            return importer.load(self.app, sys.path[0]) if isinstance(self.app, str) else self.app
        except importer.LoadError as error:
            logger.error("%s", error, exc_info=error.__cause__)
            sys.exit(STARTUP_FAILURE)

    def load(self) -> None:
        """Load the app and, if it is a factory, call it. Exit if that fails."""
        assert not self.loaded
        self.loaded_app = self.load_app()
        if self.factory or _is_factory(self.loaded_app):
            if not self.factory:
                logger.warning("the app takes no arguments: using it as a factory")
            try:
                self.loaded_app = self.loaded_app()
            except Exception:
                logger.exception("the app factory raised an exception")
                sys.exit(STARTUP_FAILURE)
        self.loaded = True

    def get_loop_factory(self) -> Callable[[], Any]:
        """Return the function that creates the event loop. Raises OptionError."""
        return loop_factory(self.translated())

    def bind_socket(self) -> socket.socket:
        """Return a listener for the server or its child processes. Exit if that fails."""
        try:
            sock, *others = listen.bind(self.translated())
        except listen.ListenError as error:
            logger.error(error)
            sys.exit(STARTUP_FAILURE)
        listen.close(others)
        sock.set_inheritable(True)
        return sock


def _is_factory(app: Any) -> bool:
    try:
        inspect.signature(app).bind()
    except (TypeError, ValueError):
        return False
    return True
