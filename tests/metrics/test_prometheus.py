"""Metrics of one server and of several processes, and the files that use them."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.support.helpers import (
    GET,
    LOOPS,
    PATIENCE,
    Client,
    Command,
    hello,
    in_loop,
    quick_loop,
    reply,
    until,
    upload,
)
from tests.support.load import Load
from tests.support.processes import Start, ask, free_ports, nothing_left, start, wait_until
from tinyasgi import Config, Server
from tinyasgi.config.kinds import OptionError
from tinyasgi.metrics.store import FAMILIES, GAUGES, REQUESTS, SHARD_SIZE, WORKERS, MetricsStore
from tinyasgi.testing import LiveServer, serve

__all__ = ["nothing_left", "start"]

ROOT = Path(__file__).parents[2]
SCRAPE = GET.replace(b" / ", b" /metrics ")
ON = {"metrics_bind": "127.0.0.1:0", "lifespan": "off"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="watches its processes in /proc")

Samples = dict[tuple[str, ...], float]


def port_of(server: Server) -> int:
    """Return the port of the metrics page."""
    return int(server.metrics_url.removesuffix("/metrics").rpartition(":")[2])


def page(where: Any) -> str:
    """Return the metrics page.

    where: a server, a command, the port of the page, or the path of a unix socket.
    """
    if isinstance(where, LiveServer):
        where = port_of(where.server)
    elif isinstance(where, Command):
        where = int(where.wait_for(r"metrics on http://[^ ]*:(\d+)/metrics")[1])
    with Client(where) as client:
        response = client.response(SCRAPE)
    assert response.status == 200
    return response.body.decode()


def scrape(where: Any) -> Samples:
    """Return all samples. A key is the name without the prefix, and the values of the labels."""
    samples: Samples = {}
    for family in text_string_to_metric_families(page(where)):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name.removeprefix("tinyasgi_"), *sample.labels.values())
            assert key not in samples
            samples[key] = sample.value
    return samples


def requests(samples: Samples) -> dict[tuple[str, ...], float]:
    """Return the number of requests by method and status."""
    return {key[1:]: value for key, value in samples.items() if key[0] == "requests_total"}


def wait_for_requests(where: Any, count: int) -> Samples:
    """Wait until `count` requests are counted.

    A process counts after its response, and another process may answer the scrape.
    """
    found: Samples = {}

    def look() -> bool:
        nonlocal found
        found = scrape(where)
        return sum(requests(found).values()) >= count

    wait_until(look)
    assert requests(found) == {("GET", "200"): count}
    assert found["request_duration_seconds_count",] == count
    return found


def wait_for(where: Any, name: str, value: float) -> None:
    wait_until(lambda: scrape(where)[name,] == value)


# One server.


def test_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send, b"12345", int(scope["path"][1:] or 200))

    def send(client: Client, method: str, status: int) -> None:
        client.send(b"%b /%d HTTP/1.1\r\nHost: here\r\n\r\n" % (method.encode(), status))
        client.head()
        if method != "HEAD":
            client.file.read(5)

    sent = [("GET", 200), ("GET", 200), ("GET", 404), ("POST", 201), ("PUT", 200), ("PATCH", 200)]
    sent += [("DELETE", 500), ("OPTIONS", 999), ("BREW", 418), ("get", 200), ("HEAD", 200)]
    with serve(app, **ON) as server:
        with Client(server) as client:
            for method, status in sent:
                send(client, method, status)
        samples = scrape(server)
        assert scrape(server) == samples  # scrapes are not counted
    assert requests(samples) == {
        ("GET", "200"): 2,
        ("GET", "404"): 1,
        ("HEAD", "200"): 1,
        ("POST", "201"): 1,
        ("PUT", "200"): 1,
        ("PATCH", "200"): 1,
        ("DELETE", "500"): 1,
        ("OPTIONS", "999"): 1,
        ("other", "418"): 1,
        ("other", "200"): 1,
    }
    assert samples["request_duration_seconds_count",] == len(sent)
    assert samples["request_duration_seconds_bucket", "+Inf"] == len(sent)
    assert samples["request_duration_seconds_sum",] > 0
    assert samples["response_body_bytes_total",] == 5 * (len(sent) - 1)
    assert samples["connections_accepted_total",] == 1
    assert samples["requests_aborted_total",] == 0
    assert samples["workers",] == 1
    assert samples["process_start_time_seconds",] > 1.7e9
    assert [value for key, value in samples.items() if key[0] == "build_info"] == [1]


def test_what_the_server_refuses() -> None:
    """Each refused request is counted once, before and after its exchange exists."""
    with serve(hello, **ON, limit_body_size=10, timeout_head=1) as server:
        for data in (
            b"DELETE / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",  # no Host header
            b"HEAD /" + b"x" * 70_000,
            b"\x16\x03\x01 TLS\r\n\r\n",
            upload(11),
            b"POST / HTTP/1.1\r\nHost: he",  # incomplete: times out
        ):
            with Client(server) as client:
                client.send(data)
                client.rest()
        samples = scrape(server)
    assert requests(samples) == {
        ("DELETE", "505"): 1,
        ("GET", "400"): 1,
        ("HEAD", "414"): 1,
        ("other", "400"): 1,
        ("POST", "413"): 1,
        ("POST", "408"): 1,
    }


def test_too_many_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/wait":
            await receive()
            await receive()
        await reply(send)

    with (
        serve(app, **ON, limit_concurrency=1) as server,
        Client(server) as first,
        Client(server) as second,
    ):
        first.send(GET.replace(b" / ", b" /wait "))
        wait_for(server, "requests_in_flight", 1)
        assert second.response(GET).status == 503
        first.half_close()
        assert first.response().status == 200
        assert requests(scrape(server)) == {("GET", "503"): 1, ("GET", "200"): 1}


def test_in_flight_and_open() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await reply(send)

    with serve(app, **ON) as server:
        with Client(server) as idle, Client(server) as client:
            client.send(GET)
            wait_for(server, "requests_in_flight", 1)
            wait_for(server, "connections_open", 2)
            assert requests(scrape(server)) == {}
            client.half_close()
            client.response()
            idle.close()
        wait_for(server, "connections_open", 0)
        samples = scrape(server)
        assert samples["requests_in_flight",] == 0
        assert requests(samples) == {("GET", "200"): 1}


@pytest.mark.parametrize("status", [200, -7, 10**9])
def test_client_that_leaves(status: Any) -> None:
    """The status that the app would have sent does not matter, and neither does the phase."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] != "/":
            await send({"type": "http.response.start", "status": status})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await receive()

    paths = [b"/", b"/start", b"/stream"] if status == 200 else [b"/", b"/start"]
    with serve(app, **ON, raise_app_exceptions=False) as server:
        for count, path in enumerate(paths):
            with Client(server) as client:
                client.send(GET.replace(b" / ", b" %b " % path))
                if path == b"/stream":
                    client.head()
                wait_for(server, "requests_in_flight", 1)
                client.reset()
            wait_for(server, "requests_aborted_total", count + 1)
        expected: dict[Any, float] = {("GET", "none"): 1 if status == 200 else 2}
        if status == 200:
            expected["GET", "200"] = 2
        assert requests(scrape(server)) == expected


