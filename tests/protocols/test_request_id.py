"""Request ids: the same in the request, the response and the log."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.protocols.websocket.helpers import ACCEPT, handshake
from tests.support.helpers import GET, Client, reply
from tinyasgi import Config
from tinyasgi.config.kinds import OptionError
from tinyasgi.http.request import parse_request_line
from tinyasgi.http.response import DefaultHeaders, encode_head
from tinyasgi.testing import serve

MADE = "[0-9a-f]{32}"


class App:
    """Does as the path says, and keeps what it has seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        fields = [value for name, value in scope["headers"] if name == b"x-id"]
        assert len(fields) == 1
        self.seen.append((fields[0].decode(), scope["state"]["request_id"]))
        if scope["path"] == "/own":
            await reply(send, b"", 200, (b"X-ID", b"own"))
        elif scope["path"] == "/failing":
            raise ZeroDivisionError
        elif scope["path"] == "/accept":
            await send(ACCEPT)
            await send({"type": "websocket.close"})
        elif scope["path"] == "/deny":
            await send({"type": "websocket.close"})
        elif scope["path"] == "/rude":
            scope.clear()
            await reply(send)
        else:
            await reply(send)

    def serve(self, **options: Any) -> Any:
        options |= {"request_id_header": "X-ID", "access_log_format": "%(id)s"}
        return serve(self, lifespan="off", **options)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Gives the lines of the access log, each nothing but an id."""
    caplog.set_level(logging.INFO, "tinyasgi.access")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == "tinyasgi.access"
    ]


def ask(path: str, *lines: str) -> bytes:
    head = [f"GET {path} HTTP/1.1", "Host: here", *lines]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1")


@pytest.mark.parametrize(
    "value", ["abc", "0b06bc39-b8c7-4d7e-9ae3-35d2f4ba6cd6", "!~", "x" * 128, "a=b;c"]
)
def test_taken_from_a_trusted_peer(value: str, logged: Any) -> None:
    app = App()
    with app.serve() as server, Client(server) as client:
        assert client.response(ask("/", f"x-ID: {value}")).fields["x-id"] == value
    assert app.seen == [(value, value)]
    assert logged() == [value]


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ([], {}),
        (["X-ID: abc"], {"forwarded_allow_ips": ("10.0.0.1",)}),
        (["X-ID: "], {}),
        (["X-ID: a b"], {}),
        (["X-ID: \xe4"], {}),
        (["X-ID: " + "x" * 129], {}),
        (["X-ID: a", "X-ID: b"], {}),
        (["X_ID: a"], {}),
    ],
)
def test_made(lines: list[str], options: Any, logged: Any) -> None:
    app = App()
    with app.serve(**options) as server, Client(server) as client:
        answers = [client.response(ask("/", *lines)).fields["x-id"] for _ in range(3)]
    assert all(re.fullmatch(MADE, answer) for answer in answers)
    assert len({*answers}) == 3  # also when requests are alike
    assert app.seen == [(answer, answer) for answer in answers]
    assert logged() == answers


def test_an_app_may_set_its_own() -> None:
    app = App()
    with app.serve() as server, Client(server) as client:
        client.send(ask("/own", "X-ID: theirs", "Connection: close"))
        head = client.rest().partition(b"\r\n\r\n")[0]
        assert head.lower().count(b"x-id") == 1
        assert b"x-id: own" in head


def test_an_app_that_forgets_its_scope() -> None:
    with App().serve() as server, Client(server) as client:
        assert client.response(ask("/rude", "X-ID: abc")).fields["x-id"] == "abc"


def test_an_app_that_fails(logged: Any) -> None:
    app = App()
    with app.serve() as server, Client(server) as client:
        with server.expect(ZeroDivisionError):
            answer = client.response(ask("/failing", "X-ID: abc"))
        assert (answer.status, answer.fields["x-id"]) == (500, "abc")
    assert logged() == ["abc"]


@pytest.mark.parametrize(("path", "status"), [("/accept", 101), ("/deny", 403)])
def test_websocket(path: str, status: int, logged: Any) -> None:
    app = App()
    with app.serve() as server, Client(server) as client:
        request = handshake(b"X-ID: abc").replace(b"/chat?a=b", path.encode())
        client.send(request)
        found, fields = client.head()
        assert (found, fields["x-id"]) == (status, "abc")
    assert app.seen == [("abc", "abc")]
    assert logged() == ["abc"]


def test_a_header_of_the_proxy_protocol_names_who_is_trusted() -> None:
    app = App()
    line = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
    with app.serve(proxy_protocol=True) as server, Client(server) as client:
        assert re.fullmatch(MADE, client.response(line + ask("/", "X-ID: a")).fields["x-id"])


@pytest.mark.parametrize("name", ["", "X ID", "X-ID:", "\xe4"])
def test_names(name: str) -> None:
    with pytest.raises(OptionError, match=r"request_id_header=.*: expected a header name"):
        Config(request_id_header=name)


def test_off_by_default() -> None:
    with serve(App(), lifespan="off") as server, Client(server) as client:
        with server.expect(AssertionError):  # the app misses its field
            answer = client.response(GET)
        assert "x-id" not in answer.fields


def test_the_other_headers_are_encoded_once() -> None:
    defaults, line = DefaultHeaders([]), parse_request_line(b"GET / HTTP/1.1", "")
    for value in (b"1", b"2"):
        head, _, _ = encode_head(200, [], defaults, line, True, 0, (b"x-id", value))
        assert head.count(b"\r\nx-id: %b\r\n" % value) == 1
    assert len(defaults.heads) == 1
