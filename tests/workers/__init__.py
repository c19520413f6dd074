"""Tests of `tinyasgi/workers`."""
