"""Logging: set-up, formats, and the access log."""

from .formatters import JSONFormatter, TextFormatter

__all__ = ["JSONFormatter", "TextFormatter"]
