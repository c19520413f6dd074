"""Fixtures of several test files."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.helpers import Certificates

pytest_plugins = ["tests.support.seeds", "tests.support.flaky"]

# A busy machine is no fault of a test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


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
