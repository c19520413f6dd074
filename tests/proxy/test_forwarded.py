"""Forwarded headers: trusted peers, parsing, and the resulting scope."""

import itertools
import json
import logging
import re
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.protocols.websocket.helpers import handshake
from tests.support.helpers import GET, LOOPS, Client, hello, in_loop, reply, until
from tinyasgi import Config, Server
from tinyasgi.config.kinds import OptionError
from tinyasgi.http.client import ClientInfo, peer_address
from tinyasgi.protocols.hooks import Hooks
from tinyasgi.proxy.forwarded import Forwarded, _elements
from tinyasgi.proxy.trust import Trust
from tinyasgi.testing import connect, serve

PEER = ("127.0.0.1", 50000)
SERVER = ("127.0.0.1", 8000)


def client_info(
    *fields: tuple[str, str], notes: list[str] | None = None, **options: Any
) -> ClientInfo:
    """Return the client for headers of a trusted peer."""
    config = Config(**options)
    peer = ClientInfo({"client": PEER, "server": SERVER, "scheme": "http"}, "127.0.0.1:50000")
    noted: list[str] = [] if notes is None else notes
    read = Forwarded(Trust(config), lambda _, fault: noted.append(fault))
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return read(peer, [(b"host", b"here"), *pairs])


def see(*fields: tuple[str, str], path: str = "/", **options: Any) -> Any:
    """Return the scope of a request with these headers."""
    seen: list[Any] = []

    @in_loop
    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)
            await reply(send)

        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        async with connect(app, **options) as connection:
            request = f"GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n"
            sent = await connection.feed(request.encode("latin-1"))
            assert sent.startswith(b"HTTP/1.1 200")

    run()
    return seen[0]


# Trust.


@pytest.mark.parametrize(
    ("allowed", "peer", "trusted"),
    [
        (("127.0.0.1", "::1", "unix"), "127.0.0.1", True),
        (("127.0.0.1", "::1", "unix"), "::1", True),
        (("127.0.0.1", "::1", "unix"), "unix", True),
        (("127.0.0.1", "::1", "unix"), "::ffff:127.0.0.1", True),
        (("127.0.0.1", "::1", "unix"), "127.0.0.2", False),
        (("127.0.0.1", "::1", "unix"), "10.0.0.1", False),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "unix", False),
        (("10.0.0.0/8",), "2001:db8::1", False),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::0:1",), "2001:db8::1", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("::ffff:10.0.0.0/104",), "::ffff:10.1.2.3", True),
        (("unix",), "127.0.0.1", False),
        (("unix", "10.0.0.1"), "unix", True),
        (("*",), "203.0.113.9", True),
        (("*",), "unix", True),
        ((), "127.0.0.1", False),
        (("127.0.0.1",), "testclient", False),
    ],
)
def test_trust(allowed: tuple[str, ...], peer: str, trusted: bool) -> None:
    trust = Trust(Config(forwarded_allow_ips=allowed))
    assert trust[peer] is trusted
    assert trust.trusts(peer) is trusted


@pytest.mark.parametrize("allowed", [("*",), ("127.0.0.1", "unix"), ()])
def test_an_unknown_peer_is_never_trusted(allowed: tuple[str, ...]) -> None:
    trust = Trust(Config(forwarded_allow_ips=allowed))
    assert not trust.trusts(peer_address(None, unix=False))
    assert trust.trusts(peer_address(None, unix=True)) is bool(allowed)


@pytest.mark.parametrize("value", ["10.0.0.1/8", "localhost", "10.0.0", "", "10.0.0.0/33", "**"])
def test_invalid_peer(value: str) -> None:
    with pytest.raises(OptionError, match="expected an IP address, a network such as"):
        Config(forwarded_allow_ips=(value,))


# X-Forwarded-*.


