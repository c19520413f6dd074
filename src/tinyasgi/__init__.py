"""A fast, strict and readable ASGI server."""

from ._version import __version__
from .config.config import Config
from .run import run
from .server.server import Server, serve

__all__ = ["Config", "Server", "__version__", "run", "serve"]
