"""Tests of `tinyasgi/app/wsgi`."""
