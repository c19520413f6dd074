"""Tests of `tinyasgi/http`."""
