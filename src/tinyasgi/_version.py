"""The version of tinyasgi."""

__version__ = "0.1.0"
