"""Sockets: listening and accepting."""
