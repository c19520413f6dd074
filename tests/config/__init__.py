"""Tests of `tinyasgi/config`."""
