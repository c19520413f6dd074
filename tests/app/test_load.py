"""Loading an app by its name, app factories, and the interfaces of apps."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.helpers import GET, Client, hello, in_loop, reply
from tinyasgi import Config
from tinyasgi.app.load import as_asgi3, created
from tinyasgi.importer import LoadError, load
from tinyasgi.testing import serve

MODULE = """
async def app(scope, receive, send): ...
async def application(scope, receive, send): ...
class Holder:
    inner = application
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    """Create a directory with a few modules; remove them from `sys.modules` at the end."""
    (tmp_path / "plain_module.py").write_text(MODULE)
    (tmp_path / "django_module.py").write_text(MODULE.replace("def app(", "def main("))
    (tmp_path / "parent_of_app").mkdir()
    init = MODULE.replace("def app(", "def main(") + "from . import app"
    (tmp_path / "parent_of_app" / "__init__.py").write_text(init)
    (tmp_path / "parent_of_app" / "app.py").touch()
    (tmp_path / "raising_module.py").write_text("raise ValueError('at import')")
    (tmp_path / "wanting_module.py").write_text("import nonexistent_dependency")
    (tmp_path / "wrong_module.py").write_text("def app(:")
    package = tmp_path / "package_of_apps"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text(MODULE)
    path, modules = list(sys.path), set(sys.modules)
    yield str(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


# Names.


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("plain_module:app", "app"),
        ("plain_module", "app"),
        ("plain_module:application", "application"),
        ("django_module", "application"),
        ("parent_of_app", "application"),
        ("plain_module:Holder.inner", "application"),
        ("package_of_apps.inner:app", "app"),
    ],
)
def test_found(folder: str, target: str, name: str) -> None:
    assert load(target, folder).__name__ == name


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:app", ["no_such_module"]),
        ("package_of_apps.nowhere:app", ["package_of_apps.nowhere"]),
        ("plain_module:ap", ["plain_module", "'ap'", "app"]),
        ("plain_module:aplication", ["plain_module", "'aplication'", "application"]),
        ("plain_module:Holder.outer", ["'outer'"]),
        ("plain_module:number", ["plain_module:number", "int", "not callable"]),
        ("plain_module.py:app", ["plain_module.py", "write plain_module:app"]),
        ("plain_module.py", ["plain_module.py", "write plain_module:app"]),
        ("plain_module.app", ["plain_module.app", "write plain_module:app if it is an attribute"]),
        ("plain_module:Holder()", ["write plain_module:Holder and --factory"]),
        ("plain_module:create('a.b')", ["a module that contains app = create('a.b')"]),
        ("./plain_module.py:app", ["such as plain_module:app"]),
        ("src/package:create", ["such as package:create and --app-dir src"]),
        ("plain-module:app", ["plain-module", "such as hello:app"]),
        (":app", ["module:attribute"]),
        ("", ["module:attribute"]),
        ("path/to/module:app", ["such as module:app and --app-dir path/to"]),
        ("..relative:app", ["module:attribute"]),
    ],
)
def test_not_found(folder: str, target: str, words: list[str]) -> None:
    with pytest.raises(LoadError) as raised:
        load(target, folder)
    message = str(raised.value)
    assert "\n" not in message
    assert raised.value.__cause__ is None
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("raising_module:app", ValueError),
        ("wanting_module:app", ModuleNotFoundError),
        ("wrong_module:app", SyntaxError),
    ],
)
def test_exception_of_the_module_is_the_cause(
    folder: str, target: str, error: type[Exception]
) -> None:
    with pytest.raises(LoadError) as raised:
        load(target, folder)
    assert target.partition(":")[0] in str(raised.value)
    assert isinstance(raised.value.__cause__, error)


# Factories.


@in_loop
async def test_factory_function() -> None:
    async with created(lambda: hello) as app:
        assert app is hello


@in_loop
async def test_factory_coroutine_function() -> None:
    async def create() -> Any:
        return hello

    async with created(create) as app:
        assert app is hello


