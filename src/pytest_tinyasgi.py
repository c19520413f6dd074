"""The pytest plugin: the fixtures `serve` and `asgi_server`.

It lies beside the package and not in it. pytest imports it in every run, used or not, and the
package would bring asyncio and ssl along.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from tinyasgi.testing import LiveServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the ini file."""
    text = "app that the fixture asgi_server serves, as module:attribute"
    parser.addini("tinyasgi_app", text)
    text = "how long a server of the fixture asgi_server lives: function or session"
    parser.addini("tinyasgi_scope", text, default="function")


def pytest_configure(config: pytest.Config) -> None:
    """Raises UsageError for a scope that there is not."""
    text = "tinyasgi_app(app, **options): what asgi_server serves; arguments of tinyasgi's serve"
    config.addinivalue_line("markers", text)
    scope = config.getini("tinyasgi_scope")
    if scope == "session":
        config.pluginmanager.register(_Shared(), _Shared.name)
    elif scope != "function":
        raise pytest.UsageError(f"tinyasgi_scope: {scope!r} is neither function nor session")


@pytest.fixture
def serve() -> "Iterator[Callable[..., LiveServer]]":
    """Starts a server for this test: `tinyasgi.testing.serve`, with the test as its block."""
    from tinyasgi import testing

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(testing.serve(*args, **options))


def _scope(fixture_name: str, config: pytest.Config) -> Literal["function", "session"]:
    return config.getini("tinyasgi_scope")  # type: ignore[no-any-return]


@pytest.fixture(scope=_scope)
def asgi_server(request: pytest.FixtureRequest) -> "Iterator[LiveServer]":
    """A server for the app of the marker `tinyasgi_app`, or of the ini option of that name."""
    from tinyasgi import testing

    marker = request.node.get_closest_marker("tinyasgi_app")
    args, options = (marker.args, marker.kwargs) if marker is not None else ((), {})
    if not args and "app" not in options:
        args = (request.config.getini("tinyasgi_app"),)
        if not args[0]:
            text = "which app? say so with tinyasgi_app, a marker and an ini option"
            pytest.fail(text, pytrace=False)
    with testing.serve(*args, **{"app_dir": str(request.config.rootpath)} | options) as server:
        shared = request.config.pluginmanager.get_plugin(_Shared.name)
        if shared is None:
            yield server
        else:
            shared.server = server
            yield server
            shared.server = None


class _Shared:
    """One server for many tests: each answers for what the app raised meanwhile.

    It is asked after every test, as a test may reach the server by other names than the fixture's.
    """

    name = "tinyasgi_session"
    server: "LiveServer | None" = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        marked = item.get_closest_marker("tinyasgi_app") is not None
        if marked and "asgi_server" in getattr(item, "fixturenames", ()):
            text = "with tinyasgi_scope = session there is no marker tinyasgi_app"
            pytest.fail(text, pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        __tracebackhide__ = True
        try:
            return (yield)
        finally:
            if self.server is not None:
                self.server.check()
