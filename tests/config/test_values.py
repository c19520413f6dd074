"""Every option with None, 0, an empty text and the default of uvicorn.

Each value either has its usual meaning or is an error.
"""

import dataclasses
import inspect
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.test_cli import alone, command, dashed, needed, refuse
from tinyasgi import Config
from tinyasgi.config.kinds import FLAG, OptionError

__all__ = ["alone", "command"]  # fixtures

#: Outcome: the value is an error.
X = object()
#: Outcome: the default value.
D = object()
#: uvicorn has no option of this name.
NONE = object()
LOGGING = uvicorn.config.LOGGING_CONFIG
DEFAULT_PEERS = ("127.0.0.1", "::1", "unix")

#: The outcome of five values: None, 0, "", the default of uvicorn, and an empty text on the command
#: line, as in `--host ""`. None means "not given", with two exceptions as in uvicorn: no pings, and
#: no timeout for them. 0 means "no limit", with two exceptions as in uvicorn: no keep-alive, and no
#: time for a graceful shutdown.
OUTCOMES: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    # option: None, 0, "", default of uvicorn, "" on the command line
    "factory": (D, X, X, False, NONE),
    "app_dir": (D, X, "", NONE, ""),  # the current directory; in uvicorn an argument of `run`
    "interface": (D, X, X, "auto", X),
    "wsgi_threads": (D, X, X, NONE, X),
    "wsgi_spool_size": (D, 0, X, NONE, X),
    "lifespan": (D, X, X, "auto", X),
    "env_file": (None, X, X, None, X),
    "root_path": (D, X, "", "", ""),
    "health_path": (None, X, X, NONE, X),
    "cancel_on_disconnect": (D, X, X, NONE, NONE),
    "pathsend": (None, X, X, NONE, NONE),
    "host": (D, X, "", "127.0.0.1", ""),  # all addresses, as for uvicorn
    "port": (D, 0, X, 8000, X),
    "uds": (None, X, X, None, X),
    "uds_mode": (D, 0, X, NONE, X),
    "uds_group": (None, X, X, NONE, X),
    "fd": (None, 0, X, None, X),
    "bind": ((), X, X, NONE, X),
    "backlog": (D, X, X, 2048, X),
    "metrics_bind": (None, X, X, NONE, X),
    "workers": (None, X, X, None, X),
    "preload": (D, X, X, NONE, NONE),
    "worker_lifetime": (D, 0, X, NONE, X),
    "worker_max_rss": (D, 0, X, NONE, X),
    "worker_timeout": (D, 0, X, NONE, X),
    "timeout_start": (D, 0, X, NONE, X),
    "pid": (None, X, X, NONE, X),
    "user": (None, X, X, NONE, X),
    "group": (None, X, X, NONE, X),
    "umask": (None, 0, X, NONE, X),
    "name": (None, X, X, NONE, X),
    "capture_output": (D, X, X, NONE, NONE),
    "reload": (D, X, X, False, NONE),
    "reload_dir": ((), X, X, NONE, X),
    "reload_include": ((), X, X, NONE, X),
    "reload_exclude": ((), X, X, NONE, X),
    "debug_blocking": (None, 0, X, NONE, X),
    "loop": (D, X, X, "auto", X),
    "http": (D, X, X, "auto", X),
    "http2": (D, X, X, False, NONE),
    "ws": (D, X, X, "auto", X),
    "ws_per_message_deflate": (D, X, X, True, NONE),
    "ws_max_size": (D, 0, X, 16 * 1024 * 1024, X),
    "ws_max_queue": (D, X, X, 32, X),
    "ws_ping_interval": (0, 0, X, 20.0, X),
    "ws_ping_timeout": (0, 0, X, 20.0, X),
    "limit_head_size": (D, X, X, NONE, X),
    "limit_head_fields": (D, X, X, NONE, X),
    "limit_body_size": (D, 0, X, NONE, X),
    "limit_concurrency": (D, 0, X, D, X),
    "limit_connections": (D, 0, X, NONE, X),
    "limit_max_requests": (D, 0, X, D, X),
    "limit_max_requests_jitter": (D, 0, X, 0, X),
    "timeout_head": (D, 0, X, NONE, X),
    "timeout_body": (D, 0, X, NONE, X),
    "min_rate_body": (D, 0, X, NONE, X),
    "timeout_keep_alive": (D, 0, X, 5, X),
    "timeout_write": (D, 0, X, NONE, X),
    "min_rate_write": (D, 0, X, NONE, X),
    "shutdown_delay": (D, 0, X, NONE, X),
    "timeout_graceful_shutdown": (D, 0, X, D, X),  # uvicorn: no timeout
    "proxy_headers": (D, X, X, True, NONE),
    "forwarded_fields": (D, X, X, NONE, X),
    "forwarded_allow_ips": (DEFAULT_PEERS, X, (), DEFAULT_PEERS, ()),  # "": no proxy is trusted
    "proxy_protocol": (D, X, X, NONE, NONE),
    "request_id_header": (None, X, X, NONE, X),
    "header": ((), X, X, NONE, X),
    "date_header": (D, X, X, True, NONE),
    "server_header": (D, X, X, True, NONE),
    "log_level": (D, X, X, D, X),
    "log_format": (D, X, X, NONE, X),
    "log_config": (None, X, X, LOGGING, X),
    "error_log_file": (D, X, X, NONE, X),
    "use_colors": (None, X, X, None, NONE),
    "access_log": (D, X, X, True, NONE),
    "access_log_format": (None, X, X, NONE, X),
    "access_log_exclude": ((), X, X, NONE, X),
    "access_log_file": (D, X, X, NONE, X),
    "ssl_certfile": ((), X, X, (), X),
    "ssl_keyfile": ((), X, X, (), X),
    "ssl_keyfile_password": (None, X, "", None, ""),
    "ssl_ca_certs": (None, X, X, None, X),
    "ssl_cert_reqs": (D, "none", X, "none", X),  # 0 is ssl.CERT_NONE
    "ssl_ciphers": (None, X, X, None, X),
    "ssl_min_version": (D, X, X, NONE, X),
    "ssl_context_factory": (None, X, X, None, X),
}
FIELDS = {field.name: field for field in dataclasses.fields(Config)}

