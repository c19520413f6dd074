"""Tests of `tinyasgi/net`."""
