"""Tests of `tinyasgi/testing`."""