@in_loop
async def test_factory_context_manager() -> None:
    events = []

    @asynccontextmanager
    async def create() -> AsyncIterator[Any]:
        events.append("enter")
        yield hello
        events.append("exit")

    async with created(create) as app:
        assert app is hello
        assert events == ["enter"]
    assert events == ["enter", "exit"]


@in_loop
async def test_factory_class() -> None:
    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async with created(App) as app:
        assert isinstance(app, App)


@in_loop
async def test_app_that_is_a_context_manager_is_still_an_app() -> None:
    class App:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

        async def __aenter__(self) -> None:
            pytest.fail("the server must not enter the app")

        async def __aexit__(self, *_: object) -> None: ...

    async with created(App) as app:
        assert isinstance(app, App)


@in_loop
async def test_error_in_a_factory() -> None:
    def create() -> Any:
        raise ValueError("no settings")

    with pytest.raises(LoadError) as raised:
        async with created(create):
            pytest.fail("there is no app")
    assert isinstance(raised.value.__cause__, ValueError)


# Interfaces.


class Asgi2:
    """An ASGI 2 app: called with the scope, then with `receive` and `send`."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        if self.scope["type"] == "http":
            await reply(send, b"asgi2 " + self.scope["path"].encode())


def asgi2(scope: Any) -> Any:
    return Asgi2(scope)


@pytest.mark.parametrize("app", [Asgi2, asgi2])
@pytest.mark.parametrize("interface", ["auto", "asgi2"])
def test_asgi2(app: Any, interface: str) -> None:
    with serve(app, interface=interface) as server, Client(server) as client:
        assert client.response(GET).body == b"asgi2 /"


class Callable3:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any, extra: int = 1) -> None: ...

    @classmethod
    async def of_class(cls, scope: Any, receive: Any, send: Any) -> None: ...


async def any_arguments(*args: Any) -> None: ...


@pytest.mark.parametrize(
    "app", [hello, Callable3(), Callable3().method, Callable3.of_class, any_arguments]
)
def test_asgi3(app: Any) -> None:
    assert as_asgi3(app, Config()) == app


def test_wsgi() -> None:
    def app(environ: Any, start_response: Any) -> None: ...

    assert type(as_asgi3(app, Config())).__name__ == "WSGI"
    assert as_asgi3(app, Config(interface="asgi3")) is app
    assert type(as_asgi3(any_arguments, Config(interface="wsgi"))).__name__ == "WSGI"


async def two(scope: Any, receive: Any) -> None: ...
def factory() -> None: ...
def factory1(a: Any = None) -> None: ...
def factory2(a: Any = None, b: Any = None, *, c: Any = None) -> None: ...
def factory3(a: Any = None, b: Any = None, c: Any = None, **options: Any) -> None: ...
def many(a: Any, b: Any, c: Any, d: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (two, "ASGI 3"),
        (factory, "--factory"),
        (factory1, "--factory"),
        (factory2, "--factory"),
        (factory3, "--factory"),
        (Callable3, "--factory"),
        (many, "ASGI 3"),
        (7, "int"),
        (None, "NoneType"),
        ("module:app", "str"),
    ],
)
def test_unknown_kind_of_app(app: Any, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        as_asgi3(app, Config())


def _wrapped(*args: Any, **options: Any) -> Any:
    return hello(*args, **options)


class _CompiledWSGI:
    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError


async def _async(*args: Any) -> None: ...


class _Async:
    async def __call__(self, *args: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "unclear"),
    [(_wrapped, True), (_CompiledWSGI(), True), (_async, False), (_Async(), False), (hello, False)],
)
def test_unclear_interface_is_reported(
    app: Any, unclear: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tinyasgi.server")
    assert as_asgi3(app, Config()) is app
    assert ("use --interface" in caplog.text) is unclear
    caplog.clear()
    assert as_asgi3(app, Config(interface="asgi3")) is app
    assert caplog.text == ""
