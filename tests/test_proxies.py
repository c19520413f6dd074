"""nginx and HAProxy in front of several backends, with the files of deploy/."""

import json
import re
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import chain
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.helpers import GET, PATIENCE, in_loop
from tests.support.load import Load
from tests.support.processes import wait_until
from tests.support.proxies import BACKENDS, Site

pytestmark = [
    pytest.mark.proxies,
    pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.5 is an address there"),
    pytest.mark.xdist_group("proxies"),  # they share their proxies
]

#: Address of the client, which no backend trusts.
CLIENT = "127.0.0.5"
SPOOFED = {
    "Forwarded": "for=6.6.6.6;proto=https;host=evil",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "wss",
    "X-Forwarded-Host": "evil",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
}

secure = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
paths = pytest.mark.parametrize("path", BACKENDS)


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def site(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(request.param, tmp_path_factory.mktemp("site")) as site:
        yield site


def reach(port: int, tls: ssl.SSLContext | None = None, client: str = CLIENT) -> socket.socket:
    """Open a connection from this address."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(client, 0))
    return tls.wrap_socket(sock, server_hostname="localhost") if tls else sock


def ask(sock: socket.socket, path: str, fields: dict[str, str]) -> Any:
    """Return the description of a request by its backend."""
    connection = HTTPConnection("site.example")
    connection.sock = sock
    connection.request("GET", path + "about", headers=fields)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    return json.loads(body)


def check(about: Any, path: str, secure: bool) -> None:
    """Client, scheme and host are those that the proxy saw. Forged headers have no effect."""
    assert about["client"][0] == CLIENT
    assert about["scheme"] in (("https", "wss") if secure else ("http", "ws"))
    assert about["path"] == path + "about"
    assert about["root_path"] == path.rstrip("/")
    assert about["fields"]["host"] == "site.example"


@paths
@secure
def test_request(site: Site, secure: bool, path: str) -> None:
    port, tls = (site.https, site.certificates.context()) if secure else (site.http, None)
    names = set()
    for _ in range(4):
        about = ask(reach(port, tls), path, SPOOFED)
        check(about, path, secure)
        assert not set(SPOOFED.values()) & set(about["fields"].values())
        names.add(about["name"])
    assert names == set(BACKENDS[path])


@paths
@secure
@in_loop
async def test_websocket(site: Site, secure: bool, path: str) -> None:
    port, tls = site.https if secure else site.http, {}
    if secure:
        tls = {"ssl": site.certificates.context(), "server_hostname": "localhost"}
    names = set()
    for _ in range(4):
        sock = reach(port)
        uri = f"{'wss' if secure else 'ws'}://site.example{path}about"
        async with connect(uri, sock=sock, additional_headers=SPOOFED, proxy=None, **tls) as client:
            for text in ("one", "two"):
                await client.send(text)
                answer = str(await client.recv())
                assert answer.startswith(text)
                about = json.loads(answer.removeprefix(text))
                check(about, path, secure)
            names.add(about["name"])
    assert names == set(BACKENDS[path])


@secure
def test_directly(site: Site, secure: bool) -> None:
    """Forwarded headers of a client that bypasses the proxy are ignored."""
    tls = site.certificates.context() if secure else None
    port = site.c if secure else site.a
    if site.kind == "nginx" or secure:
        about = ask(reach(port, tls), "/", SPOOFED)
        check(about, "/", secure)
        about = ask(reach(port, tls, "127.0.0.1"), "/", SPOOFED)
        assert (about["client"], about["scheme"]) == (["6.6.6.6", 0], "https")
        return
    with reach(port) as sock:
        sock.sendall(b"PROXY TCP4 6.6.6.6 127.0.0.1 1 1\r\n" + GET)
        assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("site", ["haproxy"], indirect=True)
def test_certificate_of_the_client(site: Site) -> None:
    ada = site.certificates.authority.issue_cert("ada@site.example", common_name="Ada")
    for context, name in (
        (site.certificates.context(ada), "CN=Ada"),
        (site.certificates.context(), None),
    ):
        for _ in "ab":
            assert ask(reach(site.https, context), "/", {})["tls"] == name


def test_nothing_fails_while_backends_start_anew(site: Site) -> None:
    """Replace the backends by SIGHUP, and by a restart of one after the other."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(site.http, 100, path)) for path in BACKENDS]

        def wait_for(name: str, count: int) -> None:
            """Wait until `count` workers of a backend have responded."""
            bodies = [load.answers for load in loads]
            wait_until(lambda: sum(body[0] == name for body in chain(*bodies)) == count)

        for names in zip(*BACKENDS.values(), strict=True):
            for name in names:
                wait_for(name, 1)
                site.backends[name].send(signal.SIGHUP)
            for name in names:
                wait_for(name, 2)
        for name in chain(*BACKENDS.values()):
            site.backends[name].wait_for("shutdown of")
        for names in zip(*BACKENDS.values(), strict=True):
            site.stop_and_start(*names)
            for name in names:
                wait_for(name, 3)
    assert [load.failures for load in loads] == [[], []]
    if site.kind == "nginx":  # the log has the reason for the retry
        faults = re.findall(r"\*\d+ (.*) while", site.log)
        assert faults
        assert [fault for fault in faults if not fault.startswith("connect() ")] == []
