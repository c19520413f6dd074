"""WSGI applications: an adapter to ASGI 3."""
