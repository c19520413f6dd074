"""A worker class for gunicorn: `gunicorn -k tinyasgi.integrations.gunicorn.Worker app:main`."""

from .worker import Worker

__all__ = ["Worker"]
