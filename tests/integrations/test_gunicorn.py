"""The worker class for gunicorn, with the real gunicorn."""

import ast
import itertools
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Client, Command
from tests.support.load import Load
from tests.support.processes import children, free_ports, is_alive, wait_until
from tinyasgi.config.config import Config

gunicorn_config = pytest.importorskip("gunicorn.config")
from tinyasgi.integrations.gunicorn import requests  # noqa: E402
from tinyasgi.integrations.gunicorn import settings as settings_module  # noqa: E402
from tinyasgi.integrations.gunicorn.settings import UNSUPPORTED, options  # noqa: E402

#: The app `app:app` of a test. A response contains the process id.
APP = """
import asyncio, os, sys, time

def say(what):
    sys.stderr.write(what + "\\n")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say(f"shutdown of {os.getpid()}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/block":
        time.sleep(600)
    elif path == "/wait":
        say("waiting")
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await asyncio.Event().wait()
    body = str(scope) if path.endswith("/scope") else str(os.getpid())
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})

def wsgi(environ, start_response):
    start_response("200 OK", [("content-length", "4")])
    return [b"wsgi"]

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
SCRIPT = """
import sys
from gunicorn.app.wsgiapp import run
sys.argv[1:] = {words!r}
run()
"""

Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts gunicorn in a folder with an app."""
    (tmp_path / "app.py").write_text(APP)
    worker = ["--worker-class", "tinyasgi.integrations.gunicorn.Worker", "--no-control-socket"]

    def start(*words: str, app: str = "app:app", config: str = "") -> Command:
        (tmp_path / "gunicorn.conf.py").write_text(config)
        bind = [] if {"--bind", "-b"} & {*words} else ["--bind", "127.0.0.1:0"]
        script = tmp_path / "gunicorn_main.py"
        script.write_text(SCRIPT.format(words=[*worker, *bind, *words, app]))
        options = {"PYTHONWARNINGS": "", "PYTHONDONTWRITEBYTECODE": "1"}
        return stack.enter_context(Command(script=str(script), cwd=tmp_path, **options))

    with ExitStack() as stack:
        yield start


def port_of(command: Command, count: int = 1) -> int:
    """Return the port, when so many workers have booted."""
    port = int(command.wait_for(r"Listening at: https?://\S+:(\d+)")[1])
    command.wait_for("Booting worker", count)
    return port


def ask(port: int, request: bytes = GET) -> str:
    with Client(port) as client:
        return client.response(request).body.decode()


def is_served(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode()


# Signals, under load.


@pytest.mark.slow
def test_reload_under_load(start: Start) -> None:
    command = start("--workers", "2")
    port = port_of(command, 2)
    with Load(port, 300) as load:
        wait_until(lambda: len(load.answers) == 2)
        before = {*load.answers}
        command.send(signal.SIGHUP)
        command.wait_for("Booting worker", 4)
        wait_until(lambda: len(load.answers) == 4)
        wait_until(lambda: not any(is_alive(int(pid)) for pid in before))
    assert load.failures == []
    assert command.stop() == 0
    assert command.log.count("shutdown of ") == 4


@pytest.mark.slow
def test_upgrade_under_load(start: Start) -> None:
    """SIGUSR2 starts a second master. The first one then gets SIGTERM."""
    command = start("--workers", "1", "--pid", "pid")
    port = port_of(command)
    with Load(port, 300) as load:
        wait_until(lambda: load.count > 10)
        command.send(signal.SIGUSR2)
        command.wait_for("Booting worker", 2)
        new = int(command.wait_for(r"Listening at: \S+ \((\d+)\)", 2)[1])
        wait_until(lambda: len(load.answers) == 2)
        command.send(signal.SIGTERM)
        assert command.process.wait() == 0
        count = load.count
        wait_until(lambda: load.count > count + 100)
    assert load.failures == []
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not is_alive(new))


