"""Connections: a transport on one side, the app on the other."""
