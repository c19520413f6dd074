"""Options of uvicorn and gunicorn: each works here, or an error says in one line what to write."""

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
import uvicorn

from tests.support.pages import DOCS
from tests.test_cli import alone, command, refuse
from tinyasgi import Config
from tinyasgi.cli import _parser
from tinyasgi.config.kinds import OptionError
from tinyasgi.config.other_servers import HINTS, RENAMED, WITHOUT_MEANING
from tinyasgi.config.sources import option_name

__all__ = ["alone", "command"]  # fixtures

#: Values of uvicorn's own options on its command line; other options are flags.
UVICORN_VALUES = {
    "http2": None,
    "reload": None,
    "factory": None,
    "reset_contextvars": None,
    "reload_dirs": "src",
    "reload_includes": "*.html",
    "reload_excludes": "*.tmp",
    "headers": "X-A: b",
    "fd": "3",
    "uds": "server.sock",
    "workers": "2",
    "env_file": ".env",
    "log_config": "log.ini",
    "log_level": "trace",
    "forwarded_allow_ips": "10.0.0.1,10.0.0.0/8",
    "root_path": "/api",
    "limit_concurrency": "10",
    "limit_max_requests": "10",
    "timeout_graceful_shutdown": "10",
    "ssl_certfile": "a.pem",
    "ssl_keyfile_password": "secret",
    "ssl_ca_certs": "a.pem",
    "ssl_ciphers": "ECDHE",
    "h11_max_incomplete_event_size": "1000",
    "ws_per_message_deflate": "false",
}
#: Options that need others.
NEEDS = {"ssl_keyfile": ["--ssl-certfile=a.pem"]}

#: The options of gunicorn that deployments use most. True: accepted; a text: what to write.
GUNICORN = {
    "-b :8000": True,
    "--bind unix:app.sock": True,
    "-w 4": True,
    "--workers 4": True,
    "-p app.pid": True,
    "--pid app.pid": True,
    "-u www-data": True,
    "--user www-data": True,
    "-g www-data": True,
    "--group www-data": True,
    "-m 007": True,
    "--umask 007": True,
    "-n site": True,
    "--name site": True,
    "--chdir .": True,
    "--capture-output": True,
    "--backlog 100": True,
    "--preload": True,
    "--reload": True,
    "--log-level info": True,
    "--log-config log.ini": True,
    "--forwarded-allow-ips *": True,
    "--proxy-protocol": True,
    "--proxy-protocol v1": True,
    "--proxy-protocol auto": True,
    "--proxy-protocol=v2": True,
    "--proxy-protocol off": True,
    "--root-path /api": True,
    "--config gunicorn.conf.py": "TOML, not Python",
    "-c gunicorn.conf.py": "--config FILE",
    "-k uvicorn.workers.UvicornWorker": "leave it out",
    "--worker-class gthread": "leave it out",
    "--threads 4": "--wsgi-threads",
    "--worker-connections 1000": "--limit-connections",
    "--max-requests 1000": "--limit-max-requests",
    "--max-requests-jitter 50": "--limit-max-requests-jitter",
    "-t 30": "--worker-timeout",
    "-t30": "--worker-timeout",
    "-kgthread": "leave it out",
    "-eA=b": "--env-file",
    "-cgunicorn.conf.py": "--config FILE",
    "--timeout 30": "--worker-timeout",
    "--graceful-timeout 30": "--timeout-graceful-shutdown",
    "--keep-alive 5": "--timeout-keep-alive",
    "--limit-request-line 4094": "--limit-head-size",
    "--limit-request-fields 100": "--limit-head-fields",
    "--limit-request-field_size 8190": "--limit-head-size",
    "--reload-engine inotify": "leave it out",
    "--reload-extra-file a.html": "--reload-include",
    "--check-config": "--check",
    "--spew": "--debug-blocking",
    "--no-sendfile": "leave it out",
    "--reuse-port": "leave it out",
    "-D": "systemd",
    "--daemon": "systemd",
    "-e A=b": "--env-file",
    "--env A=b": "--env-file",
    "--worker-tmp-dir /dev/shm": "leave it out",
    "--initgroups": "--user",
    "--access-logfile -": "--access-log-file",
    "--access-logformat %(h)s": "--access-log-format",
    "--access-logformat=%(h)s\t%(s)s": "--access-log-format",
    "--error-logfile -": "--error-log-file",
    "--log-file -": "--error-log-file",
    "--logger-class a.B": "--log-config",
    "--log-config-json a.json": "--log-config",
    "--log-syslog": "--log-config",
    "--log-syslog-to udp://localhost": "--log-config",
    "-R": "leave it out",
    "--enable-stdio-inheritance": "leave it out",
    "--statsd-host localhost:8125": "--metrics-bind",
    "--statsd-prefix site": "--metrics-bind",
    "--dogstatsd-tags a:b": "--metrics-bind",
    "--pythonpath src": "--app-dir",
    "--paste app.ini": "paste.deploy",
    "--proxy-allow-from *": "--forwarded-allow-ips",
    "--keyfile a.pem": "--ssl-keyfile",
    "--certfile a.pem": "--ssl-certfile",
    "--ca-certs a.pem": "--ssl-ca-certs",
    "--cert-reqs 2": "--ssl-cert-reqs",
    "--ciphers A": "--ssl-ciphers",
    "--ssl-version 2": True,
    "--do-handshake-on-connect": "leave it out",
    "--suppress-ragged-eofs": "leave it out",
    "--header-map drop": "leave it out",
    "--strip-header-spaces": "leave it out",
    "--permit-obsolete-folding": "leave it out",
    "--control-socket a.sock": "leave it out",
    "--asgi-loop uvloop": "--loop",
    "-v": "--version",
}