@pytest.mark.parametrize("status", [HTTPStatus.OK, 200.0])
def test_status_that_equals_an_int(status: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status})
        if scope["path"] == "/":
            await send({"type": "http.response.body", "body": b"hello"})
        await receive()

    with serve(app, **ON) as server, Client(server) as client:
        for _ in range(2):
            assert client.response(GET).body == b"hello"
        client.send(GET.replace(b" / ", b" /start "))
        wait_for(server, "requests_in_flight", 1)
        client.reset()
        wait_for(server, "requests_aborted_total", 1)
        assert requests(scrape(server)) == {("GET", "200"): 3}


def test_app_that_fails() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    with serve(app, **ON, raise_app_exceptions=False) as server, Client(server) as client:
        assert client.response(GET).status == 500
        assert requests(scrape(server)) == {("GET", "500"): 1}


def test_websocket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/deny":
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
            await send({"type": "websocket.send", "text": message["text"]})

    with serve(app, **ON) as server:
        with connect(server.ws_url, proxy=None) as client:
            for _ in range(3):
                client.send("four")
                assert client.recv() == client.recv() == "four"
            samples = scrape(server)
            assert samples["websockets_open",] == 1
            assert samples["connections_open",] == 1
            assert requests(samples) == {}
        with pytest.raises(Exception, match="403"), connect(server.ws_url + "/deny", proxy=None):
            pass
        wait_for(server, "websockets_open", 0)
        samples = scrape(server)
    assert requests(samples) == {("GET", "101"): 1, ("GET", "403"): 1}
    assert samples["websockets_accepted_total",] == 1
    assert samples["websocket_messages_total", "received"] == 3
    assert samples["websocket_messages_total", "sent"] == 6
    assert samples["response_body_bytes_total",] == 6 * 4 + len("Forbidden\n")
    assert samples["connections_accepted_total",] == 2
    assert samples["request_duration_seconds_count",] == 1  # the denied handshake only