@pytest.mark.slow
def test_limit_of_requests_under_load(start: Start) -> None:
    command = start("--workers", "2", "--max-requests", "100", "--max-requests-jitter", "50")
    port = port_of(command, 2)
    with Load(port, 300) as load:
        wait_until(lambda: len(load.answers) > 5)
    assert load.failures == []
    assert command.stop() == 0


# The end.


def test_graceful_stop(start: Start, tmp_path: Path) -> None:
    command = start()
    port = port_of(command)
    with Client(port) as client, Client(port) as idle:
        assert idle.response(GET).status == 200
        client.send(get("/wait"))
        command.wait_for("^waiting")
        command.send(signal.SIGTERM)
        wait_until(lambda: not is_served(port))
        (tmp_path / "go").touch()
        response = client.response()
    assert (response.status, response.fields["connection"]) == (200, "close")
    assert command.wait() == 0
    assert "shutdown of" in command.log


@pytest.mark.slow
def test_end_of_the_graceful_timeout(start: Start) -> None:
    """A request that runs too long is cancelled before the master kills the worker."""
    command = start("--graceful-timeout", "2")
    port = port_of(command)
    with Client(port) as client:
        client.send(get("/wait"))
        command.wait_for("^waiting")
        assert command.stop() == 0
    assert "still running after 1 s" in command.log
    assert "shutdown of" in command.log
    assert "SIGKILL" not in command.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop(number: int, start: Start) -> None:
    command = start(config="def worker_int(worker): worker.log.info('hook')")
    port = port_of(command)
    with Client(port) as client:
        client.send(get("/stream"))
        client.head()
        assert client.chunk() == b"begin"
        assert command.stop(number) == 0
    assert "hook" in command.log
    assert "shutdown of" in command.log


@pytest.mark.slow
def test_death_of_the_master(start: Start) -> None:
    command = start("--workers", "2")
    port_of(command, 2)
    workers = children(command.process.pid)
    command.process.kill()
    wait_until(lambda: not any(map(is_alive, workers)))
    assert command.wait() == -signal.SIGKILL
    assert command.log.count("shutdown of ") == 2


@pytest.mark.slow
def test_blocked_worker(start: Start) -> None:
    """The master kills a worker that gives no sign of life."""
    command = start("--timeout", "1", config="def worker_abort(worker): worker.log.info('hook')")
    port = port_of(command)
    with Client(port) as client:
        client.send(get("/block"))
        command.wait_for("WORKER TIMEOUT")
        command.wait_for("Booting worker", 2)
    assert int(ask(port)) in children(command.process.pid)
    assert command.stop() == 0
    assert "hook" in command.log


@pytest.mark.slow
def test_change_of_a_file(start: Start, tmp_path: Path) -> None:
    command = start("--reload", "--reload-engine", "poll")
    port = port_of(command)
    before = ask(port)
    moments = itertools.count(2_000_000_000)  # in the future

    def change() -> None:  # again: the first one may come before the reloader looks at the file
        os.utime(tmp_path / "app.py", (next(moments),) * 2)

    wait_until(lambda: change() or not is_alive(int(before)))
    command.wait_for("Booting worker", 2)
    assert ask(port) != before
    assert command.stop() == 0


# A failed start.


@pytest.mark.parametrize(
    ("words", "app", "code", "text"),
    [
        ([], "app:failing", 3, "no database"),
        ([], "none:app", 3, "No module named 'none'"),
        (["--certfile", "app.py"], "app:app", 3, "app.py"),
        (["--proxy-protocol", "--proxy-allow-from", "10.0.0.1"], "app:app", 3, "proxy_allow_ips"),
    ],
)
def test_failed_start(words: list[str], app: str, code: int, text: str, start: Start) -> None:
    command = start(*words, app=app)
    assert command.wait() == code
    assert text in command.log
    assert "Worker failed to boot" in command.log


def test_unexpected_error(start: Start, tmp_path: Path) -> None:
    """The master does not start workers again and again."""
    (tmp_path / "own.py").write_text(
        "from tinyasgi.integrations.gunicorn import Worker\n"
        "class Own(Worker):\n"
        "    def notify(self):\n        raise ValueError('out of order')\n"
    )
    command = start("--worker-class", "own.Own")
    assert command.wait() == 3
    assert command.log.count("ValueError: out of order") == 1


