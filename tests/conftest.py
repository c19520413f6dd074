"""Settings for all tests, and fixtures of several test files."""

import gc
import inspect
import os
import signal
import subprocess
import zlib
from collections import defaultdict
from functools import cache
from itertools import chain
from types import CodeType, FunctionType
from typing import Any

import hypothesis
import pytest

from tests.support.helpers import Certificates, Command
from tests.support.pages import Reader

pytest_plugins = ["tests.support.seeds", "tests.support.flaky", "tests.support.transitions"]

# A busy machine is no fault of a test.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

# A shell may start a command in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `-n auto`: tests also wait."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Run the tests first that start no process. Of the others, all variants but one are slow.

    The former are handed out by file, because xdist takes a millisecond for each group. The latter
    are shuffled, always in the same way: many tests of one file wait, and others compute.
    """
    variants: defaultdict[Any, list[Any]] = defaultdict(list)
    for item in items:
        if _starts_processes(item):
            variants[item.path, item.originalname].append(item)
        elif not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__.replace(".", "_")))
    for item in chain.from_iterable(group[1:] for group in variants.values()):
        item.add_marker(pytest.mark.slow)
    items.sort(key=_place)


def _place(item: Any) -> tuple[bool, bool, int]:
    is_late = _starts_processes(item)
    number = zlib.crc32(item.nodeid.encode()) if is_late else 0
    return is_late, not item.get_closest_marker("proxies"), number


def pytest_collection_finish() -> None:
    """Leave modules and tests out of further garbage collections: each would take 60 ms."""
    gc.collect()
    gc.freeze()


def _starts_processes(item: Any) -> bool:
    if {"pytester", "site"} & set(item.fixturenames):
        return True
    fixtures = chain.from_iterable(item._fixtureinfo.name2fixturedefs.values())
    functions = [item.function, *(each.func for each in fixtures if each.scope == "function")]
    return any(_uses(inspect.unwrap(each), frozenset()) for each in functions)


@cache
def _uses(function: Any, callers: frozenset[Any]) -> bool:
    """Return whether a function starts processes, or calls one of our helpers that does."""
    if not isinstance(function, FunctionType) or not function.__module__.startswith("tests."):
        return False
    code = function.__code__
    bodies = [code, *(each for each in code.co_consts if isinstance(each, CodeType))]
    names = chain.from_iterable(body.co_names for body in bodies)
    used = [function.__globals__[name] for name in names if name in function.__globals__]
    if any(each in (Command, Reader, subprocess) for each in used):
        return True
    callers |= {function}
    helpers = {inspect.unwrap(each) for each in used if isinstance(each, FunctionType)} - callers
    return any(_uses(helper, callers) for helper in helpers)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for servers and their clients."""
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def django_settings() -> Any:
    """The settings of Django, which is set up once and for all."""
    django = pytest.importorskip("django")
    from django.conf import settings

    settings.configure(ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="x")
    django.setup()
    return settings