@pytest.mark.parametrize(
    ("values", "client", "name"),
    [
        (["203.0.113.9"], ("203.0.113.9", 0), "203.0.113.9"),
        (["203.0.113.9:4711"], ("203.0.113.9", 4711), "203.0.113.9:4711"),
        (["203.0.113.9:0"], ("203.0.113.9", 0), "203.0.113.9"),
        (["2001:DB8::0:1"], ("2001:db8::1", 0), "2001:db8::1"),
        (["[2001:db8::1]"], ("2001:db8::1", 0), "2001:db8::1"),
        (["[2001:db8::1]:4711"], ("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        # The last address that is not trusted; the addresses before it may be forged.
        (["127.0.0.1, 203.0.113.9"], ("203.0.113.9", 0), "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 127.0.0.1"], ("203.0.113.9", 0), "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "::1"], ("203.0.113.9", 0), "203.0.113.9"),
        (["rubbish, 203.0.113.9 ,, 127.0.0.1:1"], ("203.0.113.9", 0), "203.0.113.9"),
        (["127.0.0.1, ::1"], ("127.0.0.1", 0), "127.0.0.1"),
        (["unknown"], None, "unknown"),
        (["203.0.113.9, _hidden"], None, "_hidden"),
        ([""], PEER, "127.0.0.1:50000"),
        ([" , "], PEER, "127.0.0.1:50000"),
    ],
)
def test_x_forwarded_for(values: list[str], client: Any, name: str) -> None:
    notes: list[str] = []
    found = client_info(*[("X-Forwarded-For", value) for value in values], notes=notes)
    assert (found.scope["client"], found.name, notes) == (client, name, [])


@pytest.mark.parametrize(
    "value",
    [
        "rubbish",
        "203.0.113.9, rubbish",
        "256.1.1.1",
        "1.2.3",
        "1.2.3.4:",
        "1.2.3.4:70000",
        "1.2.3.4:x",
        "[::1",
        "[::1]x",
        "[1.2.3.4]",
        "::1::",
        "fe80::1%eth0",
        "01.2.3.4",
        "unix",
        "*",
        "\xb2.1.1.1",
        "a\x85b",
    ],
)
def test_malformed_addresses(value: str) -> None:
    """The client is the peer of the connection, and the error is logged."""
    notes: list[str] = []
    found = client_info(("X-Forwarded-For", value), ("X-Forwarded-Proto", "https"), notes=notes)
    assert found.scope == {"client": PEER, "server": SERVER, "scheme": "https"}
    assert found.name == "127.0.0.1:50000"
    last = value.rpartition(",")[2].strip()
    assert notes == [f"ignoring malformed X-Forwarded-For: {last!r}"]


def test_first_address_if_all_are_trusted() -> None:
    found = client_info(
        ("X-Forwarded-For", "203.0.113.9, 198.51.100.1"),
        ("X-Forwarded-Proto", "https, http"),
        forwarded_allow_ips=("*",),
    )
    assert found.scope["client"] == ("203.0.113.9", 0)
    assert found.scope["scheme"] == "https"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("https", "https"),
        ("HTTP", "http"),
        ("wss", "https"),
        ("ws", "http"),
        ("ftp", "http"),
        ("https, http", "http"),
        ("http, https", "https"),
        ("https,", "https"),
    ],
)
def test_x_forwarded_proto(value: str, scheme: str) -> None:
    assert client_info(("X-Forwarded-Proto", value)).scope["scheme"] == scheme


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [("https, http", "http"), ("https, http, http", "http"), ("http, http, https", "https")],
)
def test_item_at_the_position_of_the_client(proto: str, scheme: str) -> None:
    """If the lists have the same length; otherwise the last item, from the nearest proxy."""
    hops = ("X-Forwarded-For", "198.51.100.1, 203.0.113.9")
    assert client_info(hops, ("X-Forwarded-Proto", proto)).scope["scheme"] == scheme
    behind = ("X-Forwarded-For", "203.0.113.9, 127.0.0.1")
    assert client_info(behind, ("X-Forwarded-Proto", "https, http")).scope["scheme"] == "https"


