"""The Python API of uvicorn, used as programs use it."""

import asyncio
import inspect
import logging
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import Client, Command, Response
from tests.support.processes import wait_until
from tinyasgi.config.kinds import OptionError
from tinyasgi.integrations import uvicorn
from tinyasgi.integrations.uvicorn import config as uvicorn_config
from tinyasgi.integrations.uvicorn import supervisors
from tinyasgi.testing import serve


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/fails":
        raise ValueError("broken")
    await send({"type": "http.response.start", "status": 200})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        while True:  # ignores the disconnect
            await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b"hello"})


async def fails_in_startup(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Undo what `log_config` has set."""
    names = ["uvicorn", "uvicorn.error", "uvicorn.access", "tinyasgi.server"]
    found = [logging.getLogger(name) for name in names]
    before = [(vars(each).copy(), each.handlers[:], each.filters[:]) for each in found]
    yield
    for each, (attributes, handlers, filters) in zip(found, before, strict=True):
        vars(each).update(attributes)
        each.handlers[:], each.filters[:] = handlers, filters
        each.setLevel(each.level)  # clears the cache of levels


def get(path: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode()


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@contextmanager
def running(server: uvicorn.Server, sockets: Any = None) -> Iterator[int]:
    """Run a server in a thread; yield its port."""
    thread = threading.Thread(target=server.run, args=[sockets])
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    try:
        yield port_of(server)
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, path: str = "/") -> Response:
    with Client(port) as client:
        return client.response(get(path))


# Options.


def test_options_are_those_of_uvicorn() -> None:
    theirs = inspect.signature(pytest.importorskip("uvicorn").Config).parameters
    ours = inspect.signature(uvicorn.Config).parameters
    assert list(ours) == list(theirs)
    for name in ours.keys() - {"log_config"}:
        assert ours[name].default == theirs[name].default, name


def test_run_has_these_options() -> None:
    theirs = inspect.signature(pytest.importorskip("uvicorn").run).parameters
    assert theirs.keys() - {"app_dir"} <= inspect.signature(uvicorn.Config).parameters.keys()


def test_log_config_is_that_of_uvicorn() -> None:
    theirs = pytest.importorskip("uvicorn").config.LOGGING_CONFIG
    ours = str(uvicorn_config.LOGGING_CONFIG)
    assert ours.replace("tinyasgi.integrations.", "") == str(theirs)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"timeout_keep_alive": 5, "workers": None}),
        ({}, {"timeout_graceful_shutdown": 10**9}),  # no limit
        ({"timeout_graceful_shutdown": 3}, {"timeout_graceful_shutdown": 3}),
        ({"host": None}, {"host": ""}),
        ({"port": "80"}, {"port": 80}),
        ({"ws": "wsproto", "ws_ping_interval": None}, {"ws": "auto", "ws_ping_interval": 0}),
        ({"limit_concurrency": None}, {"limit_concurrency": 0}),
        ({"headers": [("a", "b")]}, {"header": (("a", "b"),)}),
        ({"h11_max_incomplete_event_size": 999}, {"limit_head_size": 999}),
        ({"workers": 3}, {"workers": 3}),
        ({"workers": 3, "reload": True}, {"workers": None, "reload": True}),
        ({"reload": True, "reload_dirs": "/a"}, {"reload_dir": ("/a",)}),
        ({"reload": True, "reload_includes": ["*.x"]}, {"reload_include": ("*.x",)}),
        ({"reload_dirs": "/a"}, {"reload_dir": ()}),
        ({"ssl_keyfile": "key"}, {"ssl_keyfile": ()}),
    ],
)
def test_translation(given: Any, expected: Any) -> None:
    translated = uvicorn.Config("app:app", **given).translated()
    assert {name: getattr(translated, name) for name in expected} == expected


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    config = uvicorn.Config("app:app")
    assert (config.workers, config.forwarded_allow_ips) == (4, "10.0.0.1")
    assert config.translated().workers == 4


def test_attributes() -> None:
    config = uvicorn.Config("app:app", reload=True)
    assert config.should_reload
    assert config.use_subprocess
    assert config.reload_dirs == [Path.cwd()]
    assert not config.is_ssl
    assert not uvicorn.Config(app, reload=True).should_reload


@pytest.mark.parametrize(
    ("name", "value"),
    [("reload_delay", 2), ("timeout_worker_healthcheck", 9), ("ssl_version", 5)],
)
def test_option_without_a_meaning(name: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    uvicorn.Config(app, **{name: value}, log_config=None)
    (record,) = caplog.records
    assert record.name == "uvicorn.error"
    assert record.getMessage().startswith(f"{name}={value!r}: ")


@pytest.mark.parametrize(("name", "value"), [("http", object), ("ws", "own:Protocol")])
def test_value_without_a_meaning(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name}=.*expected auto"):
        uvicorn.Config(app, **{name: value})


def test_bind_socket() -> None:
    config = uvicorn.Config(app, port=0)
    sock = config.bind_socket()
    assert sock.get_inheritable()
    with running(uvicorn.Server(config), [sock]) as port:
        assert port == sock.getsockname()[1]
        assert ask(port).body == b"hello"
    assert sock.fileno() == -1


# The app.


def test_factory(caplog: pytest.LogCaptureFixture) -> None:
    config = uvicorn.Config(lambda: app, log_config=None)
    config.load()
    assert config.loaded_app is app
    assert "using it as a factory" in caplog.text


@pytest.mark.parametrize(
    ("app", "options", "text"),
    [
        ("none_such:app", {}, "no module named 'none_such'"),
        (app, {"factory": True}, "factory"),
        (fails_in_startup, {}, "no database"),
        (app, {"ssl_certfile": "none.pem"}, "none.pem"),
    ],
)
def test_failed_start(app: Any, options: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, **options))
    with pytest.raises(SystemExit) as leaving:
        server.run()
    assert leaving.value.code == 3
    assert not server.started
    assert text in caplog.text


def test_taken_port(caplog: pytest.LogCaptureFixture) -> None:
    with serve(app) as other, pytest.raises(SystemExit) as leaving:
        uvicorn.run(app, port=other.port, log_config=None)
    assert leaving.value.code == 3
    assert f"can't listen on 127.0.0.1:{other.port}" in caplog.text


# The life of a server.


def test_server_in_a_thread() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, loop="asyncio"))
    with running(server) as port:
        assert ask(port).body == b"hello"
        assert server.started


async def serve_until(server: uvicorn.Server) -> "asyncio.Task[None]":
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    return task


def test_server_in_a_task() -> None:
    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0))
        task = await serve_until(server)
        assert (await asyncio.to_thread(ask, port_of(server))).status == 200
        server.should_exit = True
        await task

    asyncio.run(main())


@pytest.mark.parametrize("way", ["cancel", "force_exit"])
def test_end_of_a_stream(way: str) -> None:
    """The graceful shutdown has no limit, as in uvicorn, but it can be cut short."""

    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0))
        task = await serve_until(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(get("/stream"))
        await reader.readuntil(b"begin")
        if way == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            server.should_exit = server.force_exit = True
            await task
        await reader.read()
        writer.close()

    asyncio.run(main())


def test_program_that_calls_the_parts() -> None:
    """Some programs call `startup`, `main_loop` and `shutdown`, or restart the server."""

    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0))
        await server.startup()
        loop = asyncio.create_task(server.main_loop())
        assert (await asyncio.to_thread(ask, port_of(server))).status == 200
        await server.shutdown()
        await server.startup()
        assert (await asyncio.to_thread(ask, port_of(server))).status == 200
        assert not loop.done()
        server.should_exit = True
        await loop
        await server.shutdown()
        await server.shutdown()

    asyncio.run(main())


def test_limit_of_requests() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, limit_max_requests=1))
    with running(server) as port:
        ask(port)
        wait_until(lambda: server.servers[0].sockets == [])
        assert not server.should_exit


def test_callback() -> None:
    calls = []

    async def callback() -> None:
        calls.append(1)

    config = uvicorn.Config(app, port=0, callback_notify=callback, timeout_notify=0)
    with running(uvicorn.Server(config)):
        wait_until(lambda: len(calls) > 1)


def test_program_that_sets_the_lifespan() -> None:
    """Programs that call `startup` create the lifespan before, as uvicorn's `serve` does."""

    async def main() -> None:
        config = uvicorn.Config(app, port=0)
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        assert server.lifespan.state is server.servers[0].app_state
        assert not server.lifespan.should_exit
        await server.shutdown()

    asyncio.run(main())


def test_failed_lifespan() -> None:
    server = uvicorn.Server(uvicorn.Config(fails_in_startup, port=0, log_config=None))
    with pytest.raises(SystemExit):
        server.run()
    assert server.lifespan.should_exit


def test_server_state() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    state = server.server_state
    with running(server) as port, Client(port) as client:
        ask(port)
        wait_until(lambda: len(state.connections) == 1)
        client.send(get("/stream"))
        client.head()
        assert (state.total_requests, len(state.connections), len(state.tasks)) == (1, 1, 1)
        server.force_exit = True
    assert not state.connections
    assert not state.tasks


def test_missing_attribute() -> None:
    config = uvicorn.Config(app)
    with pytest.raises(AttributeError, match=r"setup_event_loop.*call get_loop_factory\(\)"):
        config.setup_event_loop()
    assert getattr(config, "none", 5) == 5


@pytest.mark.parametrize("way", ["change", "replace"])
def test_tls_context(way: str, tls: Any) -> None:
    """Programs change the context, or replace it."""
    if way == "change":
        config = uvicorn.Config(app, port=0, ssl_certfile=tls.certfile)
        config.load()
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    else:
        config = uvicorn.Config(app, port=0)
        config.load()
        assert config.ssl is None
        config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        config.ssl.load_cert_chain(tls.certfile)
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    with (
        running(uvicorn.Server(config)) as port,
        socket.create_connection(("127.0.0.1", port)) as raw,
        tls.context().wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        assert sock.version() == "TLSv1.3"


def test_importer() -> None:
    assert uvicorn.importer.import_from_string(f"{__name__}:app") is app
    assert uvicorn.importer.import_from_string(app) is app
    with pytest.raises(uvicorn.importer.ImportFromStringError, match="none_such"):
        uvicorn.importer.import_from_string("none_such:app")


def test_target_of_a_supervisor(caplog: pytest.LogCaptureFixture) -> None:
    """A target that the processes do not run is reported."""

    class Own(uvicorn.Server):
        pass

    config = uvicorn.Config("app:app", workers=2, log_config=None)
    supervisors.Multiprocess(config, target=uvicorn.Server(config).run, sockets=[])
    assert not caplog.records
    supervisors.Multiprocess(config, target=Own(config).run, sockets=[])
    assert "Own object" in caplog.text
    assert "has no effect" in caplog.text


# Signals.

SCRIPT = """
import asyncio, signal, sys
from app import app
from tinyasgi.integrations import uvicorn

class Own(uvicorn.Server):
    def install_signal_handlers(self):
        pass

class Shown(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        assert signal.getsignal(signal.SIGTERM).__self__ is self

{}
sys.stderr.write("after")
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts a script, which serves `app`."""
    source = inspect.getsource(app)
    (tmp_path / "app.py").write_text(f"import asyncio\n{source}")

    def start(text: str) -> Command:
        (tmp_path / "script.py").write_text(SCRIPT.format(text))
        started.append(Command(script="script.py", cwd=tmp_path, PYTHONWARNINGS=""))
        return started[-1]

    started: list[Command] = []
    yield start
    for command in started:
        with command:
            pass


@pytest.mark.parametrize(
    ("text", "number", "code"),
    [
        ("uvicorn.run(app, port=0)", signal.SIGINT, 0),
        ("uvicorn.run(app, port=0)", signal.SIGTERM, -signal.SIGTERM),
        ("Shown(uvicorn.Config(app, port=0)).run()", signal.SIGTERM, -signal.SIGTERM),
        ("Own(uvicorn.Config(app, port=0)).run()", signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_signals(text: str, number: int, code: int, start: Any) -> None:
    """The server stops gracefully; then the signal has its usual effect, as in uvicorn."""
    command = start(text)
    command.wait_for("running on http://")
    assert command.stop(number) == code
    assert ("Finished server process" in command.log) == ("Own" not in text)
    assert command.log.endswith("after") == (code == 0)


@pytest.mark.slow
def test_second_interrupt(start: Any) -> None:
    command = start("uvicorn.run(app, port=0)")
    with Client(int(command.wait_for(r"running on http://.*:(\d+)")[1])) as client:
        client.send(get("/stream"))
        client.head()
        client.chunk()
        command.send(signal.SIGINT)
        command.wait_for(r"Waiting for GET /stream .*CTRL\+C to force quit")
        assert command.stop(signal.SIGINT) == 0


@pytest.mark.slow
def test_workers(start: Any) -> None:
    command = start("uvicorn.run('app:app', port=0, workers=2)")
    assert ask(command.port).body == b"hello"
    assert command.stop() == 0
    assert command.log.endswith("after")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ChangeReload", "Multiprocess"])
def test_supervisor(kind: str, start: Any) -> None:
    """As in programs that choose the supervisor, and bind its socket."""
    command = start(
        "from tinyasgi.integrations.uvicorn.supervisors import ChangeReload, Multiprocess\n"
        "config = uvicorn.Config('app:app', port=0, workers=2)\n"
        "sock = config.bind_socket()\n"
        "server = uvicorn.Server(config)\n"
        f"{kind}(config, target=server.run, sockets=[sock]).run()\n"
        "assert sock.fileno() == -1\n"
    )
    assert ask(command.port).body == b"hello"
    assert command.stop() == 0
    assert command.log.endswith("after")


@pytest.mark.slow
def test_command(start: Any) -> None:
    command = start(
        "sys.argv[1:] = ['app:app', '--port', '0', '--timeout-notify', '30']\nuvicorn.main()"
    )
    assert ask(command.port).body == b"hello"
    assert command.stop() == 0
    assert not command.log.endswith("after")


def test_workers_need_a_name() -> None:
    with pytest.raises(SystemExit) as leaving:
        uvicorn.run(app, workers=2)
    assert leaving.value.code == 2


# Logs.


def test_access_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Filters for uvicorn work: they read the arguments of records."""
    logging.getLogger("uvicorn.access").addFilter(lambda record: record.args[2] != "/hidden")
    with running(uvicorn.Server(uvicorn.Config(app, port=0))) as port:
        for path in ("/a%20b?c=d", "/hidden"):
            ask(port, path)
    line = r'INFO:     127.0.0.1:\d+ - "GET /a%20b\?c=d HTTP/1.1" 200 OK\n'
    assert re.fullmatch(line, capsys.readouterr().out)


def test_other_format(capsys: pytest.CaptureFixture[str]) -> None:
    config = {**uvicorn_config.LOGGING_CONFIG}
    config["formatters"] = {**config["formatters"]}
    config["formatters"]["access"] = {
        **config["formatters"]["access"],
        "fmt": "%(levelprefix)s [%(request_line)s] %(status_code)s",
    }
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=config, use_colors=True))
    with running(server) as port:
        ask(port)
    assert capsys.readouterr().out == "\x1b[32mINFO\x1b[0m:     [GET / HTTP/1.1] 200 OK\n"
    uvicorn_config.LOGGING_CONFIG["formatters"]["default"]["use_colors"] = None


@pytest.mark.parametrize("options", [{"access_log": False}, {"log_level": "warning"}])
def test_no_access_log(options: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with running(uvicorn.Server(uvicorn.Config(app, port=0, **options))) as port:
        ask(port)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("running on" in captured.err) == ("access_log" in options)


def test_errors_of_the_app(caplog: pytest.LogCaptureFixture) -> None:
    config = uvicorn.Config(app, port=0, log_config=None)
    with running(uvicorn.Server(config)) as port:
        assert ask(port, "/fails").status == 500
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "uvicorn.error"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


# `install`.


@pytest.mark.slow
def test_install(tmp_path: Path) -> None:
    """Modules that only uvicorn has come from there."""
    pytest.importorskip("uvicorn")
    code = (
        "from tinyasgi.integrations import uvicorn as ours\n"
        "ours.install()\n"
        "import uvicorn, uvicorn.config, uvicorn.supervisors\n"
        "from uvicorn.main import STARTUP_FAILURE, Server\n"
        "from uvicorn.importer import import_from_string\n"
        "from uvicorn.protocols.utils import ClientDisconnected\n"
        "from uvicorn.supervisors import ChangeReload, Multiprocess\n"
        "from tinyasgi.errors import ClientDisconnected as Ours\n"
        "assert ClientDisconnected is Ours\n"
        "from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware\n"
        "assert uvicorn is ours\n"
        "assert uvicorn.config.Config is ours.Config\n"
        "assert Server is ours.Server\n"
        "assert ProxyHeadersMiddleware.__module__ == 'uvicorn.middleware.proxy_headers'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