# Hooks.

HOOKS = """
def on_starting(server): server.log.info("hook on_starting")
def when_ready(server): server.log.info("hook when_ready")
def pre_fork(server, worker): server.log.info("hook pre_fork")
def post_fork(server, worker): server.log.info("hook post_fork")
def post_worker_init(worker): worker.log.info("hook post_worker_init")
def pre_request(worker, req): worker.log.info("hook pre_request %s %s", req.method, req.uri)
def post_request(worker, req, environ, resp):
    assert req.path == environ["PATH_INFO"] and ("HOST", "here") in req.headers
    worker.log.info("hook post_request %s %s", req.path, resp.status)
def worker_exit(server, worker): worker.log.info("hook worker_exit")
def child_exit(server, worker): server.log.info("hook child_exit")
def nworkers_changed(server, new, old): server.log.info("hook nworkers_changed %s", new)
def on_exit(server): server.log.info("hook on_exit")
"""


@pytest.mark.slow
@pytest.mark.parametrize("app", ["app:app", "app:wsgi"])
def test_hooks(app: str, start: Start) -> None:
    command = start(config=HOOKS, app=app)
    ask(port_of(command), get("/a?b"))
    command.wait_for("hook post_request")
    command.send(signal.SIGTTIN)
    command.wait_for("hook nworkers_changed 2")
    command.wait_for("hook post_worker_init", 2)
    command.send(signal.SIGTTOU)
    command.wait_for("hook nworkers_changed 1", 2)
    command.wait_for("hook child_exit")
    assert command.stop() == 0
    names = re.findall("hook (.*)", command.log)
    requests = ["pre_request GET /a?b", "post_request /a 200"]
    assert [name for name in names if "request" in name] == requests
    hooks = {*re.findall(r"def (\w+)", HOOKS)}
    assert {name.split()[0] for name in names} == hooks


@pytest.mark.slow
def test_failing_hook(start: Start) -> None:
    command = start(config="def post_request(worker, req): raise ValueError('broken')")
    port = port_of(command)
    assert ask(port) == ask(port)
    command.wait_for("ValueError: broken", 2)
    assert command.stop() == 0


# Settings.


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--preload"]])
def test_wsgi_app(words: list[str], start: Start) -> None:
    command = start("--threads", "3", *words, app="app:wsgi")
    assert ask(port_of(command)) == "wsgi"
    assert command.stop() == 0


@pytest.mark.slow
def test_own_sockets(start: Start) -> None:
    """Each worker binds for itself."""
    (port,) = free_ports(1)
    command = start("--workers", "2", "--reuse-port", "--bind", f"127.0.0.1:{port}")
    wait_until(lambda: is_served(port))
    assert ask(port)
    assert command.stop() == 0


