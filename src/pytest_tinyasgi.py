"""pytest plugin with the fixtures `serve` and `asgi_server`.

It is a module of its own because pytest imports it in every run. The package would import asyncio
and ssl as well.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from tinyasgi.testing import LiveServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini options."""
    text = "app of the fixture asgi_server, as module:attribute"
    parser.addini("tinyasgi_app", text)
    text = "lifetime of the server of the fixture asgi_server: function or session"
    parser.addini("tinyasgi_scope", text, default="function")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker. Raises UsageError for an unknown scope."""
    text = "tinyasgi_app(app, **options): app of asgi_server and arguments for tinyasgi's serve"
    config.addinivalue_line("markers", text)
    scope = config.getini("tinyasgi_scope")
    if scope == "session":
        config.pluginmanager.register(_SessionServer(), _SessionServer.name)
    elif scope != "function":
        raise pytest.UsageError(f"tinyasgi_scope must be function or session, not {scope!r}")


@pytest.fixture
def serve() -> "Iterator[Callable[..., LiveServer]]":
    """Function that starts a server as `tinyasgi.testing.serve`, until the end of the test."""
    from tinyasgi import testing

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(testing.serve(*args, **options))


def _scope(fixture_name: str, config: pytest.Config) -> Literal["function", "session"]:
    return config.getini("tinyasgi_scope")  # type: ignore[no-any-return]


@pytest.fixture(scope=_scope)
def asgi_server(request: pytest.FixtureRequest) -> "Iterator[LiveServer]":
    """Server for the app of the marker `tinyasgi_app`, or else of the ini option `tinyasgi_app`."""
    from tinyasgi import testing

    marker = request.node.get_closest_marker("tinyasgi_app")
    args, options = (marker.args, marker.kwargs) if marker is not None else ((), {})
    if not args and "app" not in options:
        args = (request.config.getini("tinyasgi_app"),)
        if not args[0]:
            text = "no app: set the marker or the ini option tinyasgi_app"
            pytest.fail(text, pytrace=False)
    with testing.serve(*args, **{"app_dir": str(request.config.rootpath)} | options) as server:
        shared = request.config.pluginmanager.get_plugin(_SessionServer.name)
        if shared is None:
            yield server
        else:
            shared.server = server
            yield server
            shared.server = None


class _SessionServer:
    """The server of a session. After each test, raises the exceptions of the app.

    It checks after every test, because a test can use the server without the fixture.
    """

    name = "tinyasgi_session"
    server: "LiveServer | None" = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        marked = item.get_closest_marker("tinyasgi_app") is not None
        if marked and "asgi_server" in getattr(item, "fixturenames", ()):
            text = "the marker tinyasgi_app can't be used with tinyasgi_scope = session"
            pytest.fail(text, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        try:
            return (yield)
        finally:
            if self.server is not None:
                self.server.check()
