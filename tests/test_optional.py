"""Optional packages are imported only when they are used. Without them the server works."""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

import tinyasgi
from tests.support.helpers import GET, Client, Command

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
"""

PACKAGES = (
    "protocols/websocket",
    "protocols/extensions",
    "app/wsgi",
    "proxy",
    "metrics",
    "workers",
    "tls",
    "testing",
    "integrations",
)


@pytest.mark.parametrize(
    "packages", [*([name] for name in PACKAGES), PACKAGES], ids=[*PACKAGES, "all"]
)
def test_hello_without(packages: Sequence[str], tmp_path: Path) -> None:
    source = tmp_path / "source" / "tinyasgi"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(tinyasgi.__file__).parent, source, ignore=ignored)
    for package in packages:
        shutil.rmtree(source / package)
    (tmp_path / "app.py").write_text(APP)
    with Command("app:app", "--port", "0", cwd=tmp_path, PYTHONPATH=str(source.parent)) as command:
        with Client(command.port) as client:
            assert client.response(GET).body == b"hello"
        assert command.stop(signal.SIGTERM) == 0
