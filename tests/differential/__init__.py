"""Differential testing: the same bytes for several servers and proxies."""
