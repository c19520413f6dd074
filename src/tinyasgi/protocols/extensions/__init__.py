"""ASGI extensions for HTTP responses: early hints, trailers and files."""

from .messages import send

__all__ = ["send"]
