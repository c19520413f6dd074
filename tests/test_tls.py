"""TLS: certificates, who may connect, and what is refused."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from helpers import GET, LOOPS, Certificates, Client, hello, in_loop, reply, upload

from tinyasgi import Server
from tinyasgi.options import OptionError
from tinyasgi.testing import serve


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_tls(loop: Any, tls: Certificates) -> None:
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await receive()
        await reply(send, bytes(1_000_000))

    def talk(port: int) -> str | None:
        with Client(port, tls.context()) as client:
            for _ in range(3):
                assert client.response(GET).body == bytes(1_000_000)
            assert client.response(upload(5) + b"whole").status == 200
            return client.sock.selected_alpn_protocol()  # type: ignore[attr-defined]

    async with Server(app, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        assert server.url.startswith("https://")
        assert await asyncio.to_thread(talk, server.port) == "http/1.1"
    assert {scope["scheme"] for scope in scopes} == {"https"}


def test_tls_versions(tls: Certificates) -> None:
    with serve(hello, ssl_certfile=tls.certfile) as server:
        old = tls.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with Client(server, old) as client:
            assert client.response(GET).status == 200
    with serve(hello, ssl_certfile=tls.certfile, ssl_min_version="1.3") as server:
        with pytest.raises(ssl.SSLError):
            Client(server, old)
        with Client(server, tls.context()) as client:
            assert client.response(GET).status == 200


def test_client_certificates(tls: Certificates) -> None:
    ours = tls.context(tls.authority.issue_cert("client"))
    none = tls.context()
    strange = tls.context(trustme.CA().issue_cert("client"))
    options = {"ssl_certfile": tls.certfile, "ssl_ca_certs": tls.ca_certs}

    def served(server: Server, context: ssl.SSLContext) -> bool:
        try:
            # With TLS 1.3 a client learns only later that it is turned away.
            with Client(server, context) as client:
                return client.response(GET).status == 200
        except (OSError, IndexError):
            return False

    for wanted, expected in (
        ("required", [True, False, False]),
        ("optional", [True, True, False]),
        ("none", [True, True, True]),
    ):
        with serve(hello, **options, ssl_cert_reqs=wanted) as server:
            assert [served(server, context) for context in (ours, none, strange)] == expected


def test_key_with_password(tls: Certificates, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    leaf = trustme.CA().issue_cert("localhost")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(cert)
    plain = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    Path(key).write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    Server(hello, ssl_certfile=cert, ssl_keyfile=key, ssl_keyfile_password="secret")
    for password in ("wrong", None):
        with pytest.raises(OptionError) as raised:
            Server(hello, ssl_certfile=cert, ssl_keyfile=key, ssl_keyfile_password=password)
        assert "wrong" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"), [("ssl_ca_certs", "nothing.pem"), ("ssl_ciphers", "nonsense")]
)
def test_wrong_tls_option(name: str, value: str, tls: Certificates) -> None:
    with pytest.raises(OptionError, match=f"^{name}: '{value}'"):
        Server(hello, ssl_certfile=tls.certfile, **{name: value})


def test_tls_handshake_does_not_hold_up_others(tls: Certificates) -> None:
    with (
        serve(hello, ssl_certfile=tls.certfile) as server,
        Client(server),
        Client(server, tls.context()) as client,
    ):
        assert client.response(GET).status == 200
