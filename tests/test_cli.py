"""The command line and the environment: every option, and errors."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tinyasgi
from tinyasgi import Config, signals
from tinyasgi.cli import main

#: Option, text, value; flags have no text.
OPTIONS: list[tuple[str, str | None, Any]] = [
    ("factory", None, True),
    ("app_dir", "src", "src"),
    ("interface", "asgi2", "asgi2"),
    ("wsgi_threads", "20", 20),
    ("wsgi_spool_size", "1000", 1000),
    ("lifespan", "on", "on"),
    ("env_file", ".env", ".env"),
    ("root_path", "/api", "/api"),
    ("health_path", "/healthz", "/healthz"),
    ("cancel_on_disconnect", None, True),
    ("pathsend", None, True),
    ("host", "::", "::"),
    ("port", "80", 80),
    ("uds", "server.sock", "server.sock"),
    ("uds_mode", "640", 0o640),
    ("uds_group", "www-data", "www-data"),
    ("fd", "3", 3),
    ("bind", "[::]:80", ("[::]:80",)),
    ("backlog", "10", 10),
    ("metrics_bind", "[::1]:9100", "[::1]:9100"),
    ("workers", "4", 4),
    ("preload", None, True),
    ("worker_lifetime", "3600", 3600.0),
    ("worker_max_rss", "500", 500),
    ("worker_timeout", "30", 30.0),
    ("timeout_start", "60", 60.0),
    ("pid", "server.pid", "server.pid"),
    ("user", "www-data", "www-data"),
    ("group", "33", "33"),
    ("umask", "027", 0o27),
    ("name", "site", "site"),
    ("capture_output", None, True),
    ("reload", None, True),
    ("reload_dir", "src", ("src",)),
    ("reload_include", "*.html", ("*.html",)),
    ("reload_exclude", "tests/*", ("tests/*",)),
    ("debug_blocking", "0.5", 0.5),
    ("loop", "asyncio", "asyncio"),
    ("http", "h11", "h11"),
    ("http2", None, False),
    ("ws", "none", "none"),
    ("ws_per_message_deflate", None, False),
    ("ws_max_size", "1000", 1000),
    ("ws_max_queue", "5", 5),
    ("ws_ping_interval", "0", 0.0),
    ("ws_ping_timeout", "2.5", 2.5),
    ("limit_head_size", "1000", 1000),
    ("limit_head_fields", "10", 10),
    ("limit_body_size", "5000", 5000),
    ("limit_concurrency", "7", 7),
    ("limit_connections", "8", 8),
    ("limit_max_requests", "100", 100),
    ("limit_max_requests_jitter", "10", 10),
    ("timeout_head", "2.5", 2.5),
    ("timeout_body", "3", 3.0),
    ("min_rate_body", "1000", 1000),
    ("timeout_keep_alive", "0", 0.0),
    ("timeout_write", "70", 70.0),
    ("min_rate_write", "0", 0),
    ("shutdown_delay", "3", 3.0),
    ("timeout_graceful_shutdown", "5", 5.0),
    ("proxy_headers", None, False),
    ("forwarded_fields", "forwarded", "forwarded"),
    ("forwarded_allow_ips", "10.0.0.0/8, unix", ("10.0.0.0/8", "unix")),
    ("proxy_protocol", None, True),
    ("request_id_header", "X-Request-ID", "X-Request-ID"),
    ("header", "X-Served-By: me: and you", (("X-Served-By", "me: and you"),)),
    ("date_header", None, False),
    ("server_header", None, False),
    ("log_level", "debug", "debug"),
    ("log_format", "json", "json"),
    ("log_config", "log.toml", "log.toml"),
    ("error_log_file", "error.log", "error.log"),
    ("use_colors", None, True),
    ("access_log", None, False),
    ("access_log_format", "%(h)s", "%(h)s"),
    ("access_log_exclude", "/health", ("/health",)),
    ("access_log_file", "access.log", "access.log"),
    ("ssl_certfile", "cert.pem", ("cert.pem",)),
    ("ssl_keyfile", "key.pem", ("key.pem",)),
    ("ssl_keyfile_password", "secret", "secret"),
    ("ssl_ca_certs", "ca.pem", "ca.pem"),
    ("ssl_cert_reqs", "required", "required"),
    ("ssl_ciphers", "ECDHE+AESGCM", "ECDHE+AESGCM"),
    ("ssl_min_version", "1.3", "1.3"),
    ("ssl_context_factory", "module:function", "module:function"),
]


#: Options that other options require.
NEEDED = {"ssl_keyfile": ["ssl_certfile"], "ssl_cert_reqs": ["ssl_certfile", "ssl_ca_certs"]}


def dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def needed(name: str) -> list[str]:
    return [f"{dashed(other)}=some.pem" for other in NEEDED.get(name, [])]


@pytest.fixture(autouse=True)
def give_signals_back() -> Iterator[None]:
    """Restore the signal handlers, which the command replaces permanently."""
    yield
    if signals.are_taken():
        signals.take().restore()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, without variables for options."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").touch()
    for name in os.environ:
        if name.startswith("TINYASGI_") or name in ("FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY"):
            monkeypatch.delenv(name)


def needs_dotenv(*words: str) -> None:
    """Skip a test of --env-file if python-dotenv is not installed."""
    if any("ENV_FILE" in word.upper().replace("-", "_") for word in words):
        pytest.importorskip("dotenv")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Config]]:
    """Run the command line; return the app and its options."""
    runs = []

    def run(app: Any, config: Config) -> None:
        runs.append((app, config))

    monkeypatch.setattr("tinyasgi.cli.run", run)

    def command(*words: str, **environment: str) -> tuple[Any, Config]:
        needs_dotenv(*words, *environment)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as leaving:
            main(words)
        assert not leaving.value.code
        return runs.pop()

    return command


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run an invalid command line; return the error message, which is one line."""
    needs_dotenv(*words)
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_table_is_complete() -> None:
    assert [name for name, _, _ in OPTIONS] == [field.name for field in dataclasses.fields(Config)]