@pytest.mark.slow
def test_unix_socket(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy at a unix socket is trusted."""
    monkeypatch.chdir(tmp_path)
    command = start("--bind", "unix:sock")
    command.wait_for("Booting worker")
    request = b"GET /scope HTTP/1.1\r\nHost: here\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    with Client("sock") as client:
        assert b"'client': ('192.0.2.1', 0)" in client.response(request).body
    assert command.stop() == 0
    assert not os.path.exists("sock")


@pytest.mark.slow
def test_tls(start: Start, tls: Any) -> None:
    hook = (
        "def ssl_context(config, make_default):\n"
        "    import ssl\n"
        "    context = make_default()\n"
        "    context.minimum_version = ssl.TLSVersion.TLSv1_3\n"
        "    return context\n"
    )
    command = start("--certfile", tls.certfile, config=hook)
    port = port_of(command)
    context = tls.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(raw, server_hostname="localhost"),
    ):
        pass
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        tls.context().wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        assert sock.version() == "TLSv1.3"
        sock.sendall(GET)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert command.stop() == 0


def test_access_log(start: Start, tmp_path: Path) -> None:
    """Lines have the format of gunicorn. SIGUSR1 reopens the file."""
    fields = '%(h)s %(u)s "%(r)s" %(s)s %(b)s %(m)s %(U)s %(q)s %(H)s %(a)s %({x-y}i)s %(T)s'
    fields += " %({content-length}o)s"
    command = start("--access-logfile", "log", "--access-logformat", fields)
    port = port_of(command)
    request = b"GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-Y: z\r\nUser-Agent: u\r\n"
    size = len(ask(port, request + b"Authorization: Basic bWU6cGFzcw==\r\n\r\n"))
    line = (
        f'127.0.0.1 me "GET /a%20b?c=d HTTP/1.1" 200 {size} GET /a%20b c=d HTTP/1.1 u z 0 {size}\n'
    )
    wait_until(lambda: (tmp_path / "log").read_text() == line)
    os.rename(tmp_path / "log", tmp_path / "old")
    command.send(signal.SIGUSR1)
    wait_until((tmp_path / "log").exists)

    def is_logged() -> bool:
        ask(port)
        return (tmp_path / "log").read_text() != ""

    wait_until(is_logged)
    assert command.stop() == 0


OWN_LOGGER = """
from gunicorn.glogging import Logger

class Own(Logger):
    def access(self, response, request, environ, duration):
        atoms = self.atoms(response, request, environ, duration)
        self.error("these: %s", {name: str(value) for name, value in atoms.items()})
        super().access(response, request, environ, duration)
"""
#: Values that differ between two calls.
TIMES = {"t", "T", "D", "M", "L"}


@pytest.mark.slow
def test_fields_are_those_of_gunicorn(start: Start, tmp_path: Path) -> None:
    """A subclass of `Logger` gets the arguments of gunicorn; the same values are in each line."""
    (tmp_path / "own.py").write_text(OWN_LOGGER)
    request = b'GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nReferer: "r\r\nUser-Agent: u\r\n\r\n'
    command = start("--logger-class", "own.Own")
    ask(port_of(command), request)
    theirs = ast.literal_eval(command.wait_for("these: (.*)")[1])
    assert command.stop() == 0
    names = [name for name in theirs if name not in {*TIMES, "p"}]
    assert {"h", "r", "s", "U", "q", "f", "{host}i", "{content-length}o", "{path_info}e"} < {*names}
    fields = "\t".join(f"%({name})s" for name in names)
    config = f"access_log_format = {fields!r}"
    command = start("--access-logfile", "log", config=config)
    ask(port_of(command), request)
    wait_until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text() != "")
    expected = [theirs[name].replace('"', '\\"') for name in names]
    assert (tmp_path / "log").read_text().rstrip("\n").split("\t") == expected
    assert command.stop() == 0


@pytest.mark.slow
def test_filter_of_the_access_log(start: Start, tmp_path: Path) -> None:
    config = (
        "import logging\n"
        "def post_worker_init(worker):\n"
        "    worker.log.access_log.addFilter(lambda record: record.args['U'] != '/hidden')\n"
    )
    command = start(
        "--access-logfile", "log", "--access-logformat", "%(U)s %(none)s", config=config
    )
    port = port_of(command)
    for path in ("/hidden", "/shown"):
        ask(port, get(path))
    wait_until(lambda: (tmp_path / "log").read_text() == "/shown -\n")
    assert command.stop() == 0


@pytest.mark.slow
def test_statistics(start: Start) -> None:
    """A logger that counts requests gets them without an access log."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        command = start("--statsd-host", f"127.0.0.1:{sock.getsockname()[1]}")
        ask(port_of(command))
        while not sock.recv(1000).startswith(b"gunicorn.request.status.200:1|c"):
            pass
    assert command.stop() == 0


@pytest.mark.slow
def test_settings_without_an_effect(start: Start) -> None:
    config = "sendfile = False\nheader_map = 'refuse'"
    command = start("--timeout", "60", config=config)
    line = command.wait_for("settings without an effect on this worker class: (.*)")
    assert line[1] == "header_map, sendfile"
    assert ask(port_of(command))
    assert command.stop() == 0


def settings(**values: Any) -> Any:
    config = gunicorn_config.Config()
    for name, value in values.items():
        if name not in config.settings:
            pytest.skip(f"this version of gunicorn does not have {name}")
        config.set(name, value)
    return config


@pytest.mark.parametrize(
    ("name", "value", "option", "expected"),
    [
        ("backlog", 99, "backlog", 99),
        ("keepalive", 7, "timeout_keep_alive", 7),
        ("keepalive", 0, "timeout_keep_alive", 0),
        ("graceful_timeout", 30, "timeout_graceful_shutdown", 23),
        ("graceful_timeout", 4, "timeout_graceful_shutdown", 2),
        ("max_requests", 5, "limit_max_requests", 5),
        ("max_requests_jitter", 6, "limit_max_requests_jitter", 6),
        ("limit_request_fields", 8, "limit_head_fields", 8),
        ("limit_request_line", 0, "limit_head_size", 65536),
        ("limit_request_field_size", 100_000, "limit_head_size", 100_000),
        ("forwarded_allow_ips", "*", "forwarded_allow_ips", ("*", "unix")),
        ("proxy_protocol", True, "proxy_protocol", True),
        ("proxy_protocol", "v2", "proxy_protocol", True),
        ("asgi_lifespan", "off", "lifespan", "off"),
        ("asgi_loop", "asyncio", "loop", "asyncio"),
        ("http_protocols", "h2,h1", "http2", True),
        ("http_protocols", "h1", "http2", False),
        ("root_path", "/api", "root_path", "/api"),
        ("threads", 4, "wsgi_threads", 4),
        ("websocket_max_message_size", 9, "ws_max_size", 9),
        ("worker_connections", 1000, "limit_connections", 0),  # the default of gunicorn
        ("worker_connections", 8, "limit_connections", 8),
    ],
)
def test_settings(name: str, value: Any, option: str, expected: Any) -> None:
    config = Config(**options(settings(**{name: value})))
    assert getattr(config, option) == expected


#: Settings that the master applies, or the base class of workers.
OF_GUNICORN = """
    bind capture_output check_config chdir config control_socket control_socket_disable
    control_socket_mode daemon default_proc_name disable_redirect_access_to_syslog dogstatsd_tags
    enable_backlog_metric enable_stdio_inheritance errorlog group initgroups logger_class loglevel
    paste pidfile preload_app print_config proc_name pythonpath raw_env raw_paste_global_conf reload
    reload_engine reload_extra_files reuse_port spew statsd_host statsd_prefix syslog_addr
    syslog_facility syslog_prefix timeout umask user worker_class worker_tmp_dir workers wsgi_app
"""


def test_every_setting_is_known() -> None:
    """A setting is applied, or it is the master's, or the warning lists it."""
    source = Path(settings_module.__file__).read_text() + Path(requests.__file__).read_text()
    applied = {*re.findall(r"\w+", source)} - {*UNSUPPORTED}
    ours = {*OF_GUNICORN.split(), *UNSUPPORTED}
    hooks = {each.name for each in gunicorn_config.KNOWN_SETTINGS if each.section == "Server Hooks"}
    known = {each.name for each in gunicorn_config.KNOWN_SETTINGS} - hooks
    assert {name for name in known if not name.startswith(("on_dirty", "dirty_"))} <= ours | applied


def test_defaults() -> None:
    config = Config(**options(settings()))
    assert config.timeout_keep_alive == 2
    assert config.forwarded_allow_ips == ("127.0.0.1", "::1", "unix")


@pytest.mark.slow
def test_subclass_with_options(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from tinyasgi.integrations.gunicorn import Worker\n"
        "class Own(Worker):\n    OPTIONS = {'root_path': '/own'}\n"
    )
    command = start("--worker-class", "own.Own")
    assert "'root_path': '/own'" in ask(port_of(command), get("/scope"))
    assert command.stop() == 0
