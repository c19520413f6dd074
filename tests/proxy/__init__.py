"""Tests of `tinyasgi/proxy`."""