@pytest.mark.parametrize(
    ("fields", "host", "server"),
    [
        ({"host": "shop.example"}, b"shop.example", SERVER),
        ({"host": "shop.example:81"}, b"shop.example:81", SERVER),
        ({"host": "shop.example", "port": "8443"}, b"shop.example:8443", ("127.0.0.1", 8443)),
        ({"host": "shop.example:81", "port": "82"}, b"shop.example:81", ("127.0.0.1", 82)),
        ({"host": "[::1]", "port": "82"}, b"[::1]:82", ("127.0.0.1", 82)),
        ({"host": "[::1]:81", "port": "82"}, b"[::1]:81", ("127.0.0.1", 82)),
        ({"port": "8443"}, b"here:8443", ("127.0.0.1", 8443)),
        ({"port": "80"}, b"here", ("127.0.0.1", 80)),
        ({"port": "443"}, b"here:443", ("127.0.0.1", 443)),
        ({"port": "443", "proto": "https"}, b"here", ("127.0.0.1", 443)),
        ({"host": "a.example, b.example"}, b"b.example", SERVER),
        # An invalid port is ignored.
        ({"host": "a b"}, None, SERVER),
        ({"host": "a/b"}, None, SERVER),
        ({"host": "\xe4.example"}, None, SERVER),
        ({"port": "0"}, None, SERVER),
        ({"port": "x"}, None, SERVER),
        ({"port": "70000"}, None, SERVER),
        ({"port": "\xb2"}, None, SERVER),
    ],
)
def test_host_and_port(fields: dict[str, str], host: bytes | None, server: Any) -> None:
    notes: list[str] = []
    named = [(f"X-Forwarded-{name}", value) for name, value in fields.items()]
    found = client_info(*named, notes=notes)
    assert (found.host or b"here") == (host or b"here")
    assert found.scope["server"] == server
    assert bool(notes) is (host is None)


def test_host_header_in_the_scope() -> None:
    scope = see(("X-Forwarded-Host", "shop.example"), ("A", "b"))
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"shop.example"]
    # The authority of the target comes from the proxy, not from the client.
    scope = see(("X-Forwarded-Host", "shop.example"), path="http://backend/x")
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"shop.example"]
    assert scope["path"] == "/x"


def test_names_with_underscores_are_different_headers() -> None:
    scope = see(("X_Forwarded_For", "203.0.113.9"), ("X_Forwarded_Proto", "https"))
    assert (scope["client"], scope["scheme"]) == (PEER, "http")


def test_headers_of_untrusted_peers_are_ignored() -> None:
    fields = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/evil"),
        ("Forwarded", "for=127.0.0.1;proto=https"),
    ]
    for options in (
        {"forwarded_allow_ips": ("10.0.0.1", "unix")},
        {"forwarded_allow_ips": ()},
        {"proxy_headers": False},
        {"forwarded_allow_ips": ("10.0.0.1",), "forwarded_fields": "forwarded"},
    ):
        scope = see(*fields, **options)
        assert scope["client"] == PEER
        assert scope["server"] == SERVER
        assert scope["scheme"] == "http"
        assert scope["root_path"] == ""
        assert (b"host", b"here") in scope["headers"]
        assert (b"x-forwarded-for", b"127.0.0.1") in scope["headers"]


def test_only_one_set_of_headers_is_read() -> None:
    x, rfc = ("X-Forwarded-For", "203.0.113.1"), ("Forwarded", "for=203.0.113.2;proto=https")
    assert client_info(x, rfc).scope["client"] == ("203.0.113.1", 0)
    assert client_info(x, rfc).scope["scheme"] == "http"
    other = client_info(x, rfc, ("X-Forwarded-Prefix", "/x"), forwarded_fields="forwarded")
    assert other.scope["client"] == ("203.0.113.2", 0)
    assert other.root_path is None


# Forwarded (RFC 7239).


