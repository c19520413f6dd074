"""Settings for all tests, and fixtures of several test files."""

import os
import signal
from typing import Any

import hypothesis
import pytest

from tests.support.helpers import Certificates

pytest_plugins = ["tests.support.seeds", "tests.support.flaky"]

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
    """Run the tests first that start no process: they are quick."""
    items.sort(key=lambda item: hasattr(item.module, "Command") or hasattr(item.module, "start"))


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
