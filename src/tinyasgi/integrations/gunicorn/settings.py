"""The settings of gunicorn, and their translation."""

from typing import Any

from ...config.kinds import OptionError
from ...server.shutdown import LAST, LEAVE

#: Seconds of `graceful_timeout` that are reserved for idle clients and for cancelled requests. At
#: the end of `graceful_timeout`, the master kills the worker.
SPARE = LEAVE + 2 * LAST
#: Settings with another name here.
RENAMED = {
    "asgi_lifespan": "lifespan",
    "asgi_loop": "loop",
    "root_path": "root_path",
    "threads": "wsgi_threads",
    "websocket_max_message_size": "ws_max_size",
    "worker_connections": "limit_connections",
}
#: Settings that this worker class does not apply.
UNSUPPORTED = (
    "asgi_disconnect_grace_period",
    "casefold_http_method",
    "do_handshake_on_connect",
    "forwarder_headers",
    "header_map",
    "http2_cleartext",
    "http2_initial_window_size",
    "http2_max_concurrent_streams",
    "http2_max_frame_size",
    "http2_max_header_list_size",
    "http_parser",
    "permit_obsolete_folding",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "protocol",
    "secure_scheme_headers",
    "sendfile",
    "ssl_version",
    "strip_header_spaces",
    "suppress_ragged_eofs",
    "tmp_upload_dir",
    "uwsgi_allow_ips",
)


def is_set(cfg: Any, name: str) -> bool:
    """Return whether the user has set a setting to another value than its default."""
    setting = cfg.settings.get(name)
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
    found |= {ours: getattr(cfg, name) for name, ours in RENAMED.items() if is_set(cfg, name)}
    return found | (_tls(cfg) if cfg.is_ssl else {})


def _tls(cfg: Any) -> dict[str, Any]:
    found = {
        "ssl_certfile": cfg.certfile,
        "ssl_keyfile": cfg.keyfile,
        "ssl_cert_reqs": cfg.cert_reqs,
        "ssl_ca_certs": cfg.ca_certs,
        "ssl_ciphers": cfg.ciphers,
    }
    if is_set(cfg, "ssl_context"):
        found["ssl_context_factory"] = lambda _, make_default: cfg.ssl_context(cfg, make_default)
    return found
