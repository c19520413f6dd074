"""Tests of `tinyasgi/server`."""
