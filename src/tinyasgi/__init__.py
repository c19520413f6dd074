"""A fast, strict and readable ASGI server."""

__version__ = "0.1.0"

from .config import Config
from .run import run
from .server import Server, serve

__all__ = ["Config", "Server", "__version__", "run", "serve"]
