"""Tests of `tinyasgi/app`."""
