"""The ASGI extension `tls`."""

import asyncio
import functools
import itertools
import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

from tests.support.helpers import GET, LOOPS, Certificates, Client, hello, in_loop, reply
from tinyasgi import Server
from tinyasgi.testing import serve
from tinyasgi.tls import extension
from tinyasgi.tls.extension import cipher_suite, version

NO_CLIENT_CERT = {"client_cert_chain": (), "client_cert_name": None, "client_cert_error": None}


class App:
    """Record the extension, then modify it."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any] | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        extensions = scope.get("extensions", {})
        found = extensions.get("tls")
        self.seen.append(found and dict(found))
        if found:
            found.clear()
        extensions.clear()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        else:
            await reply(send, b"hello")


def local(url: str) -> str:
    """Return the URL with the host name of the certificate."""
    return url.replace("127.0.0.1", "localhost")


def first_pem(file: str) -> str:
    text = Path(file).read_text()
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    return text[text.index(start) : text.index(end) + len(end)]


@pytest.fixture
def client() -> tuple[trustme.CA, trustme.LeafCert]:
    """A root authority, and a client certificate signed by an intermediate authority."""
    root = trustme.CA()
    middle = root.create_child_ca(key_type=trustme.KeyType.ECDSA)
    leaf = middle.issue_cert("me@example.org", common_name="Me, Myself", organization_name="Ö")
    return root, leaf


@pytest.fixture
def mutual(tls: Certificates, client: Any, tmp_path: Path) -> dict[str, Any]:
    """Options that accept the client certificate."""
    client[0].cert_pem.write_to_path(tmp_path / "clients.pem")
    options = {"ssl_certfile": tls.certfile, "ssl_ca_certs": str(tmp_path / "clients.pem")}
    return {**options, "ssl_cert_reqs": "optional", "lifespan": "off"}


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_client_without_a_certificate(loop: Any, tls: Certificates) -> None:
    app = App()

    def talk(port: int) -> tuple[str, str]:
        with Client(port, tls.context()) as client:
            client.response(GET)
            client.response(GET)
            return client.sock.cipher()[0], client.sock.version()  # type: ignore[attr-defined]

    async with Server(app, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        cipher, _ = await asyncio.to_thread(talk, server.port)
    pem = first_pem(tls.certfile)
    numbers = {"tls_version": 0x0304, "cipher_suite": cipher_suite(cipher)}
    assert app.seen == [{"server_cert": pem, **NO_CLIENT_CERT, **numbers}] * 2


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_client_with_a_certificate(
    loop: Any, tls: Certificates, client: Any, mutual: dict[str, Any]
) -> None:
    """The chain as sent by the client; a resumed session has only the first certificate."""
    app, (_, leaf) = App(), client
    chain = tuple(pem.bytes().decode() for pem in leaf.cert_chain_pems)
    organization = leaf_unit(leaf)

    def talk(port: int, maximum: ssl.TLSVersion) -> None:
        context = tls.context(leaf)
        context.maximum_version = maximum
        session = None
        for _ in range(2):
            with (
                Client(port) as raw,
                context.wrap_socket(
                    raw.sock, server_hostname="localhost", session=session
                ) as secure,
            ):
                secure.sendall(GET)
                secure.recv(1 << 16)
                session = secure.session

    async with Server(app, port=0, **mutual) as server:
        for maximum in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await asyncio.to_thread(talk, server.port, maximum)
    assert len(chain) == 2
    assert [seen and seen["client_cert_chain"] for seen in app.seen] == [
        chain,
        chain[:1],
    ] * 2
    assert [seen and seen["tls_version"] for seen in app.seen] == [771, 771, 772, 772]
    assert {seen and seen["client_cert_name"] for seen in app.seen} == {
        f"CN=Me\\, Myself,OU={organization},O=Ö"
    }


def leaf_unit(leaf: trustme.LeafCert) -> str:
    from cryptography import x509

    subject = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).subject
    return str(next(part.value for part in subject if part.oid.dotted_string == "2.5.4.11"))


def test_read_once_for_a_connection(tls: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its first request."""
    calls = itertools.count()
    read = extension._read
    monkeypatch.setattr(extension, "_read", lambda tls: (next(calls), read(tls))[1])
    options = {"ssl_certfile": tls.certfile, "health_path": "/health", "lifespan": "off"}
    with serve(App(), **options) as server, Client(server, tls.context()) as client:
        client.response(GET.replace(b" / ", b" /health "))
        assert next(calls) == 0
        for _ in range(3):
            client.response(GET)
        assert next(calls) == 2


