"""Apps of common WSGI frameworks that send a short response."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from flask import Flask, Response

from . import apps

flask_app = Flask(__name__)
flask_events = Flask(__name__)


@flask_app.get("/")
def hello() -> Response:
    """Send plain text."""
    return Response(apps.GREETING, mimetype="text/plain")


@flask_events.get("/")
def events() -> Response:
    """Send a hundred server-sent events, each in an item of its own."""
    return Response(iter(apps.EVENTS), mimetype="text/event-stream")


def greet(request: HttpRequest) -> HttpResponse:
    """Send plain text."""
    return HttpResponse(apps.GREETING, content_type="text/plain")


urlpatterns = [path("", greet)]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none")
django.setup()
django_app = get_wsgi_application()
