"""Checks for a fuzzer, and what it starts from."""
