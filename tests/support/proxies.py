"""A site with the files of deploy/: backends, and nginx or HAProxy in front of them."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE, Certificates, Command
from tests.support.processes import free_ports, wait_until

__all__ = ["BACKENDS", "DEPLOY", "Site", "shipped"]

DEPLOY = Path(__file__).parents[2] / "deploy"

#: Backends by path prefix.
BACKENDS = {"/": "ab", "/api/": "cd"}

#: App whose response describes the worker, the client and the request.
APP = """
import json, os, sys

ME = f"{os.environ['NAME']} {os.getpid()}"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print(f"shutdown of {ME}", file=sys.stderr, flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    about = {name: scope[name] for name in ("client", "scheme", "path", "root_path", "server")}
    about["name"] = os.environ["NAME"]
    about["fields"] = {name.decode(): value.decode() for name, value in scope["headers"]}
    about["tls"] = (scope.get("extensions", {}).get("tls") or {}).get("client_cert_name")
    about = json.dumps(about)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"] + about})
        return
    body = (about if scope["path"].endswith("/about") else ME).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"""

#: The rest of the configuration around deploy/nginx.conf.
NGINX = """
daemon off;
error_log stderr;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    include site.conf;
}
"""


def shipped(name: str, changes: Mapping[str, str]) -> str:
    """Return a file of deploy/ with other ports and paths."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in {name} any more"
        text = text.replace(old, new)
    return text


class Site:
    """Four backends and a proxy in front of them. kind: `nginx` or `haproxy`."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.certificates = Certificates(folder)
        self.http, self.https, self.a, self.c, self.d = free_ports(5)
        self.b = str(folder / "b.sock")
        self.backends: dict[str, Command] = {}
        self._log = folder / "proxy.log"
        self._stack = ExitStack()

    def __enter__(self) -> "Site":
        program = shutil.which(self.kind, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            pytest.skip(f"no {self.kind} here: make proxies installs it")
        (self.folder / "app.py").write_text(APP)
        with self._stack:
            for name in "abcd":
                self.start(name)
            for command in self.backends.values():
                command.wait_for("Ctrl-C stops it")
            self._start_proxy(program)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def log(self) -> str:
        """Return the log of the proxy so far."""
        return self._log.read_text()

    def start(self, name: str) -> Command:
        """Start a backend."""
        tls = ["--ssl-certfile", self.certificates.certfile]
        words = {
            "a": ["--port", str(self.a)],
            "b": ["--uds", self.b],
            "c": ["--port", str(self.c), *tls],
            "d": ["--port", str(self.d), *tls],
        }[name]
        if self.kind == "haproxy" and name in "ab":
            words += ["--proxy-protocol"]
        delay = "6" if self.kind == "haproxy" else "1"  # in deploy/ 3 s, for a machine at rest
        words += ["--health-path", "/healthz", "--shutdown-delay", delay, "--no-access-log"]
        command = Command("--workers", "1", *words, "app:app", cwd=self.folder, NAME=name)
        self.backends[name] = command
        return self._stack.enter_context(command)

    def stop_and_start(self, *names: str) -> None:
        """Stop backends and start them again. HAProxy notices both before this returns."""
        seen = {name: len(self._changes(name)) for name in names}
        for name in names:
            self.backends[name].send(signal.SIGTERM)
        for name in names:
            assert self.backends[name].wait() == 0
            if self.kind == "haproxy":
                self._wait_for_change(name, seen[name], "DOWN")
            self.start(name)
        for name in names:
            self.backends[name].wait_for("Ctrl-C stops it")
            if self.kind == "haproxy":
                self._wait_for_change(name, seen[name], "UP")

    def _wait_for_change(self, name: str, seen: int, state: str) -> None:
        wait_until(lambda: self._changes(name)[seen:][-1:] == [state])

    def _changes(self, name: str) -> list[str]:
        """Return the states UP and DOWN of a backend in the log of HAProxy."""
        return re.findall(rf"^Server \w+/{name} is (UP|DOWN)", self.log, re.MULTILINE)

    def _start_proxy(self, program: str) -> None:
        pem, authority = self.certificates.certfile, self.certificates.ca_certs
        changes = {
            "127.0.0.1:8001": f"127.0.0.1:{self.a}",
            "/run/site/2.sock": self.b,
            "10.0.0.1:8443": f"127.0.0.1:{self.c}",
            "10.0.0.2:8443": f"127.0.0.1:{self.d}",
            "/etc/ssl/site/backends.pem": authority,
            "backend.internal": "localhost",
        }
        if self.kind == "nginx":
            changes |= {
                "listen 80;": f"listen 127.0.0.1:{self.http};",
                "listen 443 ssl;": f"listen 127.0.0.1:{self.https} ssl;",
                "/etc/ssl/site/fullchain.pem": pem,
                "/etc/ssl/site/key.pem": pem,
            }
            user = "user root;" if os.geteuid() == 0 else ""
            (self.folder / "nginx.conf").write_text(user + NGINX)
            (self.folder / "site.conf").write_text(shipped("nginx.conf", changes))
            words = ["-e", "stderr", "-p", str(self.folder), "-c", "nginx.conf"]
        else:
            changes |= {
                "bind :80": f"bind 127.0.0.1:{self.http}",
                "bind :443": f"bind 127.0.0.1:{self.https}",
                "/etc/ssl/site/site.pem": pem,
                "/etc/ssl/site/clients.pem": authority,
                # On a busy machine a check may take longer.
                "timeout connect 2s": "timeout connect 30s\n    timeout check 30s",
            }
            (self.folder / "haproxy.cfg").write_text(shipped("haproxy.cfg", changes))
            words = ["-db", "-f", str(self.folder / "haproxy.cfg")]
        with self._log.open("w") as log:
            process = subprocess.Popen([program, *words], stdout=log, stderr=log)
        self._stack.callback(process.wait, PATIENCE)
        self._stack.callback(process.send_signal, signal.SIGTERM)

        def listens() -> bool:
            assert process.poll() is None, self.log
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.http)) == 0

        wait_until(listens)
