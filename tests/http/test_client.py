"""Names and addresses of peers."""

from typing import Any

import pytest

from tinyasgi.http.client import peer_address, peer_name


@pytest.mark.parametrize(
    ("peer", "unix", "name", "address"),
    [
        (("10.0.0.1", 80), False, "10.0.0.1:80", "10.0.0.1"),
        (("10.0.0.1", 0), False, "10.0.0.1", "10.0.0.1"),
        (("::1", 80, 0, 0), False, "[::1]:80", "::1"),
        (None, False, "unknown", None),
        ("", False, "unknown", None),
        (None, True, "unix", "unix"),
        ("", True, "unix", "unix"),
    ],
)
def test_peer(peer: Any, unix: bool, name: str, address: str | None) -> None:
    assert peer_name(peer, unix) == name
    assert peer_address(peer, unix) == address