@pytest.mark.parametrize(
    ("values", "client", "scheme", "host"),
    [
        (["for=203.0.113.9"], ("203.0.113.9", 0), "http", None),
        (['For="[2001:db8::1]:4711"'], ("2001:db8::1", 4711), "http", None),
        (['for="203.0.113.9:_obf"'], ("203.0.113.9", 0), "http", None),
        (["for=203.0.113.9:80"], ("203.0.113.9", 80), "http", None),
        (["for=192.0.2.43, for=198.51.100.17"], ("198.51.100.17", 0), "http", None),
        (["for=192.0.2.43", "for=127.0.0.1"], ("192.0.2.43", 0), "http", None),
        (
            ['for=192.0.2.43;proto=https;host="a.example:8443";by=203.0.113.43, for=127.0.0.1'],
            ("192.0.2.43", 0),
            "https",
            b"a.example:8443",
        ),
        # Parameters of another element are ignored.
        (["for=192.0.2.43, for=127.0.0.1;proto=https;host=x"], ("192.0.2.43", 0), "http", None),
        (["for=127.0.0.1;proto=https, for=192.0.2.43"], ("192.0.2.43", 0), "http", None),
        (["proto=https"], PEER, "https", None),
        (["for=1.1.1.1, proto=https"], PEER, "https", None),
        (["for=unknown;proto=https"], None, "https", None),
        (['for="_gazonk"'], None, "http", None),
        (["for=_SEVKISEK, for=127.0.0.1"], None, "http", None),
        ([";; for=192.0.2.43 ; proto=https;"], ("192.0.2.43", 0), "https", None),
        ([" , for=192.0.2.43 ,"], ("192.0.2.43", 0), "http", None),
        (['for="192.0.2.\\43"'], ("192.0.2.43", 0), "http", None),
        (['for=192.0.2.43;ext="a,b;c=\\"d\\""'], ("192.0.2.43", 0), "http", None),
        ([""], PEER, "http", None),
        ([" , "], PEER, "http", None),
        # A malformed element from a client does not affect the element of the proxy.
        (['for="'.ljust(9), "for=203.0.113.9"], ("203.0.113.9", 0), "http", None),
        (['"', 'for=203.0.113.9;host="a"'], ("203.0.113.9", 0), "http", b"a"),
        (
            ["x;=,,for=1;for=2", "for=203.0.113.9", "for=127.0.0.1"],
            ("203.0.113.9", 0),
            "http",
            None,
        ),
        (['for="1.1.1.1, for=203.0.113.9'], ("203.0.113.9", 0), "http", None),
        # Nor does text of the client that the proxy has quoted.
        (['for=203.0.113.9;x="a,for=1.1.1.1"'], ("203.0.113.9", 0), "http", None),
        (['for=203.0.113.9;x="a,for=1.1.1.1;x=";y="b"'], ("203.0.113.9", 0), "http", None),
        (['for=203.0.113.9;x="\\",for=1.1.1.1;x=\\""'], ("203.0.113.9", 0), "http", None),
    ],
)
def test_forwarded(values: list[str], client: Any, scheme: str, host: bytes | None) -> None:
    notes: list[str] = []
    fields = [("Forwarded", value) for value in values]
    found = client_info(*fields, notes=notes, forwarded_fields="forwarded")
    assert (found.scope["client"], found.scope["scheme"], found.host) == (client, scheme, host)
    assert notes == []


@pytest.mark.parametrize(
    "value",
    [
        "192.0.2.43",
        "for",
        "for=",
        'for=""x',
        "for =192.0.2.43",
        "for=1.1.1.1;for=2.2.2.2",
        'for="1.1.1.1',
        'for="1.1.1.1"x',
        "for=1.1.1.1 proto=https",
        "fo(r=1.1.1.1",
        'for="\\"',
        "for=1.1.1.1;" + " " * 50_000 + "x",
        "for=1.1.1.1;x=" + "x" * 50_000 + '"',
        'for=1.1.1.1;x="' + "\\x" * 25_000,
        'for="' + "," * 50_000,
        'for="' + ",a=b;c" * 10_000,
        'for="' + ",for=127.0.0.1" * 5_000,
    ],
)
def test_malformed_forwarded(value: str) -> None:
    notes: list[str] = []
    found = client_info(("Forwarded", value), notes=notes, forwarded_fields="forwarded")
    assert found.scope == {"client": PEER, "server": SERVER, "scheme": "http"}
    assert notes == [f"ignoring malformed Forwarded: {value[:80]!r}"]


# Arbitrary input.

