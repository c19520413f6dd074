"""The servers that are compared. To add a peer, add a row here."""

from __future__ import annotations

from dataclasses import dataclass

#: Maximum number of connections of a workload, and the limit that servers are started with.
CROWD = 10_000
MAX_OPEN = CROWD * 2
#: Threads for a WSGI app.
THREADS = 10


class Failure(Exception):
    """A server lacks a feature, did not start, or sent a wrong response."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings of a server that depend on the workload."""

    app: str
    """`module:attribute`, in this package."""
    log: bool = False
    tls: bool = False
    workers: int = 1
    websocket: bool = False
    http2: bool = False
    wsgi: bool = False
    """True for a WSGI app, False for an ASGI app."""
    loop: str = "uvloop"
    """`uvloop` or `asyncio`."""


@dataclass(frozen=True, slots=True)
class Server:
    """One row: the arguments of the interpreter, for each part of a setup.

    None means that the server does not support this part.
    """

    name: str
    command: str | None
    wsgi: str | None = None
    """Command for a WSGI app."""
    address: str = "--host {host} --port {port}"
    tls: str | None = None
    log: str | None = "--access-log"
    quiet: str = "--no-access-log"
    workers: str | None = "--workers {workers}"
    http: str | None = ""
    """Options for a workload over HTTP/1.1, without WebSocket."""
    http2: str | None = None
    """Options for a workload over HTTP/2. The server must accept HTTP/1.1, too."""
    websocket: str | None = ""
    """Options for a workload with WebSocket."""
    is_peer: bool = True
    is_fixed: bool = False
    """Whether the server can send the response of `apps.hello` only."""

    def words(self, setup: Setup, **values: object) -> list[str]:
        """Return the command line for a setup. values: `host`, `port`, `certfile`, `keyfile`.

        Raises Failure if the server does not support the setup.
        """
        interface, command = ("WSGI", self.wsgi) if setup.wsgi else ("ASGI", self.command)
        protocol, options = "HTTP/1.1", self.http
        if setup.websocket:
            protocol, options = "WebSocket", self.websocket
        elif setup.http2:
            protocol, options = "HTTP/2", self.http2
        parts = {
            interface: command,
            "TLS": self.tls if setup.tls else self.address,
            "an access log": self.log if setup.log else self.quiet,
            "workers": self.workers if setup.workers > 1 else "",
            protocol: options,
        }
        for name, part in parts.items():
            if part is None:
                raise Failure(f"does not support {name}")
        line = " ".join(part for part in parts.values() if part)
        values |= {"app": f"benchmarks.{setup.app}", "workers": setup.workers, "loop": setup.loop}
        return line.format(**values).split()


_ADDRESS = "--host {host} --port {port}"
_GUNICORN = f"--worker-connections {MAX_OPEN} --log-level warning --no-control-socket"

# Each server has its best settings for one core. For granian, these are its default threads (one
# runtime thread, one blocking thread). HTTP/1 without WebSocket is a few per cent faster. The
# pipeline flush makes pipelined requests 50 % faster, at no cost otherwise. On Python 3.12 and
# newer, granian uses the tasks of asyncio instead of its own.
SERVERS = {
    server.name: server
    for server in (
        Server(
            "tinyasgi",
            "-m tinyasgi {app} --loop {loop} --http httptools",
            "-m tinyasgi {app} --loop {loop} --http httptools --interface wsgi"
            f" --wsgi-threads {THREADS}",
            tls=f"{_ADDRESS} --ssl-certfile {{certfile}} --ssl-keyfile {{keyfile}}",
            http2="",
            is_peer=False,
        ),
        Server(
            "uvicorn",
            "-m uvicorn {app} --loop {loop} --http httptools --no-proxy-headers"
            " --timeout-keep-alive 75",
            "-m uvicorn {app} --loop {loop} --http httptools --no-proxy-headers"
            " --timeout-keep-alive 75 --interface wsgi",  # a2wsgi, with 10 threads
            tls=f"{_ADDRESS} --ssl-certfile {{certfile}} --ssl-keyfile {{keyfile}}",
            http2="--http zttp --http2",
            websocket="--ws websockets-sansio",
        ),
        Server(
            "granian",
            "-m granian {app} --interface asgi --loop {loop}"
            f" --runtime-mode st --task-impl rust --backlog {MAX_OPEN} --backpressure {MAX_OPEN}",
            f"-m granian {{app}} --interface wsgi --backlog {MAX_OPEN}"
            f" --backpressure {THREADS} --blocking-threads {THREADS}",
            tls=f"{_ADDRESS} --ssl-certificate {{certfile}} --ssl-keyfile {{keyfile}}",
            http="--http 1 --http1-pipeline-flush --no-ws",
            http2="--http auto --no-ws",
            websocket="--http 1 --http1-pipeline-flush --ws",
        ),
        Server(
            "h2corn",
            f"-m h2corn {{app}} --loop {{loop}} --runtime-threads 1 --backlog {MAX_OPEN}"
            " --timeout-keep-alive 75 --timeout-request-header 75",  # applies to idle ones, too
            tls=f"{_ADDRESS} --certfile {{certfile}} --keyfile {{keyfile}}",
            http2="",
        ),
        Server(
            "hypercorn",
            "-m hypercorn {app} --worker-class {loop} --keep-alive 75",
            http2="",
            address="--bind {host}:{port}",
            tls="--bind {host}:{port} --certfile {certfile} --keyfile {keyfile}",
            log="--access-logfile -",
            quiet="",
        ),
        Server(
            "gunicorn",
            f"-m gunicorn {{app}} --worker-class asgi --asgi-loop {{loop}} --http-parser fast"
            f" --keep-alive 75 {_GUNICORN}",
            f"-m gunicorn {{app}} --worker-class gthread --threads {THREADS}"
            f" --keep-alive 75 {_GUNICORN}",
            http2="--http-protocols h2,h1 --http2-cleartext both",
            address="--bind {host}:{port}",
            tls="--bind {host}:{port} --certfile {certfile} --keyfile {keyfile}",
            log="--access-logfile -",
            quiet="",
        ),
        Server(
            "daphne",
            "-m daphne {app}",
            address="--bind {host} --port {port}",
            tls="--endpoint ssl:port={port}:privateKey={keyfile}:certKey={certfile}"
            ":interface={host}",
            log="--verbosity 1 --access-log -",
            quiet="--verbosity 0",
            workers=None,
        ),
        Server(
            "waitress",
            None,
            f"-m waitress --threads {THREADS}",
            address="--listen {host}:{port}",
            log=None,
            quiet="{app}",  # the app must be the last argument
            workers=None,
        ),
        Server(
            "floor",
            "-m benchmarks.floor",
            address="{port}",
            quiet="",
            is_peer=False,
            is_fixed=True,
        ),
    )
}
