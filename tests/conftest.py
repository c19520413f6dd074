"""Settings for all tests, and fixtures of several test files."""

import gc
import os
import signal
import zlib
from collections import defaultdict
from itertools import chain
from typing import Any

import hypothesis
import pytest

from tests.support.helpers import Certificates

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

    Those are shuffled, always in the same way: many tests of one file wait, and others compute.
    """
    variants: defaultdict[Any, list[Any]] = defaultdict(list)
    for item in items:
        if _starts_processes(item):
            variants[item.path, item.originalname].append(item)
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
    names = {*item.fixturenames, *item.function.__code__.co_names}
    return names >= {"start", "tmp_path"} or bool(names & {"Command", "Reader", "pytester", "site"})


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