FIELD = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
NAMES = st.sampled_from(
    ["X-Forwarded-" + what for what in ("For", "Proto", "Host", "Port", "Prefix")] + ["Forwarded"]
)
WORDS = r'for= proto= host= by= " \ , ; [ ] : ::1 1.2.3.4 127.0.0.1 https unknown _x 80 /a %2f %'
PIECES = st.lists(st.sampled_from([*WORDS.split(), " ", "\xe4"])).map("".join)


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, FIELD | PIECES), max_size=6),
    st.sampled_from(["x-forwarded", "forwarded"]),
    st.sampled_from([("127.0.0.1",), ("*",), ("unix", "1.2.3.0/24")]),
)
def test_any_forwarded_headers(fields: Any, family: str, allowed: tuple[str, ...]) -> None:
    """No header raises an exception, and the scope has valid values."""
    found = client_info(*fields, forwarded_fields=family, forwarded_allow_ips=allowed)
    client, (host, port) = found.scope["client"], found.scope["server"]
    assert client is None or (client[0] and 0 <= client[1] < 1 << 16)
    assert host == "127.0.0.1" and 0 < port < 1 << 16
    assert found.scope["scheme"] in ("http", "https")
    assert found.name.isprintable() and " " not in found.name
    assert not found.root_path or (found.root_path[0] == "/" != found.root_path[-1])


ELEMENT = st.dictionaries(
    st.sampled_from(["for", "x", "proto"]),
    st.text(st.sampled_from('a,;="\\ :[]'), max_size=8),
    min_size=1,
)


@given(st.lists(ELEMENT, max_size=4), st.text(st.sampled_from('for=";, \\1'), max_size=12))
@settings(deadline=None)
def test_elements_of_proxies_are_read_after_any_text(
    elements: list[dict[str, str]], start: str
) -> None:
    def quoted(text: str) -> str:
        return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'

    written = [
        ";".join(f"{name}={quoted(text)}" for name, text in element.items()) for element in elements
    ]
    found = _elements(", ".join([start, *written]))
    assert list(itertools.islice(found, len(elements))) == elements[::-1]


# Prefixes.


@pytest.mark.parametrize(
    ("options", "prefix", "path", "seen"),
    [
        ({}, "/p", "/x", ("/p/x", "/p")),
        ({}, "/p/", "/p/x", ("/p/x", "/p")),
        ({}, "/p", "/p", ("/p", "/p")),
        ({}, "/p", "/", ("/p/", "/p")),
        ({}, "/p", "/pq", ("/p/pq", "/p")),
        ({}, "/", "/x", ("/x", "")),
        ({}, "/a/b", "/x%2f%20y", ("/a/b/x/ y", "/a/b")),
        ({}, "//p", "/x", ("/p/x", "/p")),
        ({}, "/a%20b", "/x", ("/a b/x", "/a b")),
        ({}, "/p, /q", "/x", ("/q/x", "/q")),
        ({"root_path": "/p/"}, "", "/x", ("/p/x", "/p")),
        ({"root_path": "p"}, "", "/p/x", ("/p/x", "/p")),
        # The header replaces the option.
        ({"root_path": "/p"}, "/q", "/x", ("/q/x", "/q")),
        ({"root_path": "/p"}, "/", "/x", ("/x", "")),
        # An invalid path is ignored.
        ({"root_path": "/p"}, "q", "/x", ("/p/x", "/p")),
        ({}, "/q?", "/x", ("/x", "")),
        ({}, "http://a/", "/x", ("/x", "")),
        ({}, "/\xe4", "/x", ("/x", "")),
        ({}, "/" + "p" * 255, "/x", ("/" + "p" * 255 + "/x", "/" + "p" * 255)),
        ({}, "/" + "p" * 256, "/x", ("/x", "")),
    ],
)
def test_root_path(options: Any, prefix: str, path: str, seen: tuple[str, str]) -> None:
    fields = [("X-Forwarded-Prefix", prefix)] if prefix else []
    scope = see(*fields, path=path, **options)
    assert (scope["path"], scope["root_path"]) == seen
    assert scope["raw_path"] == path.encode()  # as received


