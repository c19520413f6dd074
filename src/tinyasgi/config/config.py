"""`Config`: every option, with its type, default, help and check.

The command line, the environment variables, the keys of files and `docs/options.md` are generated
from the fields of `Config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from . import kinds
from .kinds import Spelling, choice, number
from .options import Options, Repeated, option

if TYPE_CHECKING:
    from ssl import SSLContext

#: A function (config, make_default) that returns the TLS context of the server.
ContextFactory: TypeAlias = Callable[["Config", Callable[[], "SSLContext"]], "SSLContext"]

_AT_LEAST_ONE = number(1, example=4)
_BYTES = number(unit="bytes", example=1048576)
_LEVELS = {"10": "debug", "20": "info", "30": "warning", "40": "error", "50": "critical"}
_CERT_REQS = ("none", "optional", "required")  # numbered as in the module ssl
#: Implementations of WebSocket in uvicorn. They differ only inside.
_WEBSOCKETS = dict.fromkeys(("websockets", "websockets-sansio", "wsproto"), "auto")


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """All options of a server. `docs/options.md` describes each of them.

    Times are in seconds. The unit of a size is in its help. None means "not given": the default.
    `ws_ping_interval` and `ws_ping_timeout` are exceptions: None means 0, as in uvicorn.

    0 switches a limit off, with two exceptions: `timeout_keep_alive=0` switches keep-alive off,
    and `timeout_graceful_shutdown=0` cancels running requests at once.

    names: spellings of options for messages; by default those of Python, such as `port=80`.
    The constructor raises OptionError for a value that is not allowed.
    """

    factory: bool = option(
        False,
        "call the named object to create the app: a (coroutine) function or async context manager",
        heading="Application",
    )
    app_dir: str = option(".", "directory to import the app from", kinds.DIRECTORY)
    interface: str = option(
        "auto",
        "interface of the app; auto: detect it from its arguments",
        choice("auto", "asgi3", "asgi2", "wsgi"),
    )
    wsgi_threads: int = option(
        10, "maximum number of threads for a WSGI app; further requests wait", _AT_LEAST_ONE
    )
    wsgi_spool_size: int = option(
        1024 * 1024 * 1024,
        "maximum disk space for WSGI request bodies of a worker, in bytes; else 413 or 503; 0:"
        " unlimited",
        _BYTES,
    )
    lifespan: str = option(
        "auto", "ASGI lifespan; auto: on if the app supports it", choice("auto", "on", "off")
    )
    env_file: str | None = option(
        None, "file of NAME=VALUE lines to add to the environment; needs python-dotenv", kinds.PATH
    )
    root_path: str = option(
        "", "URL prefix of the app, whether a proxy strips it or not", kinds.ROOT_PATH
    )
    health_path: str | None = option(
        None,
        "health check answered by the server: 200, or 503 while stopping; not logged",
        kinds.URL_PATH,
    )
    cancel_on_disconnect: bool = option(
        False, "cancel the task of a request when its client disconnects"
    )
    pathsend: bool | None = option(
        None,
        "offer the ASGI extension http.response.pathsend, with which frameworks send files without"
        " a copy; default: unless the app imports middleware that compresses responses",
        kinds.FLAG,
    )

    host: str = option(
        "127.0.0.1",
        "host name or IP address to listen on; :: is all of IPv6 and IPv4",
        kinds.TEXT,
        heading="Address",
    )
    port: int = option(
        8000, "TCP port to listen on; 0: any free port", number(0, 65535, example=8000)
    )
    uds: str | None = option(
        None, "unix socket to listen on, instead of --host and --port", kinds.SOCKET
    )
    uds_mode: int = option(0o666, "permissions of the unix socket, as an octal number", kinds.MODE)
    uds_group: str | None = option(None, "group of the unix socket, by name or number", kinds.NAME)
    fd: int | None = option(
        None, "descriptor of a bound socket to listen on, instead of --host and --port", kinds.COUNT
    )
    bind: Repeated[str] = option(
        (),
        "address to listen on, instead of --host and --port: HOST:PORT, [IPV6]:PORT, unix:PATH or"
        " fd://N; repeatable",
        kinds.ADDRESSES,
    )
    backlog: int = option(
        2048, "maximum number of connections waiting to be accepted", number(1, 65535, example=2048)
    )

    metrics_bind: str | None = option(
        None,
        "address that serves Prometheus metrics at /metrics, without TLS: HOST:PORT, [IPV6]:PORT"
        " or unix:PATH",
        kinds.ADDRESS,
    )

    workers: int | None = option(
        None,
        "number of worker processes under a supervisor; without it, a single process serves",
        _AT_LEAST_ONE,
        heading="Processes",
        variable="WEB_CONCURRENCY",
    )
    preload: bool = option(
        False, "import the app once, then fork the workers, which share its memory; not on Windows"
    )
    worker_lifetime: float = option(0.0, "replace each worker after this many seconds; 0: never")
    worker_max_rss: int = option(
        0, "replace a worker that uses this many MiB of memory; 0: never; Linux only"
    )
    worker_timeout: float = option(
        0.0, "kill a worker whose event loop is blocked for this many seconds; 0: never"
    )
    timeout_start: float = option(
        300.0,
        "kill a worker that has not started after this many seconds; after half of this time, log"
        " its stack; 0: never",
    )
    pid: str | None = option(None, "file for the process id, removed at the end", kinds.PATH)
    user: str | None = option(
        None, "user of the worker processes, by name or number; needs root", kinds.NAME
    )
    group: str | None = option(
        None, "group of the worker processes, by name or number; needs root", kinds.NAME
    )
    umask: int | None = option(None, "umask of the server, as an octal number", kinds.MODE)
    name: str | None = option(
        None, "name in the titles of the processes; needs setproctitle", kinds.NAME
    )
    capture_output: bool = option(
        False, "write stdout and stderr of the app to --error-log-file, too"
    )

    reload: bool = option(False, "restart the app when its files change", heading="Development")
    reload_dir: Repeated[str] = option(
        (), "directory to watch, instead of the current one and --app-dir; repeatable", kinds.PATHS
    )
    reload_include: Repeated[str] = option(
        (), "pattern of files to watch in addition to *.py; repeatable", kinds.NAMES
    )
    reload_exclude: Repeated[str] = option(
        (), "pattern of files and directories not to watch; repeatable", kinds.NAMES
    )
    debug_blocking: float | None = option(
        None,
        "log the line that blocks the event loop for this many seconds; 0: disabled; default: 1"
        " with --reload",
        kinds.SECONDS,
    )

    loop: str = option(
        "auto",
        "event loop; auto: uvloop if installed; MODULE:ATTRIBUTE: a function that returns a loop",
        kinds.either(choice("auto", "asyncio", "uvloop", aliases={"none": "asyncio"}), kinds.NAMED),
        heading="Implementation",
    )
    http: str = option(
        "auto", "HTTP parser; auto: httptools if installed", choice("auto", "httptools", "h11")
    )

    http2: bool = option(True, "accept HTTP/2: by ALPN with TLS, by prior knowledge without")

    ws: str = option(
        "auto",
        "auto: accept WebSocket; none: treat handshakes as plain requests",
        choice("auto", "none", aliases=_WEBSOCKETS),
        heading="WebSocket",
    )
    ws_per_message_deflate: bool = option(True, "compress messages if the client supports it")
    ws_max_size: int = option(
        16 * 1024 * 1024,
        "maximum size of a message in bytes; else close with code 1009; 0: unlimited",
        _BYTES,
    )
    ws_max_queue: int = option(
        32, "maximum number of messages that wait for the app; then reading pauses", _AT_LEAST_ONE
    )
    ws_ping_interval: float = option(
        20.0, "send a ping after this many seconds without a frame; 0: never"
    )
    ws_ping_timeout: float = option(
        20.0, "close if nothing arrives within this many seconds after a ping; 0: no timeout"
    )

    limit_head_size: int = option(
        65536,
        "maximum size of request line and headers in bytes; else 414 or 431",
        number(256, unit="bytes", example=65536),
        heading="Limits",
    )
    limit_head_fields: int = option(
        100, "maximum number of request headers; else 431", _AT_LEAST_ONE
    )
    limit_body_size: int = option(
        0, "maximum size of a request body in bytes; else 413; 0: unlimited", _BYTES
    )
    limit_concurrency: int = option(
        0, "maximum number of concurrent requests; else 503; 0: unlimited"
    )
    limit_connections: int = option(
        0, "maximum number of open connections; others wait in the backlog; 0: unlimited"
    )
    limit_max_requests: int = option(
        0, "replace a worker, or stop a single process, after this many requests; 0: never"
    )
    limit_max_requests_jitter: int = option(
        0, "maximum number of requests to add at random to --limit-max-requests"
    )

    timeout_head: float = option(
        10.0,
        "seconds for request line and headers to arrive; else 408; 0: no timeout",
        heading="Time limits",
    )
    timeout_body: float = option(
        60.0, "seconds to wait for the next bytes of a request body; else 408; 0: no timeout"
    )
    min_rate_body: int = option(
        240,
        "minimum bytes per second of a body, averaged over --timeout-body; else 408; 0: no minimum",
    )
    timeout_keep_alive: float = option(
        75.0, "seconds a connection may be idle between requests; 0: close after each response"
    )
    timeout_write: float = option(
        60.0, "close if the client reads nothing for this many seconds; 0: no timeout"
    )
    min_rate_write: int = option(
        240,
        "minimum bytes per second that a client reads, averaged over --timeout-write; 0: no"
        " minimum",
    )
    shutdown_delay: float = option(0.0, "seconds to keep accepting connections after a stop signal")
    timeout_graceful_shutdown: float = option(
        25.0, "seconds for running requests to finish at shutdown; 0: cancel them at once"
    )

    proxy_headers: bool = option(
        True, "use forwarding headers from trusted proxies", heading="Proxies"
    )
    forwarded_fields: str = option(
        "x-forwarded",
        "forwarding headers to use: X-Forwarded-* or Forwarded (RFC 7239)",
        choice("x-forwarded", "forwarded"),
    )
    forwarded_allow_ips: Repeated[str] = option(
        ("127.0.0.1", "::1", "unix"),
        "trusted proxies: IP addresses, networks, unix for unix sockets, * for all; repeatable or"
        " comma-separated",
        kinds.PEERS,
        variable="FORWARDED_ALLOW_IPS",
    )
    proxy_protocol: bool = option(
        False, "require a PROXY protocol header (version 1 or 2) on connections of trusted proxies"
    )

    request_id_header: str | None = option(
        None, "header for request ids; kept from trusted proxies, else generated", kinds.HEADER_NAME
    )

    header: Repeated[tuple[str, str]] = option(
        (),
        "default response header; the app may override it; repeatable",
        kinds.HEADERS,
        heading="Responses",
    )
    date_header: bool = option(True, "add a Date header unless the app sets one")
    server_header: bool = option(True, "add a Server header unless the app sets one")

    log_level: str = option(
        "info",
        "minimum level of server messages",
        choice(*reversed(_LEVELS.values()), aliases={"trace": "debug", "5": "debug"} | _LEVELS),
        heading="Logs",
    )
    log_format: str = option(
        "text", "log format; json: one JSON object per line", choice("text", "json")
    )
    log_config: str | dict[str, Any] | None = option(
        None,
        "logging configuration: a .json, .toml or .yaml file for dictConfig, or an .ini file for"
        " fileConfig; in Python also a dict",
        kinds.LOG_CONFIG,
    )
    error_log_file: str = option(
        "-", "file for server messages; -: stderr; SIGUSR1 reopens it", kinds.STREAM
    )
    use_colors: bool | None = option(
        None, "colour the log level; default: if stderr is a terminal", kinds.FLAG
    )
    access_log: bool = option(True, "log each request when its response has ended")
    access_log_format: str | None = option(
        None,
        "default, common, combined, json, or a format with fields such as %(h)s; default: as"
        " --log-format",
        kinds.NAME,
    )
    access_log_exclude: Repeated[str] = option(
        (),
        "do not log 2xx responses for this path or pattern, such as /static/*; repeatable",
        kinds.URL_PATTERNS,
    )
    access_log_file: str = option(
        "-", "file for access log lines; -: stdout; SIGUSR1 reopens it", kinds.STREAM
    )

    ssl_certfile: Repeated[str] = option(
        (),
        "certificate chain (PEM); enables TLS; repeatable: chosen by SNI, else the first",
        kinds.PATHS,
        heading="TLS",
    )
    ssl_keyfile: Repeated[str] = option(
        (),
        "private key (PEM), if not in --ssl-certfile; repeatable, in the same order",
        kinds.PATHS,
    )
    ssl_keyfile_password: str | None = option(
        None, "password of encrypted private keys", kinds.SECRET
    )
    ssl_ca_certs: str | None = option(
        None, "CA certificates to verify client certificates (PEM)", kinds.PATH
    )
    ssl_cert_reqs: str = option(
        "none",
        "whether clients must send a certificate",
        choice(*_CERT_REQS, aliases={str(i): word for i, word in enumerate(_CERT_REQS)}),
    )
    ssl_ciphers: str | None = option(
        None, "ciphers for TLS 1.2, in the notation of OpenSSL", kinds.NAME
    )
    ssl_min_version: str = option("1.2", "minimum TLS version", choice("1.2", "1.3"))
    ssl_context_factory: ContextFactory | str | None = option(
        None, "function (config, make_default) that returns an ssl.SSLContext", kinds.FUNCTION
    )

    def __post_init__(self, names: Mapping[str, Spelling] | None) -> None:
        super().__post_init__(names)
        if len(self.ssl_keyfile) > len(self.ssl_certfile):
            certfile = self.spelling("ssl_certfile")
            text = f"needs {certfile}: give one certificate for each key"
            raise self.error("ssl_keyfile", self.ssl_keyfile[-1], text)
        if self.ssl_cert_reqs != "none" and self.ssl_context_factory is None:
            # Without a certificate, the server would not use TLS at all.
            for needed in ("ssl_certfile", "ssl_ca_certs"):
                if not getattr(self, needed):
                    text = f"needs {self.spelling(needed)}"
                    raise self.error("ssl_cert_reqs", self.ssl_cert_reqs, text)

    @property
    def speaks_tls(self) -> bool:
        """Whether connections begin with a TLS handshake."""
        return bool(self.ssl_certfile or self.ssl_context_factory)
