"""Checks for a fuzzer, and its corpus."""
