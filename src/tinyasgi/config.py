"""Every option, written once: name, type, default, help and check.

The command line, the environment names and `docs/options.md` follow from the fields of `Config`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .options import (
    FIELDS,
    FLAG,
    MODE,
    PATH,
    SECONDS,
    TEXT,
    Kind,
    OptionError,
    choice,
    number,
    option,
)

__all__ = ["Config"]

_COUNT = number()
_CERT_REQS = choice("none", "optional", "required", _0="none", _1="optional", _2="required")
_LOG_LEVELS = choice("critical", "error", "warning", "info", "debug", trace="debug")

_APP, _ADDRESS, _ENGINE, _LIMITS = "Application", "Address", "Implementation", "Limits"
_TIMES, _RESPONSES, _LOGS, _TLS = "Time limits", "Responses", "Logs", "TLS"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of a server; `docs/options.md` lists them.

    Times are in seconds and sizes in bytes. 0 switches a limit off, but for the graceful shutdown
    it means at once; None is "not given". Raises OptionError for a value that is not allowed.
    """

    factory: bool = option(
        False,
        _APP,
        FLAG,
        "call the named object to get the app: a function, a coroutine function or an async"
        " context manager",
    )
    app_dir: str = option(".", _APP, PATH, "directory to import the app from")
    interface: str = option("auto", _APP, choice("auto", "asgi3", "asgi2"), "version of ASGI")
    lifespan: str = option(
        "auto",
        _APP,
        choice("auto", "on", "off"),
        "whether the app is told of startup and shutdown; auto: unless it refuses at once",
    )
    root_path: str = option(
        "", _APP, TEXT, "path below which the app is mounted, whether or not a proxy strips it"
    )
    cancel_on_disconnect: bool = option(
        False, _APP, FLAG, "cancel the task of a request when its client leaves"
    )

    host: str = option(
        "127.0.0.1", _ADDRESS, TEXT, "name or address to listen on; `::` is all of IPv6 and IPv4"
    )
    port: int = option(8000, _ADDRESS, number(0, 65535), "TCP port; 0 takes a free one")
    uds: str | None = option(None, _ADDRESS, PATH, "unix socket to listen on instead")
    uds_mode: int = option(0o666, _ADDRESS, MODE, "permissions of the unix socket")
    fd: int | None = option(
        None, _ADDRESS, _COUNT, "file descriptor of a bound socket to listen on instead"
    )
    backlog: int = option(
        2048, _ADDRESS, number(1, 65535), "connections that may wait to be accepted"
    )

    loop: str = option(
        "auto",
        _ENGINE,
        choice("auto", "asyncio", "uvloop"),
        "event loop; auto: uvloop when it is installed",
    )
    http: str = option(
        "auto",
        _ENGINE,
        choice("auto", "httptools", "h11"),
        "HTTP parser; auto: httptools when it is installed",
    )

    limit_head_size: int = option(
        65536, _LIMITS, number(256), "bytes of a request line with its fields; more is 414 or 431"
    )
    limit_head_fields: int = option(
        100, _LIMITS, number(1), "fields of a request; more is answered 431"
    )
    limit_body_size: int = option(
        0, _LIMITS, _COUNT, "bytes of a request body, more is answered 413; 0: any"
    )
    limit_concurrency: int = option(
        0, _LIMITS, _COUNT, "requests that run at once, more are answered 503; 0: any"
    )
    limit_connections: int = option(
        0, _LIMITS, _COUNT, "connections at once, more wait to be accepted; 0: any"
    )
    limit_max_requests: int = option(
        0, _LIMITS, _COUNT, "requests after which the server stops in order; 0: never"
    )
    limit_max_requests_jitter: int = option(
        0, _LIMITS, _COUNT, "most requests that are added to that number at random"
    )

    timeout_head: float = option(
        10.0, _TIMES, SECONDS, "seconds for a whole head to arrive, else 408; 0: any"
    )
    timeout_body: float = option(
        30.0, _TIMES, SECONDS, "seconds without a byte of a body that is awaited; 0: any"
    )
    timeout_keep_alive: float = option(
        75.0, _TIMES, SECONDS, "seconds that a connection may be idle between requests; 0: any"
    )
    timeout_write: float = option(
        30.0, _TIMES, SECONDS, "seconds in which a peer reads nothing of a response; 0: any"
    )
    timeout_graceful_shutdown: float = option(
        25.0, _TIMES, SECONDS, "seconds for running requests to end when the server stops"
    )

    header: tuple[tuple[str, str], ...] = option(
        (), _RESPONSES, FIELDS, "default response field, which an app may replace; repeatable"
    )
    date_header: bool = option(True, _RESPONSES, FLAG, "add Date unless the app does")
    server_header: bool = option(True, _RESPONSES, FLAG, "add Server unless the app does")

    log_level: str = option("info", _LOGS, _LOG_LEVELS, "least level of what is logged")
    access_log: bool = option(True, _LOGS, FLAG, "log each request when its response has ended")
    use_colors: bool | None = option(
        None, _LOGS, FLAG, "colour the level of log lines, by default on a terminal"
    )

    ssl_certfile: str | None = option(
        None, _TLS, PATH, "certificate chain, PEM; with it the server speaks TLS"
    )
    ssl_keyfile: str | None = option(
        None, _TLS, PATH, "private key, PEM, unless the certificate's file holds it"
    )
    ssl_keyfile_password: str | None = option(None, _TLS, TEXT, "password of the private key")
    ssl_ca_certs: str | None = option(
        None, _TLS, PATH, "certificates that sign client certificates, PEM"
    )
    ssl_cert_reqs: str = option("none", _TLS, _CERT_REQS, "whether clients show a certificate")
    ssl_ciphers: str | None = option(None, _TLS, TEXT, "ciphers for TLS 1.2, in OpenSSL's notation")
    ssl_min_version: str = option("1.2", _TLS, choice("1.2", "1.3"), "lowest version of TLS")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind: Kind = field.metadata["kind"]
            if not (value is None and field.default is None) and not kind.accepts(value):
                raise OptionError(field.name, value, kind.allowed)
        if self.root_path:
            path = "/" + self.root_path.strip("/")
            object.__setattr__(self, "root_path", path if path != "/" else "")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise OptionError("ssl_certfile", None, "a path, which ssl_keyfile needs")

    def replace(self, **options: Any) -> "Config":
        """A copy with some options changed."""
        return dataclasses.replace(self, **options)
