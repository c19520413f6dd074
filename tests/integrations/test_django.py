"""`runserver` of the Django app, in a project."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Client, Command
from tests.support.processes import free_ports, wait_until
from tinyasgi.testing import serve

pytest.importorskip("django")

SETTINGS = """
SECRET_KEY = "x"
DEBUG = True
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["tinyasgi.integrations.django", "django.contrib.staticfiles"]
STATIC_URL = "static/"
STATICFILES_DIRS = ["files"]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

async def hello(request):
    return HttpResponse("first")

urlpatterns = [path("", hello)]
"""
ASGI = """
from django.core.asgi import get_asgi_application

django_app = get_asgi_application()

async def application(scope, receive, send):
    if scope["type"] != "websocket":
        return await django_app(scope, receive, send)
    await send({"type": "websocket.accept", "subprotocol": "own"})
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "runserver", *WORDS])
"""

Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts `runserver` in a project."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "style.css").write_text("static")

    def start(*words: str, settings: str = SETTINGS) -> Command:
        files = {"settings.py": settings, "urls.py": URLS, "asgi.py": ASGI}
        files["manage.py"] = MANAGE.replace("WORDS", str(words))
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        environment = {"PYTHONWARNINGS": "", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
        log = stack.enter_context((tmp_path / "log").open("w"))
        command = Command(script="manage.py", cwd=tmp_path, stdout=log, **environment)
        return stack.enter_context(command)

    with ExitStack() as stack:
        yield start


def port_of(folder: Path) -> int:
    def port() -> str:
        return (folder / "log").read_text().partition("http://127.0.0.1:")[2].partition("/\n")[0]

    wait_until(port)
    return int(port())


def ask(port: int, path: str = "/") -> str:
    request = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode()
    with Client(port) as client:
        return client.response(request).body.decode()


def test_without_autoreload(start: Start, tmp_path: Path) -> None:
    command = start("--noreload", "127.0.0.1:0")
    port = port_of(tmp_path)
    assert ask(port) == "first"
    assert ask(port, "/static/style.css") == "static"
    assert "Page not found" in ask(port, "/none")
    assert command.stop(signal.SIGINT) == 0
    assert 'GET / HTTP/1.1" 200 5\n' in command.log
    assert 'GET /none HTTP/1.1" 404 ' in command.log
    assert "Served by tinyasgi" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_autoreload(start: Start, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = start(f"127.0.0.1:{port}")
    assert port_of(tmp_path) == port
    assert ask(port) == "first"
    (tmp_path / "urls.py").write_text(URLS.replace("first", "second"))
    times = itertools.count(2_000_000_000)  # in the future

    def has_restarted() -> bool:
        # Django may not have seen the first time yet.
        os.utime(tmp_path / "urls.py", (1, next(times)))
        with suppress(ConnectionError, IndexError):  # it ends before or after the request
            return ask(port) == "second"
        return False

    wait_until(has_restarted)
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.wait() == 0


@pytest.mark.slow
def test_own_app(start: Start, tmp_path: Path) -> None:
    start("--noreload", "127.0.0.1:0", settings=SETTINGS + "ASGI_APPLICATION = 'asgi.application'")
    with Client(port_of(tmp_path)) as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: own\r\n\r\n"
        )
        status, fields = client.head()
        assert (status, fields["sec-websocket-protocol"]) == (101, "own")
    assert ask(port_of(tmp_path)) == "first"


@pytest.mark.slow
def test_taken_port(start: Start) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with serve(app, lifespan="off") as server:
        command = start("--noreload", f"127.0.0.1:{server.port}")
        assert command.wait() == 1
    assert f"can't listen on 127.0.0.1:{server.port}: Address already in use" in command.log


@pytest.mark.slow
def test_order_of_apps(start: Start) -> None:
    order = '["django.contrib.staticfiles", "tinyasgi.integrations.django"]'
    settings = SETTINGS + f"INSTALLED_APPS = {order}\n"
    command = start("--noreload", "127.0.0.1:0", settings=settings)
    assert command.wait() == 1
    assert "must come before django.contrib.staticfiles" in command.log