@pytest.mark.parametrize("path", ["/x/1", "/p/x/1"])
def test_frameworks_agree_on_the_prefix(path: str, django_settings: Any) -> None:
    async def endpoint(request: Any) -> JSONResponse:
        urls = [str(request.url), str(request.url_for("item", id=2)), str(request.base_url)]
        return JSONResponse([*urls, request.scope["root_path"]])

    routes = [Mount("/x", routes=[Route("/{id:int}", endpoint, name="item")])]
    app = Starlette(routes=[*routes, Route("/y/{id:int}", endpoint, name="item")])
    fields = b"X-Forwarded-Prefix: /p\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example"
    with serve(app) as server, Client(server) as client:
        head = GET.replace(b"/ ", path.encode() + b" ", 1).replace(b"Host: here", fields)
        answer = client.response(head.replace(b"\r\n", b"\r\nHost: here\r\n", 1))
    assert json.loads(answer.body)[0] == "https://a.example/p/x/1"
    assert json.loads(answer.body)[2:] == ["https://a.example/p/", "/p/x"]

    request = ASGIRequest(
        see(("X-Forwarded-Prefix", "/p"), ("X-Forwarded-For", "203.0.113.9:1"), path=path), None
    )
    assert (request.path, request.path_info, request.script_name) == ("/p/x/1", "/x/1", "/p")
    assert request.META["REMOTE_ADDR"] == "203.0.113.9"


@pytest.mark.parametrize("root_path", ["", "/r"])
@pytest.mark.parametrize("prefix", ["", "/p"])
@in_loop
async def test_health_path_below_a_prefix(root_path: str, prefix: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await reply(send, b"app")

    line = f"X-Forwarded-Prefix: {prefix}\r\n" if prefix else ""
    with serve(app, root_path=root_path, health_path="/up", limit_concurrency=1) as server:
        for path in ("/up", (prefix or root_path) + "/up"):
            with Client(server) as client:
                request = f"GET {path} HTTP/1.1\r\nHost: here\r\n{line}\r\n".encode()
                assert client.response(request).body == b"ok\n"
                assert client.response(GET).body == b"app"


# Connections.


@in_loop
async def test_each_request_has_its_own_client() -> None:
    """With repeated heads, different heads, and heads that are too long to be remembered."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])
        await reply(send)

    def request(client: str, length: int = 0) -> bytes:
        line = f"X-Forwarded-For: {client}\r\n" if client else ""
        return f"GET / HTTP/1.1\r\nHost: here\r\n{line}A: {'a' * length}\r\n\r\n".encode()

    clients = ["1.1.1.1", "1.1.1.1", "", "", "2.2.2.2", "3.3.3.3", "2.2.2.2"]
    async with connect(app) as connection:
        for client in clients:
            await connection.feed(request(client))
        await connection.feed(request("4.4.4.4", 5000))
        await connection.feed(request("2.2.2.2"))
        await connection.feed(request("5.5.5.5") + request("5.5.5.5") + request(""))
    expected = [client or "127.0.0.1" for client in clients]
    assert seen == [*expected, "4.4.4.4", "2.2.2.2", "5.5.5.5", "5.5.5.5", "127.0.0.1"]


@in_loop
async def test_the_host_of_an_absolute_target() -> None:
    """It replaces Host before forwarded headers do, even if the rest of the head is remembered."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(b",".join(value for name, value in scope["headers"] if name == b"host"))
        await reply(send)

    def request(target: bytes, *lines: bytes) -> bytes:
        return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: received", *lines, b"", b""])

    port, host = b"X-Forwarded-Port: 8443", b"X-Forwarded-Host: forwarded"
    async with connect(app) as connection:
        await connection.feed(request(b"/"), request(b"http://one/"), request(b"http://two/"))
        await connection.feed(request(b"http://one/", port), request(b"http://two/", port))
        await connection.feed(request(b"/", port), request(b"http://three:1/", port))
        await connection.feed(request(b"http://one/", port, host), request(b"/", host))
    expected = [b"received", b"one", b"two", b"one:8443", b"two:8443", b"received:8443"]
    assert seen == [*expected, b"three:1", b"forwarded:8443", b"forwarded"]


@in_loop
async def test_prefixes_change_on_a_connection() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["root_path"]))
        await reply(send)

    one = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Prefix: /1\r\n\r\n")
    async with connect(app, root_path="/0") as connection:
        await connection.feed(GET, one, one, GET, one.replace(b"/1\r", b"/2\r"))
    assert seen == [("/0/", "/0"), *[("/1/", "/1")] * 2, ("/0/", "/0"), ("/2/", "/2")]


