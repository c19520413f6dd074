"""The public names."""

import importlib
import inspect
import subprocess
import sys

import pytest

import tinyasgi
import tinyasgi.testing


def test_package() -> None:
    assert set(tinyasgi.__all__) == {"Config", "Server", "__version__", "run", "serve"}


def test_testing() -> None:
    assert set(tinyasgi.testing.__all__) == {"LiveServer", "MemoryConnection", "connect", "serve"}


@pytest.mark.parametrize("name", ["tinyasgi", "tinyasgi.testing", "tinyasgi.typing"])
def test_names_exist_and_are_explained(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), public


def test_import_is_light() -> None:
    """Importing tinyasgi does not import optional packages or slow modules."""
    code = "import sys, tinyasgi; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"uvloop", "httptools", "h11", "email", "http.client"} & set(loaded)
