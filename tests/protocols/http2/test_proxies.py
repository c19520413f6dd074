"""HTTP/2 behind nginx, HAProxy and Caddy, with the settings of docs/http2.md."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examples.grpc_echo import app

from tests.support.helpers import PATIENCE
from tests.support.proxies import free_ports
from tinyasgi.testing import serve

grpc = pytest.importorskip("grpc")
pytestmark = pytest.mark.proxies

PAGE = Path(__file__).parents[3] / "docs" / "http2.md"

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    server { listen 127.0.0.1:PORT http2; BLOCK }
}
"""
HAPROXY = """
defaults
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend clients
    mode http
    bind 127.0.0.1:PORT proto h2
    default_backend site
BLOCK
"""
CADDY = """
{
    admin off
    auto_https off
    servers {
        protocols h1 h2c
    }
}
http://127.0.0.1:PORT {
    BLOCK
}
"""
#: Programs, their languages on the page, settings around those, and arguments.
PROXIES = {
    "nginx": ("nginx", NGINX, ["-p", "FOLDER", "-c", "CONFIG"]),
    "haproxy": ("haproxy", HAPROXY, ["-f", "CONFIG"]),
    "caddy": ("caddyfile", CADDY, ["run", "--adapter", "caddyfile", "--config", "CONFIG"]),
}


def block(language: str) -> str:
    """Return the settings on the page."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(params=PROXIES)
def channel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    program = shutil.which(request.param, path=path)
    if program is None:
        pytest.skip(f"no {request.param} here: make proxies installs it")
    language, template, words = PROXIES[request.param]
    (port,) = free_ports(1)
    with serve(app) as server:
        settings = block(language).replace("127.0.0.1:8001", f"127.0.0.1:{server.port}")
        config = tmp_path / "proxy.conf"
        config.write_text(template.replace("PORT", str(port)).replace("BLOCK", settings))
        values = {"FOLDER": str(tmp_path), "CONFIG": str(config)}
        command = [program, *[values.get(word, word) for word in words]]
        folders = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(tmp_path))  # of Caddy
        proxy = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **folders})
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=PATIENCE)
                yield channel
        finally:
            proxy.terminate()
            proxy.wait(PATIENCE)


def test_calls(channel: Any) -> None:
    assert channel.unary_unary("/Echo/Echo")(b"x" * 1000, timeout=PATIENCE) == b"x" * 1000
    join = channel.stream_unary("/Echo/Join")
    assert join(iter([b"a", b"b"]), timeout=PATIENCE) == b"a b"
    assert list(channel.unary_stream("/Echo/Count")(b"3", timeout=PATIENCE)) == [b"0", b"1", b"2"]
