"""Fixtures of several test files."""

import pytest
from helpers import Certificates


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for servers and their clients."""
    return Certificates(tmp_path_factory.mktemp("tls"))