def uvicorn_options() -> list[click.Option]:
    return [each for each in uvicorn.main.params if isinstance(each, click.Option)]


def default(option: click.Option) -> str | None:
    value = option.default
    return str(value) if isinstance(value, str | int | float) and value != "" else None


@pytest.mark.parametrize("option", uvicorn_options(), ids=lambda option: option.name)
def test_uvicorn_command_line(option: click.Option, command: Any, capsys: Any) -> None:
    """Each option of uvicorn, with its default value or a typical one."""
    name = option.name or ""
    if name in ("version", "help"):
        return
    text = UVICORN_VALUES.get(name, default(option))
    words = [option.opts[0]]
    if not option.is_flag:
        words.append(text or "a.pem")
    if name == "reset_contextvars":
        assert f"{option.opts[0]}: " in refuse(capsys, *words, "m:a")
    else:
        command(*words, *NEEDS.get(name, []), "m:a")


@pytest.mark.parametrize("option", uvicorn_options(), ids=lambda option: option.name)
def test_uvicorn_environment(option: click.Option, command: Any, capsys: Any) -> None:
    name = option.name or ""
    text = UVICORN_VALUES.get(name, default(option))
    if text is None or name in ("version", "help", "app_dir"):
        return
    variable = f"UVICORN_{name.upper()}"
    config = command("m:a", **{variable: text})[1]
    err = capsys.readouterr().err
    if config == Config():
        assert err == "" or f"using {variable};" in err
    else:
        assert err == f"tinyasgi: warning: using {variable}; " + (
            "tinyasgi's own variables begin with TINYASGI_\n"
        )


def test_priority_of_variables(command: Any) -> None:
    variables = {"WEB_CONCURRENCY": "2", "UVICORN_WORKERS": "3", "UVICORN_PORT": "1"}
    config = command("m:a", **variables)[1]
    assert (config.workers, config.port) == (3, 1)
    assert command("m:a", **variables, TINYASGI_WORKERS="4")[1].workers == 4
    assert command("m:a", "--workers=5", **variables)[1].workers == 5


def test_uvicorn_app_in_the_environment(command: Any) -> None:
    assert command(UVICORN_APP="m:b")[0] == "m:b"


PARAMETERS = [*inspect.signature(uvicorn.run).parameters.values()]
PARAMETERS += inspect.signature(uvicorn.Config).parameters.values()


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_default_of_uvicorn_in_python(parameter: inspect.Parameter) -> None:
    """Code may pass the default value of any option of uvicorn explicitly."""
    if parameter.name != "app":
        config = Config().replace(**{parameter.name: parameter.default})
        assert config == Config(**{parameter.name: parameter.default})


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("reload_dirs", "reload_dir", ("src",)),
        ("reload_includes", "reload_include", ("*.html",)),
        ("reload_excludes", "reload_exclude", ("*.tmp",)),
        ("headers", "header", (("X-A", "b"),)),
        ("h11_max_incomplete_event_size", "limit_head_size", 1000),
    ],
)
def test_renamed_in_python(old: str, new: str, value: Any) -> None:
    expected = Config(**{new: value})
    assert Config(**{old: value}) == expected
    assert Config(port=1).replace(**{old: value}) == expected.replace(port=1)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("reload_delay", 1.0, "changes are noticed"),
        ("timeout_notify", 10, "lifespan startup"),
        ("callback_notify", print, "lifespan startup"),
        ("timeout_worker_healthcheck", 10, "write worker_timeout"),
        ("ssl_version", 3, "write ssl_min_version"),
        ("reset_contextvars", True, "copy"),
        ("graceful_timeout", 10, "write timeout_graceful_shutdown"),
        ("prot", 80, "did you mean port?"),
        ("zzzzz", 1, "see tinyasgi --help"),
    ],
)
def test_refused_in_python(name: str, value: Any, hint: str) -> None:
    for make in (Config, Config().replace):
        with pytest.raises(OptionError, match=re.escape(hint)):
            make(**{name: value})


