"""The servers and proxies that are compared."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.processes import free_ports

__all__ = ["OURS", "PROXIES", "SERVERS", "running"]

HERE = Path(__file__).parent
#: Both must give the same result for all streams.
OURS = ("httptools", "h11")
SERVERS = ("uvicorn", "hypercorn", "gunicorn")
#: In front of tinyasgi.
PROXIES = ("nginx", "haproxy")

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server tinyasgi 127.0.0.1:{behind}
"""


def command(name: str, python: Path, folder: Path, port: int, behind: int) -> list[str]:
    """Return the command of a server. behind: the port of tinyasgi, for proxies."""
    values = {"folder": folder, "port": port, "behind": behind}
    if name in OURS:
        own = [sys.executable, "-m", "tinyasgi", "--http", name, "--port", str(port)]
        return [*own, "--no-access-log", "--log-level", "critical", "echo:app"]
    if name == "nginx":
        (folder / "nginx.conf").write_text(NGINX.format(**values))
        return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    if name == "haproxy":
        (folder / "haproxy.cfg").write_text(HAPROXY.format(**values))
        return ["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")]
    bind = f"127.0.0.1:{port}"
    options = {
        "uvicorn": ["--port", str(port), "--log-level", "critical", "echo:app"],
        "hypercorn": ["-b", bind, "--log-level", "CRITICAL", "echo:app"],
        "gunicorn": [
            "-b",
            bind,
            "-k",
            "gthread",
            "--threads",
            "40",
            "--log-level",
            "critical",
            "echo:wsgi",
        ],
    }
    return [str(python), "-m", name, *options[name]]


@contextmanager
def running(names: list[str], python: Path, folder: Path) -> Iterator[dict[str, int]]:
    """Start servers; yield their ports. The first one is the server behind the proxies."""
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with ExitStack() as stack:
        for name, port in ports.items():
            words = command(name, python, folder, port, ports[names[0]])
            process = stack.enter_context(
                subprocess.Popen(words, cwd=HERE, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield ports
