"""WebSocket (RFC 6455): what a connection and an exchange become when a client asks for it."""

from .connection import WebSocketConnection
from .exchange import WebSocketExchange

__all__ = ["WebSocketConnection", "WebSocketExchange"]
