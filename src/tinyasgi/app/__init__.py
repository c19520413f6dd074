"""The application: load it, adapt it to ASGI 3, and run its lifespan."""