@pytest.mark.parametrize("words", GUNICORN)
def test_gunicorn(words: str, command: Any, capsys: Any, monkeypatch: Any) -> None:
    outcome = GUNICORN[words]
    if outcome is True:
        command(*words.split(), "m:a")
        return
    (line,) = refuse(capsys, *words.split(), "m:a").splitlines()
    assert words.split(maxsplit=1)[0].partition("=")[0] in line
    assert outcome in line
    refuse(capsys, "m:a", *words.split())


def test_gunicorn_table() -> None:
    assert len(GUNICORN) >= 60


def test_hints_name_options_that_exist() -> None:
    known = set(_parser()._option_string_actions)
    for text in [*HINTS.values(), *(reason for _, reason in WITHOUT_MEANING.values())]:
        assert set(re.findall(r"--[a-z0-9-]+", text)) <= known, text


def test_hint_in_a_file(capsys: Any, tmp_path: Any) -> None:
    (tmp_path / "tinyasgi.toml").write_text("graceful-timeout = 10")
    line = refuse(capsys, "m:a")
    assert line.endswith("graceful-timeout in tinyasgi.toml; write timeout-graceful-shutdown\n")


def test_names_of_uvicorn_in_a_file(command: Any, tmp_path: Any) -> None:
    (tmp_path / "tinyasgi.toml").write_text('headers = ["X-A: b"]\nreload-delay = 0.25')
    assert command("m:a")[1] == Config(header=[("X-A", "b")])


def test_settings_of_gunicorn_are_reported(command: Any, capsys: Any, tmp_path: Path) -> None:
    """gunicorn reads both without being told to."""
    (tmp_path / "gunicorn.conf.py").write_text("workers = 2")
    assert command("m:a", GUNICORN_CMD_ARGS="--workers=2")[1] == Config()
    assert capsys.readouterr().err.splitlines() == [
        "tinyasgi: warning: gunicorn.conf.py is not used; write its settings to tinyasgi.toml",
        "tinyasgi: warning: GUNICORN_CMD_ARGS is not used; write its options on the command line",
    ]
    (tmp_path / "tinyasgi.toml").write_text("workers = 2")
    assert command("m:a", GUNICORN_CMD_ARGS="")[1] == Config(workers=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("word", ["true", "on", "1", "Yes"])
def test_value_of_a_flag(word: str, command: Any) -> None:
    assert command("--factory", word, "m:a") == ("m:a", Config(factory=True))
    assert command("m:a", "--no-access-log", word)[1] == Config(access_log=False)


def test_false_as_value_of_a_flag(command: Any) -> None:
    assert command("m:a", "--access-log", "false", "--factory")[1] == Config(
        access_log=False, factory=True
    )


@pytest.mark.parametrize("word", ["off", "False"])
@pytest.mark.parametrize("form", ["--reload {}", "--reload={}", "--proxy-protocol={}"])
def test_flag_that_is_off(form: str, word: str, command: Any) -> None:
    assert command(*form.format(word).split(), "m:a") == ("m:a", Config())


def test_flag_with_another_value(capsys: Any) -> None:
    assert "--reload/--no-reload takes no value" in refuse(capsys, "--reload=auto", "m:a")


def test_unknown_option_with_a_space_in_its_value(capsys: Any) -> None:
    """It is the option that is reported, not the app."""
    for words in (["m:a"], []):
        line = refuse(capsys, "--access-logformat=%(h)s %(s)s", *words)
        assert "unknown option --access-logformat; write --access-log-format" in line


def test_pages_name_each_option() -> None:
    page = (DOCS / "from-uvicorn.md").read_text(encoding="utf-8")
    for name in (*RENAMED, *WITHOUT_MEANING):
        assert f"`{name}`" in page or f"`{option_name(name)}`" in page, name
    page = (DOCS / "from-gunicorn.md").read_text(encoding="utf-8")
    for words, outcome in GUNICORN.items():
        option = words.split(maxsplit=1)[0].partition("=")[0]
        if outcome is True and option not in ("--ssl-version", "--proxy-protocol"):
            assert f"{option}`" in page or f"`{option}" in page, option
