"""`run`: one process that serves, or several under a supervisor."""

import asyncio
import os
import sys
from typing import Any

from . import signals
from .config import sources
from .config.config import Config
from .config.kinds import OptionError
from .logs import setup as log
from .process import identity, systemd
from .process.ending import Ending
from .process.process import BAD_OPTION, explain
from .single import SingleProcess

#: Options that need a supervisor.
# fmt: off
SUPERVISED = (
    "workers", "user", "group", "reload", "preload", "worker_lifetime", "worker_max_rss",
    "worker_timeout",
)
# fmt: on


def run(app: Any, config: Config | None = None, **options: Any) -> None:
    """Serve an app until SIGINT or SIGTERM. A second signal shortens the shutdown.

    app: `"module:attribute"`, an ASGI or WSGI application, or a factory of one; only the first can
    be served by several processes. options: fields of `Config`. Without `config`, the environment
    variables WEB_CONCURRENCY and FORWARDED_ALLOW_IPS are defaults of their options.

    Errors are written to stderr, and then SystemExit is raised, with the exit code: 2 for an option
    error, 3 if the server could not start. Raises RuntimeError within a running event loop.
    """
    _refuse_running_loop()
    _fill_standard_streams()
    exits = signals.are_taken()  # by the command; else the caller may go on
    taken = signals.take()
    ending = Ending(taken, exits)
    try:
        code = _run(app, config, options, ending, exits)
    except SystemExit as leaving:  # a signal during the import, or the app in its import
        code = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    finally:
        if not exits:
            taken.restore()
    ending.leave(code)
    if code:
        sys.exit(code)


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "tinyasgi.run() can't be called while an event loop is running, as in a notebook; write:"
        " task = asyncio.create_task(tinyasgi.serve(app)), and later task.cancel()"
    )


def _run(
    app: Any, given: Config | None, options: dict[str, Any], ending: Ending, exits: bool
) -> int:
    config = given or Config()
    try:
        if given is None:
            found = sources.from_platform(os.environ)
            options = {name: setting.value for name, setting in found.items()} | options
        config = config.replace(**options).resolved()
        identity.check(config)
        if config.umask is not None:
            os.umask(config.umask)
        with identity.pid_file(config):
            return _serve(app, config, ending, exits)
    except OptionError as error:
        log.report_failure(explain(error), config.log_format)
        return BAD_OPTION


def _serve(app: Any, config: Config, ending: Ending, exits: bool) -> int:
    """Serve an app; return the exit code. Raises OptionError."""
    notifier = systemd.Notifier()
    if given := systemd.inherited():
        config = config.replace(bind=given)
    needs = _needs_supervisor(app, config)
    if isinstance(app, str) and (needs or config.limit_max_requests):
        from .workers import main  # not before it is needed: 20 ms at start, and 3 MiB

        return main.supervise(app, config, ending, notifier, exits)
    if needs:
        text = 'needs the app as "module:attribute", not an object'
        raise config.error(needs, getattr(config, needs), text)
    identity.set_title(config, "server")
    return SingleProcess(app, config, ending, notifier).run()


def _needs_supervisor(app: Any, config: Config) -> str:
    """Return the first option that needs a supervisor, or an empty text.

    Only an app that can be imported can have one. For others, `workers=1` is a single process.
    """
    for name in SUPERVISED:
        value = getattr(config, name)
        if value and (isinstance(app, str) or (name, value) != ("workers", 1)):
            return name
    return ""


def _fill_standard_streams() -> None:
    """Open closed streams, so that no socket gets their numbers and receives output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is taken
