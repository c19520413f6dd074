"""WebSocket (RFC 6455): its exchange, and its connection after the handshake."""

from .connection import WebSocketConnection
from .exchange import WebSocketExchange

__all__ = ["WebSocketConnection", "WebSocketExchange"]
