"""Tools for tests: a server in a thread, and an in-memory connection."""

from .live import LiveServer, serve
from .memory import MemoryConnection, connect

__all__ = ["LiveServer", "MemoryConnection", "connect", "serve"]
