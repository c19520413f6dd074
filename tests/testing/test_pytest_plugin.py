"""The pytest plugin, in separate test runs."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

APP = """
    import asyncio

    async def main(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/fail":
            raise ZeroDivisionError("in the app")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["root_path"].encode() or b"main"})
        if scope["path"] == "/late":
            await asyncio.sleep(0.1)
            raise ZeroDivisionError("after the response")

    async def other(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"other"})

    def create():
        return other
"""
HEAD = """
    from urllib.error import HTTPError
    from urllib.request import urlopen
    import pytest
    from pkg import app

    def text(server):
        with urlopen(server.url) as response:
            return response.read().decode()

    def fail(server):
        with pytest.raises(HTTPError, match="500") as caught:
            urlopen(server.url + "/fail")
        caught.value.close()
"""


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a project with apps. It uses only the installed plugins that a test names."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.mkpydir("pkg").joinpath("app.py").write_text(_dedent(APP))


def _dedent(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())


def run(
    pytester: pytest.Pytester, tests: str, *ini: str, options: tuple[str, ...] = ()
) -> pytest.RunResult:
    """Run tests with the lines of an ini file."""
    lines = ["[pytest]", "pythonpath = .", "filterwarnings = error", *ini]
    pytester.makeini("\n".join(lines))
    pytester.makepyfile(_dedent(HEAD) + "\n" + _dedent(tests))
    options = ("--strict-markers", "--strict-config", "-ptinyasgi", *options)
    return pytester.runpytest_subprocess(*options)


def test_serve_is_a_factory(pytester: pytest.Pytester) -> None:
    tests = """
    def test_two(serve):
        one, two = serve(app.main), serve("pkg.app:other")
        assert one.port != two.port
        assert text(one) + text(two) == "mainother"
        with one.expect(ZeroDivisionError):
            fail(one)

    def test_error(serve):
        fail(serve(app.main))
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_error*", "*ZeroDivisionError: in*"])


def test_asgi_server_by_marker(pytester: pytest.Pytester) -> None:
    tests = """
    pytestmark = pytest.mark.tinyasgi_app("pkg.app:main", root_path="/x")

    def test_of_module(asgi_server):
        assert text(asgi_server) == "/x"

    @pytest.mark.tinyasgi_app(app=app.other)
    def test_closest(asgi_server):
        assert text(asgi_server) == "other"

    @pytest.mark.tinyasgi_app("pkg.app:create", factory=True)
    def test_factory(asgi_server):
        assert text(asgi_server) == "other"

    @pytest.mark.tinyasgi_app("pkg.app:nothing")
    def test_wrong(asgi_server):
        pass
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*LoadError: module 'pkg.app' has no attribute 'nothing'*"])


def test_asgi_server_by_ini(pytester: pytest.Pytester) -> None:
    tests = """
    ports = set()

    @pytest.mark.parametrize("number", [1, 2])
    def test_each_has_its_own(asgi_server, number):
        assert text(asgi_server) == "main"
        assert asgi_server.app_state == {}
        ports.add(asgi_server.server)
        assert len(ports) == number

    @pytest.mark.tinyasgi_app(root_path="/x")
    def test_options(asgi_server):
        assert text(asgi_server) == "/x"

    def test_error(asgi_server):
        fail(asgi_server)
    """
    result = run(pytester, tests, "tinyasgi_app = pkg.app:main")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_error*", "*ZeroDivisionError: in*"])


def test_asgi_server_without_app(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test(asgi_server): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no app: set the marker or the ini option tinyasgi_app*"])


def test_session_scope(pytester: pytest.Pytester) -> None:
    """All tests share a server. Each exception is reported for the test that caused it."""
    tests = """
    @pytest.fixture(scope="session")
    def server(asgi_server):
        return asgi_server

    def test_one(server):
        fail(server)

    def test_two(server, asgi_server):
        assert server is asgi_server
        assert text(server) == "main"

    @pytest.mark.tinyasgi_app("pkg.app:other")
    def test_marker(asgi_server):
        pass

    @pytest.mark.tinyasgi_app("pkg.app:other")
    def test_unused_marker():
        pass
    """
    result = run(pytester, tests, "tinyasgi_app = pkg.app:main", "tinyasgi_scope = session")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_one*", "*ERROR at setup of test_marker*"], consecutive=False
    )
    result.stdout.fnmatch_lines(["the marker tinyasgi_app can't be used with*"])


def test_session_scope_blames_no_other_test(pytester: pytest.Pytester) -> None:
    """Exceptions are reported for tests without the fixture and in setup and teardown, too."""
    tests = """
    servers = []

    @pytest.fixture
    def failing_setup(asgi_server):
        fail(asgi_server)
        raise RuntimeError("in setup")

    @pytest.fixture
    def failing_teardown(asgi_server):
        yield
        fail(asgi_server)

    def test_by_name(request):
        servers.append(request.getfixturevalue("asgi_server"))
        fail(servers[0])

    def test_without_fixture():
        fail(servers[0])

    def test_setup(failing_setup):
        pass

    def test_teardown(failing_teardown):
        pass

    def test_late(asgi_server):
        urlopen(asgi_server.url + "/late").close()

    def test_innocent(asgi_server):
        pass
    """
    result = run(pytester, tests, "tinyasgi_app = pkg.app:main", "tinyasgi_scope = session")
    result.assert_outcomes(passed=5, errors=6)
    for name in ("by_name", "without_fixture", "setup", "teardown", "late"):
        result.stdout.fnmatch_lines([f"*ERROR at teardown of test_{name} *"])
    result.stdout.fnmatch_lines(["*ERROR at setup of test_setup *"])


def test_wrong_scope(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test(): pass", "tinyasgi_scope = planet")
    result.stderr.fnmatch_lines(["ERROR: tinyasgi_scope must be function or session, not 'planet'"])


@pytest.mark.slow
def test_xdist(pytester: pytest.Pytester) -> None:
    tests = """
    @pytest.mark.parametrize("number", range(8))
    def test(asgi_server, serve, number, worker_id):
        assert worker_id in ("gw0", "gw1")
        assert text(asgi_server) + text(serve(app.other)) == "mainother"
    """
    pytest.importorskip("xdist")
    ini = ("tinyasgi_app = pkg.app:main", "tinyasgi_scope = session")
    run(pytester, tests, *ini, options=("-pxdist", "-n2")).assert_outcomes(passed=8)


@pytest.mark.slow
def test_async_tests(pytester: pytest.Pytester) -> None:
    """The server does not use the event loops of pytest-asyncio and anyio."""
    tests = """
    import asyncio
    import httpx

    async def ask(server):
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(server.url)).text

    @pytest.mark.asyncio
    async def test_asyncio(asgi_server, serve):
        assert await ask(asgi_server) + await ask(serve(app.other)) == "mainother"

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_anyio(asgi_server, serve, anyio_backend):
        assert await ask(asgi_server) + await ask(serve(app.other)) == "mainother"
    """
    pytest.importorskip("pytest_asyncio")
    ini = ("tinyasgi_app = pkg.app:main", "asyncio_default_fixture_loop_scope = function")
    run(pytester, tests, *ini, options=("-pasyncio", "-panyio")).assert_outcomes(passed=2)


def test_an_unused_plugin_loads_nothing() -> None:
    code = "import sys, pytest, pytest_tinyasgi; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "pytest_tinyasgi" in loaded
    assert not {"tinyasgi", "asyncio", "ssl", "trustme"} & set(loaded)
