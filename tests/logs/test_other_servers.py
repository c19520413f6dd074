"""Logging that apps and scripts have set up for uvicorn or gunicorn."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.logs.test_setup import fresh, run
from tests.support.helpers import Command
from tinyasgi import Config
from tinyasgi.logs.setup import set_up_loggers

__all__ = ["run"]  # a fixture

INI = """
[loggers]
keys=root,access
[handlers]
keys=console
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=console
[logger_access]
level=INFO
handlers=console
qualname=tinyasgi.access
propagate=0
[handler_console]
class=StreamHandler
formatter=plain
[formatter_plain]
format=ini %(name)s: %(message)s
"""
Run = Callable[..., tuple[str, str]]


@pytest.mark.parametrize("suffix", [".ini", ".conf", ".cfg"])
def test_ini_file(suffix: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / f"log{suffix}").write_text(INI)
    log, output = run("logging.getLogger('app').info('imported')", f"--log-config=log{suffix}")
    lines = log.splitlines()
    assert lines[0] == "ini app: imported"
    assert lines[-1] == "ini tinyasgi.server: stopped"
    assert any(line.startswith("ini tinyasgi.access: 127.0.0.1") for line in lines)
    assert output == ""


@pytest.mark.parametrize("workers", [None, 2])
def test_dict(workers: int | None, tmp_path: Path) -> None:
    """A dict in Python, which is passed on to workers."""
    (tmp_path / "app.py").write_text(
        "import tinyasgi\n\nasync def app(scope, receive, send):\n    raise ValueError\n\n"
        "if __name__ == '__main__':\n"
        "    plain = {'format': 'dict %(name)s: %(message)s'}\n"
        "    handler = {'class': 'logging.StreamHandler', 'formatter': 'plain'}\n"
        "    config = {'version': 1, 'formatters': {'plain': plain},\n"
        "        'handlers': {'h': handler}, 'root': {'handlers': ['h'], 'level': 'INFO'}}\n"
        f"    tinyasgi.run('app:app', port=0, log_config=config, workers={workers})\n"
    )
    with Command(script="app.py", cwd=tmp_path) as command:
        assert command.port
        assert command.stop() == 0
    lines = command.log.splitlines()
    assert all(line.startswith("dict tinyasgi.server: ") for line in lines)


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "gunicorn.error"])
def test_messages_of_the_app(name: str, run: Run) -> None:
    """An app that logs with the logger of another server is not silenced."""
    setup = f"log = logging.getLogger('{name}'); log.info('one'); log.warning('two'); log.debug('')"
    log = run(setup)[0]
    assert log.count("INFO one\n") == log.count("WARNING two\n") == 1
    assert "does not apply" not in log


def test_messages_of_the_app_with_handlers(run: Run) -> None:
    setup = "logging.basicConfig(level=20); logging.getLogger('uvicorn.error').info('one')"
    assert run(setup)[0].count("one\n") == 1


@pytest.mark.parametrize(
    "setup",
    [
        "logging.getLogger('uvicorn.access').addFilter(lambda record: False)",
        "logging.getLogger('uvicorn.access').addHandler(logging.StreamHandler())",
        "logging.getLogger('uvicorn.access').disabled = True",
        "logging.getLogger('uvicorn.access').setLevel('WARNING')",
    ],
)
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_configuration_without_effect(setup: str, workers: list[str], run: Run) -> None:
    (line,) = [line for line in run(setup, *workers)[0].splitlines() if "uvicorn" in line]
    assert line.endswith(
        "INFO the configuration of uvicorn.access does not apply to this server; configure"
        " tinyasgi.server and tinyasgi.access"
    )


def test_lifespan_is_reported_once(run: Run) -> None:
    log = run("", "--workers", "2", "--lifespan", "auto")[0]
    assert log.count("the app does not support ASGI lifespan") == 1


@fresh()
def test_loggers_of_other_servers_are_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers that the server has added are removed when it sets up logging again."""
    loggers: list[Any] = [logging.getLogger("uvicorn"), logging.getLogger("gunicorn.error")]
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        for each in loggers:
            patch.setattr(each, "handlers", [])
            patch.setattr(each, "level", logging.NOTSET)
            patch.setattr(each, "propagate", True)
        for name in ("a", "b"):
            set_up_loggers(Config(error_log_file=str(tmp_path / name)))
            assert [len(each.handlers) for each in loggers] == [1, 1]
            assert not any(each.propagate for each in loggers)  # nothing is written twice
        own = logging.NullHandler()  # added by the app
        loggers[0].addHandler(own)
        set_up_loggers(Config(error_log_file=str(tmp_path / "b")))
        assert loggers[0].handlers == [own]
        assert loggers[0].propagate
    set_up_loggers(Config())
