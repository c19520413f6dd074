"""Headers that the server adds to responses."""

from email.utils import formatdate
from typing import Any

import pytest

from tests.support.simulation import simulated
from tinyasgi import __version__
from tinyasgi.config.config import Config
from tinyasgi.protocols.default_headers import default_headers

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
OWN = ("server", f"tinyasgi/{__version__}")


def added(sent: list[tuple[bytes, bytes]], **options: Any) -> list[tuple[str, str]]:
    """Return the headers of a response at the beginning of 1970, without its length."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": b""})

    with simulated(app, **options) as server:
        peer = server.connect()
        peer.send(GET)
        server.loop.settle()
        lines = peer.received.decode().split("\r\n")[1:-2]
        pairs = [tuple(line.split(": ", 1)) for line in lines]
        return [(name, value) for name, value in pairs if name != "content-length"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ([], [OWN]),
        ([("X-More", "1"), ("x-more", "2")], [OWN, ("x-more", "1"), ("x-more", "2")]),
        ([("Server", "other")], [("server", "other")]),
    ],
)
def test_options(header: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert added([], server_header=True, header=header) == expected
    without = [pair for pair in expected if pair is not OWN]
    assert added([], server_header=False, header=header) == without


def test_the_app_wins() -> None:
    sent = [(b"Server", b"app"), (b"date", b"today")]
    found = added(sent, server_header=True, date_header=True, header=[("x-more", "1")])
    assert sorted(found) == [("date", "today"), ("server", "app"), ("x-more", "1")]


@pytest.mark.parametrize("header", [[], [("date", "never")]])
def test_date_option(header: list[tuple[str, str]]) -> None:
    [(name, value)] = added([], date_header=True, header=header)
    assert name == "date"
    assert (value == "never") is bool(header)


def test_every_day_of_a_year() -> None:
    for day in range(366):
        seconds = day * 86_400 + day * 61
        [(_, value)] = default_headers(Config(server_header=False), seconds).headers
        assert value.decode() == formatdate(seconds, usegmt=True)
