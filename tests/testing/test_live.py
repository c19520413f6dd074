"""`tinyasgi.testing.serve`: attributes, exceptions of the app, and errors of the server."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import tinyasgi.testing
from tests.support.helpers import GET, PATIENCE, Client, hello, in_loop, reply, upload
from tests.support.processes import wait_until
from tinyasgi import Config
from tinyasgi.app.lifespan import LifespanFailed
from tinyasgi.config.kinds import OptionError
from tinyasgi.importer import LoadError
from tinyasgi.net.listen import ListenError
from tinyasgi.testing import LiveServer, connect, serve

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
COMPLETE = {"type": "lifespan.startup.complete"}

pytestmark = pytest.mark.filterwarnings("error")


async def fails(scope: Any, receive: Any, send: Any) -> None:
    """App that raises the exception that the path names."""
    assert scope["type"] == "http"
    await receive()
    if scope["path"] == "/zero":
        raise ZeroDivisionError("in the app")
    if scope["path"] == "/key":
        raise KeyError("in the app")
    await reply(send, b"fine")


def get(server: LiveServer, path: str = "/") -> int:
    """Send a request; return the status."""
    with Client(server) as client:
        return client.response(GET.replace(b"/ ", path.encode() + b" ")).status


def story(error: BaseException) -> str:
    """Return the traceback and the notes of an exception."""
    return "".join(traceback.format_exception(error))


def waiting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tinyasgi"]


# Attributes of the server.


def test_where_it_is() -> None:
    with serve(hello) as server:
        assert server.host == "127.0.0.1"
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.ws_url == f"ws://127.0.0.1:{server.port}"
        assert httpx.get(server.url, trust_env=False).text == "hello"
    assert waiting() == []


def test_app_state() -> None:
    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        scope["state"]["pool"] = "a pool"
        await receive()
        await send(COMPLETE)

    with serve(app) as server:
        assert server.app_state == {"pool": "a pool"}


def test_config_and_options() -> None:
    config = Config(port=0, root_path="/x", server_header=False)
    with serve(hello, config, server_header=True) as server:
        assert server.server.config == config.replace(server_header=True).resolved()


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_loop(loop: str) -> None:
    loops = []

    async def app(scope, receive, send):
        loops.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])
        await reply(send)

    with serve(app, lifespan="off", loop=loop) as server:
        assert get(server) == 200
    pytest.importorskip("uvloop")
    assert loops == ["asyncio" if loop == "asyncio" else "uvloop"]


def test_app_by_name(tmp_path: Path) -> None:
    code = "async def create():\n    from tests.support.helpers import hello\n    return hello"
    (tmp_path / "made_by_a_test.py").write_text(code)
    options: dict[str, Any] = {"app_dir": str(tmp_path), "factory": True}
    try:
        with serve("made_by_a_test:create", **options) as server:
            assert get(server) == 200
        with (
            pytest.raises(LoadError, match=r"did you mean create\?"),
            serve("made_by_a_test:creat", **options),
        ):
            pytest.fail("the app is served")
    finally:
        sys.path.remove(str(tmp_path))


def test_tls() -> None:
    with serve(hello, tls=True) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert server.ws_url == f"wss://127.0.0.1:{server.port}"
        trust = ssl.create_default_context(cafile=server.ca_certs)
        for host in ("127.0.0.1", "localhost"):
            url = f"https://{host}:{server.port}"
            assert httpx.get(url, verify=trust, trust_env=False).text == "hello"
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url, trust_env=False)
    assert server.ca_certs is not None
    assert not os.path.lexists(os.path.dirname(server.ca_certs))


def test_tls_without_trustme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ImportError, match=r"tinyasgi\[testing\]"), serve(hello, tls=True):
        pytest.fail("there is no certificate")


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        serve(hello, uds="sock") as server,
        httpx.Client(transport=httpx.HTTPTransport(uds="sock")) as client,
    ):
        assert server.url == f"unix:{tmp_path}/sock"
        assert client.get("http://app/").text == "hello"
    assert not os.path.lexists("sock")


def test_socket_that_is_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with serve(hello, sockets=[sock]) as server:
            assert server.port == port
            assert get(server) == 200


def test_records_are_those_of_one_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tinyasgi.access")
    with serve(hello, lifespan="off") as one, serve(hello, lifespan="off") as other:
        assert (get(one, "/one"), get(other, "/other")) == (200, 200)
    for server, path in ((one, "/one"), (other, "/other")):
        (record,) = server.records
        assert path in record.getMessage()
        assert record in caplog.records


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_records_of_threads(loop: str) -> None:
    def wsgi(environ, start_response):
        environ["wsgi.errors"].write(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    async def asgi(scope, receive, send):
        log = logging.getLogger("tinyasgi.server")
        await asyncio.to_thread(log.error, "%s", scope["path"])
        await reply(send)

    options: dict[str, Any] = {"lifespan": "off", "loop": loop}
    with (
        serve(wsgi, **options) as one,
        serve(wsgi, **options) as two,
        serve(asgi, **options) as last,
    ):
        for path, server in {"/one": one, "/two": two, "/last": last}.items():
            assert get(server, path) == 200
    for path, server in {"/one": one, "/two": two, "/last": last}.items():
        errors = [record for record in server.records if record.levelname == "ERROR"]
        assert [record.getMessage() for record in errors] == [path]


def test_stop_in_the_block() -> None:
    with serve(hello) as server:
        assert get(server) == 200
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            Client(server)
        server.stop()


def test_server_that_stops_by_itself() -> None:
    with serve(hello, lifespan="off", limit_max_requests=1) as server:
        (thread,) = waiting()
        assert get(server) == 200
        thread.join(PATIENCE)
        assert waiting() == []


# Exceptions of the app.


def test_exception_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError) as caught, serve(fails) as server:
        assert get(server, "/zero") == 500
    told = story(caught.value)
    assert "in fails" in told  # where
    assert "in GET /zero HTTP/1.1" in told  # in which request
    assert waiting() == []


def test_exception_that_takes_no_note() -> None:
    @dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    async def app(scope, receive, send):
        raise FrozenError(3)

    with pytest.raises(FrozenError), serve(app, lifespan="off") as server:
        assert get(server) == 500
    assert waiting() == []


def test_several_exceptions_are_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught, serve(fails) as server:
        get(server, "/zero")
        get(server, "/key")
    assert {type(error) for error in caught.value.exceptions} == {ZeroDivisionError, KeyError}


def test_expected_exception() -> None:
    with serve(fails) as server:
        for _ in range(2):
            with server.expect(ZeroDivisionError) as errors:
                assert get(server, "/zero") == 500
            assert [str(error) for error in errors] == ["in the app"]
        with server.expect((ZeroDivisionError, KeyError)), server.expect(KeyError):
            get(server, "/key")
            get(server, "/zero")
        assert server.exceptions == []


def test_expecting_one_leaves_others() -> None:
    with pytest.raises(KeyError), serve(fails) as server:
        with server.expect(ZeroDivisionError):
            get(server, "/key")
            get(server, "/zero")
        assert [type(error) for error in server.exceptions] == [KeyError]


def test_expected_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinyasgi.testing.live, "EXPECT_TIMEOUT", 0.01)
    with pytest.raises(AssertionError, match="raise KeyError or OSError") as caught:  # noqa: SIM117
        with serve(fails) as server:
            with server.expect(ZeroDivisionError):
                get(server, "/zero")
            with server.expect((KeyError, OSError)):
                get(server, "/zero")
    assert "ZeroDivisionError: in the app" in story(caught.value)


def test_exceptions_may_be_only_collected() -> None:
    with serve(fails, raise_app_exceptions=False) as server:
        assert get(server, "/zero") == 500
        server.stop()
    assert [type(error) for error in server.exceptions] == [ZeroDivisionError]


def test_check_in_the_block() -> None:
    with serve(fails) as server:
        server.check()
        with server.expect(KeyError):
            get(server, "/key")
        server.check()


def fails_after_the_response(release: threading.Event) -> Any:
    """App that responds, waits for the event, and then fails."""

    async def app(scope, receive, send):
        await reply(send)
        while not release.is_set():
            await asyncio.sleep(0.001)
        raise KeyError("after the response")

    return app


def test_check_waits_for_requests_after_their_response() -> None:
    app = fails_after_the_response(release := threading.Event())
    with serve(app, lifespan="off") as server:
        assert get(server) == 200
        threading.Timer(0.05, release.set).start()
        with pytest.raises(KeyError, match="after the response"):
            server.check()


def test_a_request_that_outlasts_a_check_is_reported_at_the_end() -> None:
    app = fails_after_the_response(release := threading.Event())
    with (
        pytest.raises(KeyError, match="after the response") as caught,
        serve(app, lifespan="off", timeout_graceful_shutdown=0.01) as server,
    ):
        assert get(server) == 200
        server.check()
        release.set()
        wait_until(lambda: not server.server._context.running)
        server.check()
    assert "after an earlier check" in story(caught.value)


def test_failed_test_is_told_what_the_app_raised() -> None:
    with pytest.raises(AssertionError, match="500") as caught, serve(fails) as server:
        status = get(server, "/zero")
        assert status == 200
    told = story(caught.value)
    assert "Meanwhile the app raised" in told
    assert "ZeroDivisionError: in the app" in told


def test_app_that_returns_without_a_response() -> None:
    async def app(scope, receive, send):
        pass

    with (
        pytest.raises(RuntimeError, match="returned without sending a response"),
        serve(app) as server,
    ):
        assert get(server) == 500


def test_app_that_exits() -> None:
    async def app(scope, receive, send):
        raise SystemExit(3)

    with pytest.raises(SystemExit), serve(app, lifespan="off") as server:
        assert get(server) == 500


# Errors at startup are raised by the `with` statement.


@pytest.mark.parametrize("says_so", [False, True])
def test_failing_startup_shows_its_cause(says_so: bool) -> None:
    async def app(scope, receive, send):
        await receive()
        if says_so:
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise ZeroDivisionError("no database")

    with pytest.raises(LifespanFailed, match="no database") as caught, serve(app):
        pytest.fail("the app is served")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "raise ZeroDivisionError" in story(caught.value)
    assert waiting() == []


def test_what_can_not_be_served() -> None:
    with serve(hello) as server, pytest.raises(ListenError), serve(hello, port=server.port):
        pytest.fail("the port is taken")
    with pytest.raises(LoadError), serve(7):
        pytest.fail("it is no app")
    with pytest.raises(OptionError), serve(hello, port=-1):
        pytest.fail("it is no port")
    with (
        pytest.raises(OptionError, match="unknown option prot; did you mean port"),
        serve(hello, prot=1),
    ):
        pytest.fail("there is no such option")
    assert waiting() == []


def test_startup_that_does_not_end() -> None:
    async def app(scope, receive, send):
        await receive()
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"start within 0\.01 s") as caught:  # noqa: SIM117
        with serve(app, timeout_startup=0.01):
            pytest.fail("the app is served")
    assert "await asyncio.Event().wait()" in story(caught.value)
    assert waiting() == []


# Shutdown always ends.


def test_request_that_does_not_end() -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match="GET /slow ") as caught:  # noqa: SIM117
        with serve(app, lifespan="off", timeout_graceful_shutdown=0.01) as server:
            client = Client(server)
            client.send(GET.replace(b"/ ", b"/slow "))
            assert entered.wait(PATIENCE)
    client.close()
    assert "await asyncio.Event().wait()" in story(caught.value)


def test_request_that_may_be_cut() -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    with serve(app, lifespan="off", timeout_graceful_shutdown=0) as server:
        client = Client(server)
        client.send(GET)
        assert entered.wait(PATIENCE)
    client.close()


def test_client_that_leaves_is_no_error() -> None:
    entered, told = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        await receive()
        entered.set()
        assert (await receive())["type"] == "http.disconnect"
        told.set()
        await reply(send)

    with serve(app, lifespan="off") as server:
        client = Client(server)
        client.send(GET)
        assert entered.wait(
            PATIENCE
        )  # if the client resets the connection earlier, it has no peer name
        client.reset()
        assert told.wait(PATIENCE)
    assert server.exceptions == []


def test_cancelled_for_its_client_is_no_error() -> None:
    entered = threading.Event()

    async def app(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    with serve(app, lifespan="off", cancel_on_disconnect=True) as server:
        client = Client(server)
        client.send(GET)
        assert entered.wait(PATIENCE)
        client.reset()
    assert server.exceptions == []


@pytest.mark.parametrize("how", ["blocks the loop", "will not be cancelled"])
def test_app_that_can_not_be_stopped(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinyasgi.testing.live, "EXTRA_TIMEOUT", 0.01)
    entered, release = threading.Event(), threading.Event()

    async def app(scope, receive, send):
        entered.set()
        if how == "blocks the loop":
            release.wait(PATIENCE)
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    with pytest.raises(TimeoutError, match="did not stop within") as caught:  # noqa: SIM117
        with serve(app, lifespan="off", timeout_graceful_shutdown=0) as server:
            client = Client(server)
            client.send(GET)
            assert entered.wait(PATIENCE)
    (thread,) = waiting()
    release.set()
    thread.join()
    client.close()
    told = story(caught.value)
    where = "release.wait(PATIENCE)" if how == "blocks the loop" else "GET / HTTP/1.1"
    assert where in told


# Several servers at once.


def files() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def tasks() -> list[Any]:
    every = gc.get_objects()  # not isinstance, which would dereference weak proxies
    return [each for each in every if issubclass(type(each), asyncio.Task) and not each.done()]


@pytest.mark.slow
def test_fifty_servers_at_once() -> None:
    """Each server has its own thread and app. No thread or object is left at the end."""
    with serve(hello):  # the first server imports modules, which stay
        pass
    gc.collect()  # garbage of earlier tests must not be freed in the meantime
    before = threading.enumerate(), files(), tasks()
    barrier = threading.Barrier(50)

    def work(number: int) -> bytes:
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                scope["state"]["number"] = number
                await receive()
                await send(COMPLETE)
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
            elif scope["path"] == "/fail":
                raise ZeroDivisionError(number)
            else:
                await reply(send, b"%d" % scope["state"]["number"])

        barrier.wait(PATIENCE)
        with serve(app) as server:
            barrier.wait(PATIENCE)  # all servers are running
            with server.expect(ZeroDivisionError) as errors:
                assert get(server, "/fail") == 500
            assert errors[0].args == (number,)
            with Client(server) as client:
                return client.response(GET).body

    with ThreadPoolExecutor(50) as threads:
        assert [*threads.map(work, range(50))] == [b"%d" % number for number in range(50)]
    assert (threading.enumerate(), files(), tasks()) == before


# The in-memory connection.


@in_loop
async def test_a_reset_during_an_accept() -> None:
    accept, seen = asyncio.Event(), []

    async def app(scope, receive, send):
        await receive()
        await accept.wait()
        await send({"type": "websocket.accept"})
        seen.append(await receive())

    async with connect(app) as connection:
        await connection.feed(HANDSHAKE)
        accept.set()
        await connection.reset()
        assert [message["code"] for message in seen] == [1006]
        assert not connection.context.connections


@in_loop
async def test_the_end_arrives_after_the_data() -> None:
    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            order.append(len(message["body"]))
            await go.wait()
        order.append(0)

    order, go = [], asyncio.Event()
    async with connect(app) as connection:
        await connection.feed(upload(300_000), bytes(100_000), bytes(100_000))
        await connection.eof()
        go.set()
        await connection.settle()
    assert (sum(order), order[-1]) == (200_000, 0)
