"""Tests of `tinyasgi/logs`."""