each = pytest.mark.parametrize("name", OUTCOMES)


def check(name: str, value: Any, outcome: Any) -> None:
    """Check that a value has the expected outcome."""
    if outcome is D:
        assert Config(**{name: value}) == Config()
        return
    if outcome is not X:
        assert getattr(Config(**{name: value}), name) == outcome
        return
    with pytest.raises(OptionError) as raised:
        Config(**{name: value})
    message = str(raised.value)
    assert message.startswith(f"{name}=")
    assert message.endswith(f": expected {FIELDS[name].metadata['kind'].expected}")
    assert len(message) < 500


def test_table_is_complete() -> None:
    assert list(OUTCOMES) == list(FIELDS)


@each
def test_none(name: str) -> None:
    check(name, None, OUTCOMES[name][0])


@each
def test_zero(name: str) -> None:
    check(name, 0, OUTCOMES[name][1])


@each
def test_empty_text(name: str) -> None:
    check(name, "", OUTCOMES[name][2])


@each
@pytest.mark.parametrize("value", [b"bytes", {}, object(), {"a"}, 1j, -1])
def test_wrong_type(name: str, value: Any) -> None:
    check(name, value, X)


@each
def test_flags_are_not_numbers(name: str) -> None:
    is_flag = FIELDS[name].metadata["kind"] is FLAG
    check(name, True, True if is_flag else X)
    if is_flag:
        check(name, 1, X)


@each
def test_default_of_uvicorn(name: str) -> None:
    parameters = inspect.signature(uvicorn.Config).parameters
    outcome = OUTCOMES[name][3]
    assert (name in parameters) is (outcome is not NONE)
    if outcome is not NONE:
        check(name, parameters[name].default, outcome)


@each
def test_empty_text_on_the_command_line(name: str, command: Any, capsys: Any) -> None:
    outcome = OUTCOMES[name][4]
    words = [dashed(name), "", *needed(name), "m:a"]
    if FIELDS[name].metadata["kind"] is FLAG:
        assert outcome is NONE  # it takes no value
    elif outcome is X:
        assert f" {dashed(name)} '': expected " in refuse(capsys, *words)
    else:
        assert getattr(command(*words)[1], name) == outcome


@each
def test_empty_variable(name: str, command: Any) -> None:
    """An empty variable counts as not set."""
    assert command("m:a", **{f"TINYASGI_{name.upper()}": ""})[1] == Config()


# Python objects of other types.


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("ssl_cert_reqs", ssl.CERT_REQUIRED, "required"),
        ("ssl_cert_reqs", ssl.CERT_OPTIONAL, "optional"),
        ("log_level", "INFO", "info"),
        ("log_level", "trace", "debug"),
        ("log_level", 30, "warning"),
        ("log_level", 5, "debug"),
        ("ws", "websockets-sansio", "auto"),
        ("loop", "none", "asyncio"),
        ("loop", "site.loops:make", "site.loops:make"),
        ("ssl_certfile", Path("a.pem"), ("a.pem",)),
        ("ssl_certfile", [Path("a.pem"), "b.pem"], ("a.pem", "b.pem")),
        ("ssl_ca_certs", Path("a.pem"), "a.pem"),
        ("env_file", Path(".env"), ".env"),
        ("app_dir", Path("src"), "src"),
        ("access_log_file", Path("log"), "log"),
        ("header", [["A", "1"], ("B", "2")], (("A", "1"), ("B", "2"))),
        ("forwarded_allow_ips", "*", ("*",)),
        ("forwarded_allow_ips", "10.0.0.1, 10.0.0.2", ("10.0.0.1", "10.0.0.2")),
        ("reload_dir", [], ()),
    ],
)
def test_conversion(name: str, value: Any, meaning: Any) -> None:
    needs = {"ssl_certfile": "a", "ssl_ca_certs": "a"} if name == "ssl_cert_reqs" else {}
    config = Config(**needs, **{name: value})
    assert getattr(config, name) == meaning
    hash(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uds", "a\0b"),
        ("ssl_certfile", ["a\0b"]),
        ("request_id_header", "\udcff"),
        ("log_level", 25),
        ("timeout_head", 1e10),
        ("header", [["A"]]),
        ("header", [None]),
        ("header", [80]),
        ("header", ["A: 1"]),
        ("loop", "other"),
        ("uds", "@name"),
    ],
)
def test_error(name: str, value: Any) -> None:
    check(name, value, X)
