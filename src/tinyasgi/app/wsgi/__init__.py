"""WSGI apps: an adapter to ASGI 3."""