def test_without_tls() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    with serve(app, lifespan="off") as server, Client(server) as client:
        client.response(GET)
    assert "tls" not in scopes[0].get("extensions", {})


def test_websocket(tls: Certificates, client: Any, mutual: dict[str, Any]) -> None:
    app = App()
    context = ssl.create_default_context(cafile=tls.ca_certs)
    client[1].configure_cert(context)
    with serve(app, **mutual) as server:

        async def visit() -> None:
            async with connect(local(server.ws_url), ssl=context, proxy=None) as socket:
                assert not [message async for message in socket]

        asyncio.run(visit())
        httpx.get(local(server.url), verify=context)
    websocket, http = app.seen
    assert websocket == http
    assert websocket is not None
    assert websocket["client_cert_name"].startswith("CN=Me")


def test_own_certificate_by_name(tls: Certificates, tmp_path: Path) -> None:
    """None if the context has two certificates."""
    app, files = App(), []
    hosts = ["localhost", "a.example", "b.example", "b.example"]
    for number, host in enumerate(hosts):
        kind = trustme.KeyType.RSA if number == 2 else trustme.KeyType.ECDSA
        leaf = tls.authority.issue_cert(host, key_type=kind)
        leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / str(number))
        files.append(str(tmp_path / str(number)))
    with serve(app, ssl_certfile=tuple(files), lifespan="off") as server:
        for name in hosts[:3]:
            with (
                Client(server) as raw,
                tls.context().wrap_socket(raw.sock, server_hostname=name) as secure,
            ):
                secure.sendall(GET)
                secure.recv(1 << 16)
    assert [seen and seen["server_cert"] for seen in app.seen] == [
        first_pem(files[0]),
        first_pem(files[1]),
        None,
    ]


def test_numbers() -> None:
    """RFC 8446 §B.4, RFC 5289 §3."""
    assert cipher_suite("TLS_AES_128_GCM_SHA256") == 0x1301
    assert cipher_suite("ECDHE-RSA-AES128-GCM-SHA256") == 0xC02F
    assert cipher_suite("nonsense") is None
    assert (version("TLSv1.2"), version("TLSv1.3"), version("nonsense")) == (0x0303, 0x0304, None)


# Other apps and clients.


async def who(request: Request) -> JSONResponse:
    return JSONResponse(request.scope["extensions"]["tls"])


starlette = functools.partial(Starlette, routes=[Route("/", who)])


def test_starlette_and_httpx(tls: Certificates, client: Any, mutual: dict[str, Any]) -> None:
    context = ssl.create_default_context(cafile=tls.ca_certs)
    client[1].configure_cert(context)
    with serve(starlette(), **mutual | {"ssl_cert_reqs": "required"}) as server:
        seen = httpx.get(local(server.url), verify=context).json()
        with pytest.raises(httpx.TransportError):
            httpx.get(local(server.url), verify=ssl.create_default_context(cafile=tls.ca_certs))
    assert seen["client_cert_name"].startswith("CN=Me\\, Myself,")
    assert [pem.bytes().decode() for pem in client[1].cert_chain_pems] == seen["client_cert_chain"]


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here: make clients")
def test_curl(tls: Certificates, client: Any, mutual: dict[str, Any], tmp_path: Path) -> None:
    cert = tmp_path / "me.pem"
    client[1].private_key_and_cert_chain_pem.write_to_path(cert)
    with serve(starlette(), **mutual) as server:
        url = local(server.url)
        command = ["curl", "-sS", "--cacert", tls.ca_certs, "--tls-max", "1.2"]
        seen, nobody = (
            json.loads(
                subprocess.run([*command, *words, url], capture_output=True, check=True).stdout
            )
            for words in (["--cert", str(cert)], [])
        )
    assert seen["client_cert_name"].startswith("CN=Me\\, Myself,")
    assert seen["tls_version"] == nobody["tls_version"] == 0x0303
    assert nobody["client_cert_name"] is None
    assert nobody["client_cert_chain"] == []
