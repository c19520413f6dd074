"""`manage.py runserver`: Django's development server, with tinyasgi in place of its HTTP server."""

import asyncio
import logging
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string

from ....._version import __version__
from .....config.config import Config
from .....logs import setup
from .....logs.access import line_formatter
from .....net import listen
from .....process.loop import loop_factory
from .....protocols.exchange import Exchange
from .....server.server import Server

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand
else:
    from django.core.management.commands.runserver import Command as DjangoCommand

logger = logging.getLogger("django.server")

_format_line = line_formatter(Config(access_log_format='"%(r)s" %(s)s %(B)s'))


def log_exchange(exchange: Exchange) -> None:
    """Log a request as Django's own server does, with colours by status."""
    status = exchange.status
    level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
    logger.log(level, "%s", _format_line(exchange), extra={"status_code": status})


class DevelopmentServer:
    """Server with the attributes and methods of `WSGIServer` that Django uses."""

    def __init__(self, address: tuple[str, int], handler_class: Any, ipv6: bool = False) -> None:
        self._config = Config(
            host=address[0], port=address[1], log_level="warning", timeout_graceful_shutdown=1
        )
        self._sockets = listen.bind(self._config)
        for sock in self._sockets:  # clients may connect as soon as Django shows the address
            listen.listen(sock, self._config)
        self.server_port: int = self._sockets[0].getsockname()[1]

    def set_app(self, app: Any) -> None:
        self._app = app

    def serve_forever(self) -> None:
        """Serve in a new event loop. With autoreload, this is not the main thread."""
        setup.set_up_loggers(self._config)
        with asyncio.Runner(loop_factory=loop_factory(self._config)) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        sockets, access = self._sockets, log_exchange
        async with Server(self._app, self._config, sockets=sockets, access=access) as server:
            await server.stopped()


class Command(DjangoCommand):
    """Serves `ASGI_APPLICATION`, or else Django's own ASGI app, and static files."""

    help = "Starts tinyasgi for development, with autoreload and static files."
    server_cls = DevelopmentServer

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """Return the ASGI app."""
        name = getattr(settings, "ASGI_APPLICATION", None)
        app = get_asgi_application() if name is None else import_string(name)
        serves_files = settings.DEBUG or options.get("insecure_serving")
        if options.get("use_static_handler") and serves_files:
            return ASGIStaticFilesHandler(app)
        return app

    def on_bind(self, server_port: int) -> None:
        super().on_bind(server_port)
        self.stdout.write(f"Served by tinyasgi {__version__}.")
