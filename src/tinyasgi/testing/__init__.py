"""A server for tests: in a thread, or a connection in memory."""

from .live import LiveServer, serve
from .memory import MemoryConnection, connect

__all__ = ["LiveServer", "MemoryConnection", "connect", "serve"]
