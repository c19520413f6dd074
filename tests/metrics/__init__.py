"""Tests of `tinyasgi/metrics`."""
