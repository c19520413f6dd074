"""The servers that are compared: a new peer is one more row."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CROWD", "SERVERS", "Failure", "Server", "Setup"]

#: Connections that a server is asked to hold at once, and a few more.
CROWD = 10_000
ROOM = CROWD * 2
#: Threads that run a WSGI app.
THREADS = 10


class Failure(Exception):
    """A server lacks something, did not start, or did not answer as the workload expects."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is started with, beside its own best settings."""

    app: str
    """A module of this package and an attribute of it, as `module:attribute`."""
    log: bool = False
    tls: bool = False
    workers: int = 1
    websocket: bool = False
    wsgi: bool = False
    """The app is one of WSGI, not of ASGI."""
    loop: str = "uvloop"
    """Or `asyncio`."""


@dataclass(frozen=True, slots=True)
class Server:
    """One row: the words after the interpreter, and what is added to them for a setup.

    An option that is None is missing in that server.
    """

    name: str
    command: str | None
    wsgi: str | None = None
    """The command where the app is one of WSGI."""
    address: str = "--host {host} --port {port}"
    tls: str | None = None
    log: str | None = "--access-log"
    quiet: str = "--no-access-log"
    workers: str | None = "--workers {workers}"
    http: str = ""
    """Where no WebSocket is spoken."""
    websocket: str | None = ""
    """Where WebSocket is spoken."""
    is_peer: bool = True
    is_fixed: bool = False
    """It can only ever give the reply of `apps.hello`."""

    def words(self, setup: Setup, **values: object) -> list[str]:
        """The command line for a setup. values: `host`, `port`, `certfile`, `keyfile`.

        Raises Failure for what the server does not have.
        """
        interface, command = ("WSGI", self.wsgi) if setup.wsgi else ("ASGI", self.command)
        parts = {
            interface: command,
            "TLS": self.tls if setup.tls else self.address,
            "an access log": self.log if setup.log else self.quiet,
            "workers": self.workers if setup.workers > 1 else "",
            "WebSocket": self.websocket if setup.websocket else self.http,
        }
        for name, part in parts.items():
            if part is None:
                raise Failure(f"does not have {name}")
        options = " ".join(part for part in parts.values() if part)
        values |= {"app": f"benchmarks.{setup.app}", "workers": setup.workers, "loop": setup.loop}
        return options.format(**values).split()


_ADDRESS = "--host {host} --port {port}"

# Every server at its best for one core. For granian that is its own default threads (one runtime
# thread, one blocking thread) and runtime mode; HTTP/1 alone, without WebSocket, was measured a
# few per cent faster, and the pipeline flush makes it half as fast again when requests are
# pipelined, at no cost otherwise. Its "rust" task loop is left out: not for Python 3.12 or later.
SERVERS = {
    server.name: server
    for server in (
        Server(
            "tinyasgi",
            "-m tinyasgi {app} --loop {loop} --http httptools",
            "-m tinyasgi {app} --loop {loop} --http httptools --interface wsgi"
            f" --wsgi-threads {THREADS}",
            tls=f"{_ADDRESS} --ssl-certfile {{certfile}} --ssl-keyfile {{keyfile}}",
            is_peer=False,
        ),
        Server(
            "uvicorn",
            "-m uvicorn {app} --loop {loop} --http httptools --no-proxy-headers"
            " --timeout-keep-alive 75",
            "-m uvicorn {app} --loop {loop} --http httptools --no-proxy-headers"
            " --timeout-keep-alive 75 --interface wsgi",  # a2wsgi, with 10 threads
            tls=f"{_ADDRESS} --ssl-certfile {{certfile}} --ssl-keyfile {{keyfile}}",
            websocket="--ws websockets-sansio",
        ),
        Server(
            "granian",
            "-m granian {app} --interface asgi --loop {loop} --http 1 --http1-pipeline-flush"
            f" --backlog {ROOM} --backpressure {ROOM}",
            "-m granian {app} --interface wsgi --http 1 --http1-pipeline-flush"
            f" --backlog {ROOM} --backpressure {THREADS} --blocking-threads {THREADS}",
            tls=f"{_ADDRESS} --ssl-certificate {{certfile}} --ssl-keyfile {{keyfile}}",
            http="--no-ws",
            websocket="--ws",
        ),
        Server(
            "hypercorn",
            "-m hypercorn {app} --worker-class {loop} --keep-alive 75",
            address="--bind {host}:{port}",
            tls="--bind {host}:{port} --certfile {certfile} --keyfile {keyfile}",
            log="--access-logfile -",
            quiet="",
        ),
        Server(
            "gunicorn",
            "-m gunicorn {app} --worker-class asgi --asgi-loop {loop} --http-parser fast"
            f" --keep-alive 75 --worker-connections {ROOM} --log-level warning --no-control-socket",
            f"-m gunicorn {{app}} --worker-class gthread --threads {THREADS} --keep-alive 75"
            f" --worker-connections {ROOM} --log-level warning --no-control-socket",
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
            quiet="{app}",  # it takes the app as its last word
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
