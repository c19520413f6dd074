"""Every option, written once: name, type, default, help and check.

The command line, the names in the environment and in files, and `docs/options.md` follow from the
fields of `Config`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .kinds import (
    ADDRESS,
    ADDRESSES,
    DIRECTORY,
    FIELD_NAME,
    FIELDS,
    FLAG,
    FUNCTION,
    MODE,
    NAME,
    PATH,
    PATHS,
    PATTERNS,
    PEERS,
    SECONDS,
    SECRET,
    STREAM,
    TEXT,
    TEXTS,
    URL_PATH,
    Kind,
    OptionError,
    Several,
    as_root,
    choice,
    name_of,
    number,
    option,
)

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["Config"]

#: Called with the options and with what makes the default context.
ContextFactory: TypeAlias = Callable[["Config", Callable[[], "SSLContext"]], "SSLContext"]

_COUNT = number()
_INTERFACES = choice("auto", "asgi3", "asgi2", "wsgi")
_LIFESPANS = choice("auto", "on", "off")
_LOOPS = choice("auto", "asyncio", "uvloop")
_PARSERS = choice("auto", "httptools", "h11")
_WEBSOCKETS = choice("auto", "none")
_LOG_FORMATS = choice("text", "json")
_NUMBERS = {"10": "debug", "20": "info", "30": "warning", "40": "error", "50": "critical"}
_LEVELS = choice(*reversed(_NUMBERS.values()), aliases={"trace": "debug"} | _NUMBERS)
_FORWARDED = choice("x-forwarded", "forwarded")
_REQS = ("none", "optional", "required")  # by their numbers in the module ssl, too
_CERT_REQS = choice(*_REQS, aliases={str(number): word for number, word in enumerate(_REQS)})
_TLS_VERSIONS = choice("1.2", "1.3")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of a server; `docs/options.md` lists them.

    Times are in seconds, and sizes in bytes unless the help says otherwise. 0 switches a limit
    off, but as `timeout_keep_alive` it switches keep-alive off, and as `timeout_graceful_shutdown`
    it cancels requests at once; None is "not given". Raises OptionError for a value that is not
    allowed. names: what messages call the options, if not as here.
    """

    factory: bool = option(
        False,
        FLAG,
        "call the named object for the app: a function, a coroutine function or an async context"
        " manager",
        heading="Application",
    )
    app_dir: str = option(".", DIRECTORY, "directory to import the app from")
    interface: str = option("auto", _INTERFACES, "what the app speaks: a version of ASGI, or WSGI")
    wsgi_threads: int = option(
        10, number(1), "most threads that run a WSGI app, further requests wait for one"
    )
    wsgi_spool_size: int = option(
        1024 * 1024 * 1024,
        _COUNT,
        "maximum size of the temporary files with request bodies for a WSGI app, all of a worker"
        " together, in bytes; else 413 or 503; 0: unlimited",
    )
    lifespan: str = option(
        "auto", _LIFESPANS, "tell the app of startup and shutdown; auto: unless it refuses at once"
    )
    env_file: str | None = option(
        None,
        PATH,
        "file of environment variables (.env), for the app, too; what is set stays; needs"
        " python-dotenv",
    )
    root_path: str = option("", TEXT, "path of the app, whether or not a proxy takes it off")
    health_path: str | None = option(
        None,
        URL_PATH,
        "answered without the app and not logged: 200, and 503 once the server stops",
    )
    cancel_on_disconnect: bool = option(False, FLAG, "cancel a request when its client leaves")

    host: str = option(
        "127.0.0.1",
        TEXT,
        "name or address to listen on; `::` is all of IPv6 and IPv4",
        heading="Address",
    )
    port: int = option(8000, number(0, 65535), "TCP port; 0 takes a free one")
    uds: str | None = option(None, PATH, "unix socket to listen on instead")
    uds_mode: int = option(0o666, MODE, "permissions of the unix socket")
    uds_group: str | None = option(None, NAME, "group of the unix socket, by name or number")
    fd: int | None = option(None, _COUNT, "descriptor of a bound socket to listen on instead")
    bind: Several[str] = option(
        (),
        ADDRESSES,
        "where to listen instead: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; repeatable",
    )
    backlog: int = option(2048, number(1, 65535), "connections that may wait to be accepted")

    metrics_bind: str | None = option(
        None,
        ADDRESS,
        "where /metrics is served to Prometheus: HOST:PORT, [IPV6]:PORT or unix:PATH; no TLS",
    )

    workers: int = option(
        1,
        number(1),
        "processes that serve the app, by default what WEB_CONCURRENCY says",
        heading="Processes",
        variable="WEB_CONCURRENCY",
    )
    preload: bool = option(
        False,
        FLAG,
        "import the app once and fork the workers: they share its memory; not on Windows",
    )
    worker_lifetime: float = option(
        0.0, SECONDS, "seconds until a worker is replaced by a new one; 0: no end"
    )
    worker_max_rss: int = option(
        0, _COUNT, "MiB of memory from which on a worker is replaced by a new one; 0: any; Linux"
    )
    worker_timeout: float = option(
        0.0, SECONDS, "seconds of a blocked event loop until a worker is killed; 0: any"
    )
    reload: bool = option(
        False, FLAG, "start the app anew when its files change", heading="Development"
    )
    reload_dir: Several[str] = option(
        (), PATHS, "directory to watch, by default the current one and that of the app; repeatable"
    )
    reload_include: Several[str] = option(
        (), TEXTS, "pattern of files to watch besides `*.py`; repeatable"
    )
    reload_exclude: Several[str] = option(
        (), TEXTS, "pattern of files and directories not to watch; repeatable"
    )
    debug_blocking: float | None = option(
        None,
        SECONDS,
        "log where the event loop is blocked for so many seconds; 0: don't; 1 with `--reload`",
    )

    loop: str = option(
        "auto", _LOOPS, "event loop; auto: uvloop when it is installed", heading="Implementation"
    )
    http: str = option("auto", _PARSERS, "HTTP parser; auto: httptools when it is installed")

    ws: str = option(
        "auto", _WEBSOCKETS, "auto: serve WebSocket; none: as plain HTTP", heading="WebSocket"
    )
    ws_per_message_deflate: bool = option(True, FLAG, "compress messages if the client can")
    ws_max_size: int = option(
        16 * 1024 * 1024, _COUNT, "bytes of a message; more closes with 1009; 0: any"
    )
    ws_max_queue: int = option(
        32, number(1), "messages that may wait for the app before reading pauses"
    )
    ws_ping_interval: float = option(
        20.0, SECONDS, "seconds without a frame until the peer is pinged; 0: never"
    )
    ws_ping_timeout: float = option(
        20.0, SECONDS, "seconds for a sign of life after a ping; 0: any"
    )

    limit_head_size: int = option(
        65536,
        number(256),
        "bytes of a request line with its fields; more is 414 or 431",
        heading="Limits",
    )
    limit_head_fields: int = option(100, number(1), "fields of a request; more is 431")
    limit_body_size: int = option(0, _COUNT, "bytes of a request body, more is 413; 0: any")
    limit_concurrency: int = option(0, _COUNT, "unanswered requests at once, more get 503; 0: any")
    limit_connections: int = option(0, _COUNT, "connections at once, more have to wait; 0: any")
    limit_max_requests: int = option(
        0,
        _COUNT,
        "requests until a worker is replaced, or the server stops when it serves alone; 0: no end",
    )
    limit_max_requests_jitter: int = option(0, _COUNT, "most requests added to it at random")

    timeout_head: float = option(
        10.0, SECONDS, "seconds for a whole head to arrive, else 408; 0: any", heading="Time limits"
    )
    timeout_body: float = option(60.0, SECONDS, "seconds without a byte of an awaited body; 0: any")
    min_rate_body: int = option(
        240,
        _COUNT,
        "bytes per second that an awaited body has to bring, averaged over --timeout-body; 0: any",
    )
    timeout_keep_alive: float = option(
        75.0, SECONDS, "seconds that a connection may be idle between requests; 0: no keep-alive"
    )
    timeout_write: float = option(
        60.0, SECONDS, "seconds in which a peer reads nothing of a response; 0: any"
    )
    min_rate_write: int = option(
        240,
        _COUNT,
        "bytes per second that a peer has to read of a response, averaged over --timeout-write;"
        " 0: any",
    )
    shutdown_delay: float = option(
        0.0, SECONDS, "seconds in which a server that is told to stop still accepts connections"
    )
    timeout_graceful_shutdown: float = option(
        25.0,
        SECONDS,
        "seconds for running requests to end when the server stops; 0: cancel them at once",
    )

    proxy_headers: bool = option(
        True, FLAG, "believe what trusted proxies say of their clients", heading="Proxies"
    )
    forwarded_fields: str = option(
        "x-forwarded",
        _FORWARDED,
        "fields in which they say it: X-Forwarded-*, or Forwarded (RFC 7239)",
    )
    forwarded_allow_ips: Several[str] = option(
        ("127.0.0.1", "::1", "unix"),
        PEERS,
        "proxies that are trusted: addresses and networks, unix for unix sockets, * for all;"
        " by default what FORWARDED_ALLOW_IPS says; repeatable, or with commas",
        variable="FORWARDED_ALLOW_IPS",
    )
    proxy_protocol: bool = option(
        False,
        FLAG,
        "take a header of the PROXY protocol, version 1 or 2, that trusted proxies have to send",
    )

    request_id_header: str | None = option(
        None,
        FIELD_NAME,
        "field of requests and responses for an id, which is taken from trusted proxies, else made",
    )

    header: Several[tuple[str, str]] = option(
        (),
        FIELDS,
        "response header, unless the app sets one of the same name; repeatable, all are sent",
        heading="Responses",
    )
    date_header: bool = option(True, FLAG, "add Date unless the app does")
    server_header: bool = option(True, FLAG, "add Server unless the app does")

    log_level: str = option("info", _LEVELS, "least level of what is logged", heading="Logs")
    log_format: str = option(
        "text", _LOG_FORMATS, "format of all that is logged; json: an object in each line"
    )
    log_config: str | None = option(
        None, PATH, "logging configuration for dictConfig, a .json, .toml or .yaml file"
    )
    error_log_file: str = option(
        "-", STREAM, "file to append what the server tells to; -: stderr; USR1 opens it again"
    )
    use_colors: bool | None = option(None, FLAG, "colour the level; by default on a terminal")
    access_log: bool = option(True, FLAG, "log each request when its response has ended")
    access_log_format: str | None = option(
        None,
        NAME,
        "default, common, combined, json, or a format of gunicorn's atoms; by default json with"
        " `--log-format json`",
    )
    access_log_exclude: Several[str] = option(
        (),
        PATTERNS,
        "path, or pattern of paths as `/static/*`, whose successes (2xx) are not logged;"
        " repeatable",
    )
    access_log_file: str = option(
        "-", STREAM, "file to append access lines to; -: stdout; USR1 opens it again"
    )

    ssl_certfile: Several[str] = option(
        (),
        PATHS,
        "certificate chain, PEM; with it the server speaks TLS; repeatable: a client gets the one"
        " for the name that it asks for, else the first",
        heading="TLS",
    )
    ssl_keyfile: Several[str] = option(
        (),
        PATHS,
        "private key, PEM, unless certfile has it; repeatable, in the order of the certificates",
    )
    ssl_keyfile_password: str | None = option(None, SECRET, "password of the private keys")
    ssl_ca_certs: str | None = option(None, PATH, "certificates that sign those of clients, PEM")
    ssl_cert_reqs: str = option("none", _CERT_REQS, "whether clients show a certificate")
    ssl_ciphers: str | None = option(None, NAME, "ciphers for TLS 1.2, in OpenSSL's notation")
    ssl_min_version: str = option("1.2", _TLS_VERSIONS, "lowest version of TLS")
    ssl_context_factory: ContextFactory | str | None = option(
        None,
        FUNCTION,
        "function that makes the TLS context; it gets the options, and a function that makes the"
        " default context",
    )

    names: InitVar[Mapping[str, str] | None] = None

    def __post_init__(self, names: Mapping[str, str] | None) -> None:
        object.__setattr__(self, "_names", names or {})
        for field in dataclasses.fields(self):
            given, kind = getattr(self, field.name), field.metadata["kind"]
            value = field.default if given is None and kind.repeatable else kind.convert(given)
            if not (value is None and field.default is None) and not kind.accepts(value):
                raise self.wrong(field.name, given, kind.allowed)
            if value is not given:
                object.__setattr__(self, field.name, value)
        object.__setattr__(self, "root_path", as_root(self.root_path))
        if len(self.ssl_keyfile) > len(self.ssl_certfile):
            reason = f"possible without a certificate for each in {self.spelled('ssl_certfile')}"
            raise self.wrong("ssl_keyfile", self.ssl_keyfile, reason)
        verifies = self.ssl_cert_reqs != "none" and self.ssl_context_factory is None
        if verifies and not self.ssl_certfile:  # else it would be served without TLS
            reason = f"possible without {self.spelled('ssl_certfile')}"
            raise self.wrong("ssl_cert_reqs", self.ssl_cert_reqs, reason)
        if verifies and self.ssl_ca_certs is None:
            reason = f"possible without {self.spelled('ssl_ca_certs')}"
            raise self.wrong("ssl_cert_reqs", self.ssl_cert_reqs, reason)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, where a function is found by its name. Raises OptionError."""
        state, function = vars(self).copy(), self.ssl_context_factory
        if callable(function):
            state["ssl_context_factory"] = name = name_of(function)
            if name is None:
                needed = "a function of a module, which other processes import"
                raise self.wrong("ssl_context_factory", function, needed)
        return state

    def spelled(self, option: str) -> str:
        """An option as its user calls it: `--port`, `TINYASGI_PORT`, in Python `port`."""
        return str(vars(self)["_names"].get(option, option))

    def wrong(self, option: str, value: Any, allowed: str) -> OptionError:
        """The error that an option can't have a value, which it may have if it is `allowed`."""
        kind: Kind = type(self).__dataclass_fields__[option].metadata["kind"]
        return OptionError(self.spelled(option), kind.told(value), allowed)

    @property
    def speaks_tls(self) -> bool:
        """Whether connections begin with a TLS handshake."""
        return bool(self.ssl_certfile or self.ssl_context_factory)

    def resolved(self) -> "Config":
        """The same with absolute paths, for an app may change the current directory."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name)]
        return self.replace(
            **{
                field.name: field.metadata["kind"].resolve(getattr(self, field.name))
                for field in fields
            }
        )

    def replace(self, **options: Any) -> "Config":
        """A copy with some options changed."""
        return dataclasses.replace(self, names=vars(self)["_names"], **options)
