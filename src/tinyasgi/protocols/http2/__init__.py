"""HTTP/2 (RFC 9113): its connection and streams."""

from .connection import HTTP2Connection

__all__ = ["HTTP2Connection"]