@in_loop
async def test_websocket() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "websocket.accept"})

    lines: list[str] = []
    fields = [b"For: 203.0.113.9:5", b"Proto: wss", b"Host: a", b"Prefix: /p"]
    hooks = Hooks(access=lambda exchange: lines.append(exchange.client.name))
    async with connect(app, hooks) as connection:
        await connection.feed(handshake(*[b"X-FORWARDED-" + field for field in fields]))
    (scope,) = seen
    assert scope["type"] == "websocket"
    assert (scope["client"], scope["scheme"]) == (("203.0.113.9", 5), "wss")
    assert scope["path"].startswith("/p/") and scope["root_path"] == "/p"
    assert (b"host", b"a") in scope["headers"]
    assert lines == ["203.0.113.9:5"]


def test_a_unix_socket_is_trusted(tmp_path: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append((scope["client"], scope["server"], scope["scheme"]))
        await reply(send)

    path = str(tmp_path / "s")
    fields = b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
    fields += b"X-Forwarded-Port: 443\r\n\r\n"
    for options in ({}, {"forwarded_allow_ips": ("127.0.0.1",)}):
        with serve(app, uds=path, **options), Client(path) as client:
            assert client.response(GET.replace(b"\r\n\r\n", fields)).status == 200
    assert seen == [(("203.0.113.9", 0), (path, None), "https"), (None, (path, None), "http")]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "options", [{}, {"limit_connections": 100}, {"request_id_header": "X-Request-ID"}]
)
@in_loop
async def test_a_reset_does_not_make_a_client_trusted(loop: Any, options: Any) -> None:
    """After a reset, a TCP connection has no peer address."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        seen.append((scope["path"], scope["client"][0], dict(scope["headers"])[b"host"]))
        await reply(send)

    lines = ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: evil", "X-Forwarded-Prefix: /evil"]
    forged = "\r\n".join(["GET / HTTP/1.1", "Host: here", *lines, "", ""]).encode()
    options = options | {"forwarded_allow_ips": ("unix",)}
    async with Server(app, port=0, **options) as server:
        for _ in range(5):
            client = Client(server)  # the event loop does not run before the reset
            client.send(forged)
            client.reset()
        with Client(server) as last:
            last.send(GET.replace(b" / ", b" /last "))
            await until(lambda: any(path == "/last" for path, _, _ in seen))
    assert {(client, host) for _, client, host in seen} == {("127.0.0.1", b"here")}
    assert {path for path, _, _ in seen} <= {"/", "/last"}


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Access lines name the client; errors name the peer, once for each header."""
    caplog.set_level(logging.INFO, "tinyasgi")
    with serve(hello) as server, Client(server) as client:
        for _ in range(3):
            head = b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: gopher\r\n\r\n"
            assert client.response(GET.replace(b"\r\n\r\n", head)).status == 200
        assert client.response(b"rubbish\r\n\r\n").status == 400
        peer = "{}:{}".format(*client.sock.getsockname())
    lines = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith('203.0.113.9 "GET / HTTP/1.1" 200') for line in lines) == 3
    ignored = f"{peer}: ignoring malformed X-Forwarded-Proto: 'gopher'"
    assert [line for line in lines if line.startswith(peer)][:1] == [ignored]
    assert len([line for line in lines if line.startswith(f"{peer}:")]) == 2
    assert lines[-1] == f'{peer} "rubbish" 400 50 B 0.0 ms'


def test_logged_errors_are_bounded() -> None:
    """The first error of each peer is logged, and the set of logged errors is bounded."""
    told: list[str] = []
    forwarded = Forwarded(Trust(Config()), lambda name, fault: told.append(name))
    for number in range(10_000):
        peer = ClientInfo({"client": (f"10.0.{number >> 8}.{number & 255}", 1)}, f"peer {number}")
        forwarded(peer, [(b"x-forwarded-proto", b"gopher")])
    assert len(told) == 10_000
    assert len(forwarded._logged) <= 256
