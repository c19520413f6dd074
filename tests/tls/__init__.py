"""Tests of `tinyasgi/tls`."""
