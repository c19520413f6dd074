"""TLS: contexts, certificates, and the ASGI extension."""