def test_health_and_access_log() -> None:
    """The health path is neither counted nor logged. Other requests are both."""
    logged = []

    async def test() -> None:
        server = Server(hello, **ON, port=0, health_path="/healthz", access=logged.append)  # type: ignore[arg-type]
        async with server:
            port = port_of(server)
            for path in (b"/healthz", b"/"):
                with await asyncio.to_thread(Client, server.port) as client:
                    await asyncio.to_thread(client.response, GET.replace(b" / ", b" %b " % path))
            samples = await asyncio.to_thread(scrape, port)
            assert requests(samples) == {("GET", "200"): 1}

    asyncio.run(test())
    assert len(logged) == 1


def test_page() -> None:
    with serve(hello, **ON) as server:
        port = port_of(server.server)
        with Client(port) as client:
            client.send(SCRAPE.replace(b"GET", b"HEAD"))
            status, fields = client.head()
            assert status == 200
            assert fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert fields["connection"] == "close"
            assert client.rest() == b""
        for request, status in ((GET, 404), (SCRAPE.replace(b"GET", b"POST"), 405)):
            with Client(port) as client:
                assert client.response(request).status == status
        assert requests(scrape(server)) == {}


@pytest.mark.parametrize("base", LOOPS)
def test_clock(base: Any) -> None:
    """The lag is measured while there are connections. An idle server has no timers."""

    async def test() -> None:
        loop: Any = asyncio.get_running_loop()

        async def ask(port: int, request: bytes) -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            return answer.decode().partition("\r\n\r\n")[2]

        async with Server(hello, **ON, port=0) as server:  # type: ignore[arg-type]
            port = port_of(server)
            await ask(server.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            await until(lambda: loop.timers == 0)
            page = await ask(port, SCRAPE)
            await until(lambda: loop.timers == 0)
        assert re.search(r"^tinyasgi_event_loop_lag_seconds_count [1-9]", page, re.MULTILINE)

    with asyncio.Runner(loop_factory=quick_loop(base)) as runner:
        runner.run(test())


def test_app_that_outlives_its_connection() -> None:
    """The request is in flight while the app runs, although the context does not tick any more."""
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reply(send)
        await done.wait()

    async def test() -> None:
        async with Server(app, **ON, port=0) as server:  # type: ignore[arg-type]
            metrics_store = server.metrics_store
            assert metrics_store is not None
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GET)
            in_flight = metrics_store.values(metrics_store.shard)
            await until(lambda: in_flight[1] == 1 and not in_flight[2])
            writer.close()
            await until(lambda: not server._context.connections)
            done.set()
            await until(lambda: in_flight[1] == 0)

    with asyncio.Runner(loop_factory=quick_loop(asyncio.SelectorEventLoop)) as runner:
        runner.run(test())


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_late_scrape_of_a_replaced_server(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics page answers a scrape whose connection it has accepted before the replacement."""
    monkeypatch.setattr("tinyasgi.server.shutdown.LEAVE", PATIENCE)
    shutdown = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        shutdown.set()
        await send({"type": "lifespan.shutdown.complete"})

    server = Server(app, port=0, metrics_bind="127.0.0.1:0")
    await server.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    server.leave()
    end = asyncio.create_task(server.__aexit__(None, None, None))
    await shutdown.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    writer.write(SCRAPE)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await end


@in_loop
async def test_off() -> None:
    """Without `metrics_bind` nothing listens, and the app is not wrapped."""
    async with Server(hello, port=0, lifespan="off", access_log=False) as server:
        assert server.metrics_store is None
        assert server.metrics_url == ""
        assert server._context.app is hello
        assert server._context.access is None


def test_off_imports_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "modules.py").write_text(
        "import sys\nasync def app(scope, receive, send):\n"
        "    body = repr([n for n in sys.modules if n.startswith('tinyasgi.metrics')]).encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    with start(app="modules:app") as command:
        assert ask(command.port) == "[]"
        assert command.stop() == 0
    assert "metrics" not in command.log


# Addresses.


@pytest.mark.parametrize("value", ["9100", "fd://3", "http://here", "127.0.0.1:99999", "unix:"])
def test_no_address(value: str) -> None:
    with pytest.raises(OptionError, match="metrics_bind"):
        Config(metrics_bind=value)


@pytest.mark.parametrize("words", [(), ("--workers", "2")])
def test_address_taken(words: tuple[str, ...], start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with start(*words, "--metrics-bind", address) as command:
            assert command.wait() == 3
    assert command.log == f"tinyasgi: error: can't listen on {address}: Address already in use\n"


@linux
@pytest.mark.parametrize("words", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("unix:./sock", "unix:sock"), ("127.0.0.1:{}", "0.0.0.0:{}")]
)
def test_not_that_of_the_app(words: tuple[str, ...], ours: str, theirs: str, start: Start) -> None:
    (port,) = free_ports(1)
    addresses = ["--metrics-bind", ours.format(port), "--bind", theirs.format(port)]
    with start(*words, *addresses) as command:
        assert command.wait() == 3
    assert command.log.startswith("tinyasgi: error: can't listen on ")
    assert command.log.count("\n") == 1


@linux
@pytest.mark.parametrize("words", [(), ("--workers", "2")])
def test_unix_socket(
    words: tuple[str, ...], start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with start(*words, "--metrics-bind", "unix:metrics") as command:
        command.wait_for("metrics on unix:\\S+/metrics")
        ask(command.port)
        wait_for_requests("metrics", 1)
        if words:
            command.send(signal.SIGHUP)
            command.wait_for("all workers are replaced")
            wait_for_requests("metrics", 1)
        assert command.stop() == 0
    assert not (tmp_path / "metrics").exists()


# Several processes.


@linux
@pytest.mark.slow
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["spawned", "forked"])
def test_counts_stay_whatever_becomes_of_workers(
    preload: tuple[str, ...], start: Start, tmp_path: Path
) -> None:
    with start("--workers", "2", "--metrics-bind", "127.0.0.1:0", *preload) as command:
        began = scrape(command)["process_start_time_seconds",]
        with Load(command.port) as load:
            for number, line in [
                (signal.SIGHUP, "all workers are replaced"),
                (signal.SIGTTIN, "worker 2 .* is ready"),
                (signal.SIGTTOU, "now running 2 worker"),
            ]:
                seen = load.count
                wait_until(lambda seen=seen: load.count > seen + 100)  # type: ignore[misc]
                before = scrape(command)
                command.send(number)
                command.wait_for(line)
                after = scrape(command)
                assert after["requests_total", "GET", "200"] > 0
                for key, value in before.items():
                    if not key[0].endswith(("_open", "workers", "in_flight")):
                        assert after[key] >= value, key
        assert load.failures == []
        wait_for_requests(command, load.count)
        wait_until(lambda: scrape(command)["worker_exits_total", "stopped"] == 3)
        app = (tmp_path / "app.py").read_text()
        (tmp_path / "app.py").write_text("raise ValueError")
        command.send(signal.SIGHUP)
        command.wait_for("reload failed")
        # With a zygote, no worker was started.
        failed = scrape(command)["worker_exits_total", "failed"]
        assert failed == (0 if preload else 1)
        (tmp_path / "app.py").write_text(app)
        count = load.count
        with Client(command.port) as client:
            pid = int(client.response(GET).body.split()[1])
            client.send(GET.replace(b" / ", b" /hang "))
            command.wait_for("hanging")
            wait_for(command, "requests_in_flight", 1)
            os.kill(pid, signal.SIGKILL)
            command.wait_for("SIGKILL")
        command.wait_for(r"worker \d \(pid \d+\) is ready$", 2)
        wait_for(command, "connections_open", 0)  # gauges are updated once a second
        samples = wait_for_requests(command, count + 1)
        assert samples["process_start_time_seconds",] == began
        assert samples["worker_exits_total", "signal"] == 1
        assert samples["requests_in_flight",] == 0
        assert samples["workers",] == 2
        ask(command.port)
        wait_for_requests(command, count + 2)
        assert command.stop() == 0


@pytest.mark.parametrize("has_memfd", [True, False])
def test_shards(has_memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard belongs to one process at a time. The next process continues its counters."""
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    assert FAMILIES[-1].indexes.stop * 8 <= SHARD_SIZE
    store = MetricsStore.create(Config(metrics_bind="127.0.0.1:0"), shard=0)
    try:
        first, second = store.allocate([]), store.allocate([1])
        assert (first.shard, second.shard) == (1, 2)
        for spec in (first, second):
            values = store.values(spec.shard)
            values[WORKERS] = 1.0
            values[REQUESTS] += 5.0
        assert store.totals()[WORKERS] == 2
        store.retire(1, "signal")
        assert store.allocate([2]).shard == 1
        totals = store.totals()
        assert totals[WORKERS] == 1
        assert totals[REQUESTS] == 10
        assert all(store.values(1)[index] == 0 for index in GAUGES)
        store.values(1)[REQUESTS] += 1.0
        assert store.totals()[REQUESTS] == 11
    finally:
        store.close()


# Dashboard, alerts and documentation.


def queries() -> list[str]:
    """Return the queries of the dashboard, with values for its variables."""
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(found) > 20
    return [
        expr.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
        for expr in found
    ]


def names(text: str) -> set[str]:
    """Return the names of metrics in a text."""
    found = set(re.findall(r"\b(?:tinyasgi|process)_[a-z_]+\b", text))
    return {re.sub("_(bucket|count|sum)$", "", name) for name in found} - {"tinyasgi_"}


def test_names_elsewhere() -> None:
    """The files name only existing metrics. The documentation names all of them."""
    with serve(hello, **ON) as server:
        known = set(re.findall(r"^# TYPE (\S+)", page(server), re.MULTILINE))
    dashboard = names("\n".join(queries()))
    assert dashboard <= known
    assert names((ROOT / "deploy" / "prometheus-alerts.yaml").read_text()) <= known
    assert names((ROOT / "docs" / "metrics.md").read_text()) == known
    assert known - dashboard == {"tinyasgi_build_info", "process_start_time_seconds"}


promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")


def check(*words: str, text: str | None = None, folder: Path = ROOT / "deploy") -> None:
    done = subprocess.run(
        ["promtool", "check", *words],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_prometheus_takes_the_page() -> None:
    with serve(hello, **ON) as server:
        ask(server.port)
        check("metrics", text=page(server))


@promtool
def test_prometheus_takes_the_files(tmp_path: Path) -> None:
    check("config", "prometheus.yaml")
    rules = [{"record": f"query:{count}", "expr": expr} for count, expr in enumerate(queries())]
    rules_file = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.json").write_text(json.dumps(rules_file))  # JSON is valid YAML
    check("rules", "rules.json", folder=tmp_path)
