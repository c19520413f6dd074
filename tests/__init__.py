"""The tests of tinyasgi."""