@pytest.mark.parametrize(("name", "text", "value"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_option(command: Any, name: str, text: str | None, value: Any) -> None:
    more = needed(name)
    if text is None:
        words = [dashed(name) if value else dashed(f"no_{name}")]
    else:
        words = [dashed(name), text]
    app, config = command(*words, *more, "module:app")
    assert app == "module:app"
    assert getattr(config, name) == value
    assert value != getattr(Config(), name)
    if text is not None:
        assert command("module:app", f"{dashed(name)}={text}", *more)[1] == config


@pytest.mark.parametrize(("name", "text", "value"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_environment(command: Any, name: str, text: str | None, value: Any) -> None:
    environment = {f"TINYASGI_{other.upper()}": "some.pem" for other in NEEDED.get(name, [])}
    environment[f"TINYASGI_{name.upper()}"] = str(value) if text is None else text
    _, config = command("module:app", **environment)
    assert getattr(config, name) == value


def test_defaults(command: Any) -> None:
    assert command("module:app") == ("module:app", Config())


def test_app_from_the_environment(command: Any) -> None:
    app, _ = command(TINYASGI_APP="module:other")
    assert app == "module:other"


def test_command_line_comes_before_environment(command: Any) -> None:
    app, config = command(
        "--port", "1", "module:app", TINYASGI_PORT="2", TINYASGI_HOST="::", TINYASGI_APP="m:b"
    )
    assert (app, config.port, config.host) == ("module:app", 1, "::")


@pytest.mark.parametrize("text", ["1", "true", "Yes", "on"])
def test_flag_in_the_environment(command: Any, text: str) -> None:
    assert command("module:app", TINYASGI_FACTORY=text)[1].factory


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_flag_in_the_environment_switched_off(command: Any, text: str) -> None:
    assert not command("module:app", TINYASGI_ACCESS_LOG=text)[1].access_log


def test_header_is_repeatable(command: Any) -> None:
    fields = (("A", "1"), ("B", "2"), ("A", "3"))
    _, config = command("--header", "A: 1", "--header=B:2", "--header", "A:3", "module:app")
    assert config.header == fields
    assert command("module:app", TINYASGI_HEADER="A: 1\nB: 2\nA: 3")[1].header == fields


def test_web_concurrency(command: Any) -> None:
    assert command("module:app", WEB_CONCURRENCY="3")[1].workers == 3
    assert command("module:app", WEB_CONCURRENCY="3", TINYASGI_WORKERS="2")[1].workers == 2
    assert command("module:app", "--workers=4", WEB_CONCURRENCY="3")[1].workers == 4


def test_bind_is_repeatable(command: Any) -> None:
    words = ["localhost:80", ":81", "[::1]:82", "unix:a b.sock", "fd://3"]
    _, config = command("module:app", *[f"--bind={word}" for word in words])
    assert config.bind == tuple(words)
    assert command("module:app", TINYASGI_BIND="\n".join(words))[1] == config


@pytest.mark.parametrize(("text", "value"), [("0", "none"), ("1", "optional"), ("2", "required")])
def test_numbers_for_certificates(command: Any, text: str, value: str) -> None:
    words = ["--ssl-cert-reqs", text, *needed("ssl_cert_reqs")]
    assert command(*words, "module:app")[1].ssl_cert_reqs == value


# Errors: one line, exit code 2.


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "99999", "from 0 to 65535"),
        ("port", "http", "from 0 to 65535"),
        ("http", "fast", "httptools"),
        ("interface", "cgi", "asgi3"),
        ("timeout_head", "soon", "seconds"),
        ("timeout_head", "-1", "seconds"),
        ("timeout_head", "nan", "seconds"),
        ("timeout_head", "inf", "seconds"),
        ("limit_body_size", "1M", "whole number"),
        ("limit_head_fields", "0", "at least 1"),
        ("uds_mode", "999", "octal"),
        ("health_path", "healthz", "begins with /"),
        ("workers", "0", "at least 1"),
        ("bind", "::1:80", "[IPV6]:PORT"),
        ("bind", "localhost", "HOST:PORT"),
        ("bind", "localhost:65536", "HOST:PORT"),
        ("bind", "fd://x", "fd://N"),
        ("metrics_bind", "9100", "HOST:PORT"),
        ("header", "no colon", "such as X-Frame-Options:DENY"),
        ("header", "a b: c", "X-Frame-Options"),
        ("header", ": c", "X-Frame-Options"),
        ("log_level", "loud", "info"),
        ("log_format", "xml", "json"),
        ("access_log_exclude", "health", "/"),
        ("ssl_min_version", "1.1", "1.2"),
    ],
)
def test_wrong_value(
    name: str, text: str, expected: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = repr(text) if " " in text else text
    line = refuse(capsys, f"{dashed(name)}={text}", "module:app")
    assert f" {dashed(name)} {shown}: expected " in line
    assert expected in line
    monkeypatch.setenv(f"TINYASGI_{name.upper()}", text)
    line = refuse(capsys, "module:app")
    assert f" TINYASGI_{name.upper()}={shown}: expected " in line
    assert expected in line


def test_wrong_flag_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYASGI_FACTORY", "maybe")
    line = refuse(capsys, "module:app")
    assert "TINYASGI_FACTORY=maybe: expected true or false" in line


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--prot", "--port"),
        ("--prot=80", "--port"),
        ("--timeout-keepalive", "--timeout-keep-alive"),
        ("--no-acces-log", "--no-access-log"),
        ("--heeder", "--header"),
    ],
)
def test_unknown_option(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(capsys, word, "module:app")
    assert word.partition("=")[0] in line
    assert re.search(rf"{near}\b", line.replace(word, ""))


def test_unknown_option_without_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--zzzzzzzzzz" in refuse(capsys, "--zzzzzzzzzz", "module:app")


def test_further_word(capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(capsys, "module:app", "other:app")
    assert line.endswith(": unexpected argument 'other:app': the app is 'module:app' already\n")


@pytest.mark.parametrize("words", [["--port"], ["--port", "80"], []])
def test_something_is_missing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, *words)


# --help and --version.


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"tinyasgi {tinyasgi.__version__}")


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for name, _, _ in OPTIONS:
        assert re.search(rf"{dashed(name)}\b", text), name
