"""Tests of `tinyasgi/process`."""
