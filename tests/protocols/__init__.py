"""Tests of `tinyasgi/protocols`."""
