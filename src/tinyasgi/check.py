"""`tinyasgi --check`: load everything that the server needs, and report what fails."""

import asyncio
import contextlib
from pathlib import Path

from . import importer
from .app import load
from .config import env_file
from .config.config import Config
from .config.kinds import OptionError
from .importer import LoadError
from .logs import access
from .logs import setup as log
from .net import listen
from .net.listen import AddressInUse, ListenError
from .process import identity
from .process.loop import loop_factory
from .process.process import BAD_OPTION, FAILED, explain
from .server.server import Server


def check(app: str, config: Config) -> int:
    """Check options, files, addresses, certificates and app; return the exit code.

    Each failure is reported on stderr. The code is that of the first: 2 for an option, else 3.
    """
    config = config.resolved()
    codes: dict[str, int] = {}  # by message: the last check may fail like an earlier one
    for part in (_check_options, _check_files, _check_addresses, _check_tls, _check_app):
        try:
            part(app, config)
        except (OptionError, ListenError, LoadError) as error:
            text = explain(error)
            if text not in codes:
                log.report_failure(text, config.log_format)
            codes[text] = BAD_OPTION if isinstance(error, OptionError) else FAILED
    if not codes:
        print(f"tinyasgi: {app} can be served")
    return next(iter(codes.values()), 0)


def _check_options(app: str, config: Config) -> None:
    """Check the options that `Config` alone can't check. Raises OptionError."""
    identity.check(config)
    access.line_formatter(config)
    if config.reload:
        from .workers import reload  # an optional package

        reload.check(config)


def _check_files(app: str, config: Config) -> None:
    """Check that the files of options can be used. Raises OptionError."""
    log.set_up_process(config.replace(error_log_file="-"))
    with log.log_path(config, "error_log_file") as path:
        if path is not None:
            Path(path).open("ab").close()
    env_file.load(config)


def _check_addresses(app: str, config: Config) -> None:
    """Bind to each address. Raises ListenError.

    An address in use is only a warning: a server that is to be replaced may use it.
    """
    each = [config.replace(bind=[address]) for address in config.bind] or [config]
    if config.metrics_bind is not None:
        each.append(config.replace(bind=[config.metrics_bind]))
    for one in each:
        try:
            listen.close(listen.bind(one))
        except AddressInUse as error:
            log.report_warning(str(error), config.log_format)


def _check_tls(app: str, config: Config) -> None:
    """Check the TLS files and options. Raises OptionError."""
    if config.speaks_tls:
        from .tls import contexts  # an optional package

        contexts.TLSContexts(config)


def _check_app(app: str, config: Config) -> None:
    """Import the app, and call its factory. Raises OptionError and LoadError."""
    target = importer.load(app, config.app_dir)

    async def create() -> None:
        async with contextlib.AsyncExitStack() as stack:
            made = target
            if config.factory:
                made = await stack.enter_async_context(load.created(target))
            Server(made, config)

    with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
        runner.run(create())
