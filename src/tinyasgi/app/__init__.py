"""The application: from what the user passes to a running ASGI 3 app."""
