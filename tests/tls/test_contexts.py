"""TLS contexts: selection and reload of certificates, client certificates, errors."""

import asyncio
import datetime
import logging
import pickle
import shutil
import signal
import socket
import ssl
import subprocess
import weakref
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.helpers import (
    GET,
    LOOPS,
    PATIENCE,
    Certificates,
    Client,
    hello,
    in_loop,
    quick_loop,
    reply,
    until,
    upload,
)
from tests.support.processes import Start, nothing_left, start
from tinyasgi import Config, Server, run
from tinyasgi.config.kinds import OptionError
from tinyasgi.testing import serve
from tinyasgi.tls.contexts import TLSContexts

__all__ = ["nothing_left", "start"]


@pytest.fixture
def check_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the files at each handshake."""
    monkeypatch.setattr("tinyasgi.tls.contexts.CHECK_INTERVAL", 0.0)


def issue(tls: Certificates, path: Path, *hosts: str, **options: Any) -> str:
    """Write a file with a key and its certificate, or replace it."""
    leaf = tls.authority.issue_cert(*hosts, **options)
    put(path, leaf.private_key_and_cert_chain_pem.bytes())
    return str(path)


def put(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def certificate(file: str) -> bytes:
    """Return the first certificate of a file, in DER."""
    text = Path(file).read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERT") :].split("\n\n")[0])


def is_served(server: Any, context: ssl.SSLContext) -> bool:
    """Return whether a client gets a response."""
    try:
        # With TLS 1.3, the client notices the rejection after its handshake.
        with Client(server, context) as client:
            return client.response(GET).status == 200
    except (OSError, IndexError):
        return False


def shown(server: Any, name: str | None, **options: Any) -> bytes:
    """Return the certificate that a client gets for a server name, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for option, value in options.items():
        if option == "ciphers":
            context.set_ciphers(value)
        else:
            setattr(context, option, value)
    with (
        Client(server) as client,
        context.wrap_socket(client.sock, server_hostname=name) as secure,
    ):
        secure.sendall(GET)
        assert secure.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        return secure.getpeercert(binary_form=True) or b""


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

    for wanted, expected in (
        ("required", [True, False, False]),
        ("optional", [True, True, False]),
        ("none", [True, True, True]),
    ):
        with serve(hello, **options, ssl_cert_reqs=wanted) as server:
            assert [is_served(server, context) for context in (ours, none, strange)] == expected


def test_client_certificates_of_an_unknown_authority(tls: Certificates) -> None:
    with pytest.raises(OptionError, match=r"^ssl_cert_reqs='required' needs ssl_c"):
        Config(ssl_certfile=(tls.certfile,), ssl_cert_reqs="required")
    with pytest.raises(OptionError, match=r"^ssl_cert_reqs='required' needs ssl_c"):
        Config(ssl_ca_certs=tls.ca_certs, ssl_cert_reqs="required")
    Config(ssl_context_factory="module:function", ssl_cert_reqs="required")


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
    for password in ("wrong", None, "wrong" * 1024, "wrong\udcff"):
        with pytest.raises(OptionError) as raised:
            Server(hello, ssl_certfile=cert, ssl_keyfile=key, ssl_keyfile_password=password)
        reason = "has a private key that can't be decrypted: wrong ssl_keyfile_password"
        if password is None:
            reason = "has an encrypted private key; set ssl_keyfile_password"
        assert str(raised.value) == f"ssl_keyfile='{key}' {reason}"


@pytest.mark.parametrize(
    ("name", "value"), [("ssl_ca_certs", "nothing.pem"), ("ssl_ciphers", "nonsense")]
)
def test_wrong_tls_option(name: str, value: str, tls: Certificates) -> None:
    with pytest.raises(OptionError, match=f"^{name}='.*{value}'"):
        Server(hello, ssl_certfile=tls.certfile, **{name: value})


def test_tls_handshake_does_not_hold_up_others(tls: Certificates) -> None:
    with (
        serve(hello, ssl_certfile=tls.certfile) as server,
        Client(server),
        Client(server, tls.context()) as client,
    ):
        assert client.response(GET).status == 200


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_handshake_timeout(loop: str, tls: Certificates) -> None:
    options: dict[str, Any] = {"ssl_certfile": tls.certfile, "timeout_head": 0.1, "loop": loop}
    with serve(hello, lifespan="off", **options) as server, Client(server) as client:
        assert client.rest() == b""


@pytest.mark.parametrize("base", LOOPS)
def test_handshakes_without_timeout(base: Any, tls: Certificates) -> None:
    """The default of the event loops, 60 seconds, is not used."""

    async def shake_late(server: Server) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(200)  # 0.2 seconds in this loop
        await writer.start_tls(
            tls.context(), server_hostname="localhost", ssl_handshake_timeout=1e6
        )
        writer.write(GET)
        status = await reader.readline()
        writer.transport.abort()
        return status

    async def main() -> bytes:
        options = {"timeout_head": 0, "timeout_keep_alive": 1e6, "ssl_certfile": tls.certfile}
        async with Server(hello, port=0, lifespan="off", **options) as server:
            return await asyncio.wait_for(shake_late(server), 1000 * PATIENCE)

    with asyncio.Runner(loop_factory=quick_loop(base)) as runner:
        assert runner.run(main()) == b"HTTP/1.1 200 OK\r\n"


# Several certificates.


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_certificate_by_name(loop: str, tls: Certificates, tmp_path: Path) -> None:
    first = issue(tls, tmp_path / "1", "first.example", "127.0.0.1")
    second = issue(tls, tmp_path / "2", "second.example", "*.second.example", "*.example")
    third = issue(tls, tmp_path / "3", "third.example", "a.second.example", "first.example")
    with serve(hello, ssl_certfile=(first, second, third), loop=loop, lifespan="off") as server:
        for name, file in (
            ("first.example", first),
            ("second.example", second),
            ("SECOND.example", second),
            ("b.second.example", second),
            ("a.second.example", third),  # an exact name has priority over a wildcard
            ("third.example", third),
            ("b.third.example", first),
            ("c.b.second.example", first),  # a wildcard matches one label
            ("*.second.example", second),
            ("unknown.example", second),
            ("unknown", first),
            ("127.0.0.1", first),
            (None, first),
        ):
            assert shown(server, name) == certificate(file), name


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here: make clients")
def test_certificate_by_name_as_openssl_sees_it(tls: Certificates, tmp_path: Path) -> None:
    files = [issue(tls, tmp_path / name, name) for name in ("a.example", "b.example")]
    with serve(hello, ssl_certfile=tuple(files), lifespan="off") as server:
        for words, file in (
            (["-servername", "b.example"], files[1]),
            (["-servername", "a.example"], files[0]),
            (["-noservername"], files[0]),
        ):
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", *words]
            command += ["-CAfile", tls.ca_certs, "-verify_return_error"]
            said = subprocess.run(command, input=b"", capture_output=True, check=True).stdout
            assert ssl.DER_cert_to_PEM_cert(certificate(file)) in said.decode()


def test_server_name_not_ascii(start: Start, tls: Certificates, tmp_path: Path) -> None:
    """By default, Python prints six lines for each, so a client could flood stderr."""
    words = []
    for name in ("a.example", "b.example"):
        words += ["--ssl-certfile", issue(tls, tmp_path / name, name)]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(incoming, outgoing, server_hostname="uuuu.example")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    data = outgoing.read().replace(b"uuuu.example", "üü.example".encode())
    with start(*words) as command:
        for _ in range(2):
            with Client(command.port) as client:
                client.send(data)
                client.rest()
        assert command.stop() == 0
    assert command.log.count("TLS handshake failed: the server name is not ASCII") == 2
    assert "ignored" not in command.log
    assert "Traceback" not in command.log


def test_two_kinds_of_key(tls: Certificates, tmp_path: Path) -> None:
    """With the same host names, the client gets the type of key that it prefers."""
    kind = trustme.KeyType
    rsa, ec, other = (
        issue(tls, tmp_path / str(number), "a.example", "b.example", key_type=key)
        for number, key in enumerate((kind.RSA, kind.ECDSA, kind.RSA))
    )
    with serve(hello, ssl_certfile=(rsa, ec, other), lifespan="off") as server:
        for name in ("a.example", None):
            for ciphers, file in (("ECDHE-RSA-AES128-GCM-SHA256", rsa), ("aECDSA", ec)):
                options = {"ciphers": ciphers, "maximum_version": ssl.TLSVersion.TLSv1_2}
                assert shown(server, name, **options) == certificate(file)


def test_keys_in_separate_files(tls: Certificates, tmp_path: Path) -> None:
    pairs = []
    for name in ("a.example", "b.example"):
        leaf = tls.authority.issue_cert(name)
        leaf.cert_chain_pems[0].write_to_path(tmp_path / name)
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        pairs.append((str(tmp_path / name), str(tmp_path / f"{name}.key")))
    certs, keys = zip(*pairs, strict=True)
    whole = issue(tls, tmp_path / "whole", "c.example")
    with serve(hello, ssl_certfile=(*certs, whole), ssl_keyfile=keys, lifespan="off") as server:
        for name, file in zip(
            ("a.example", "b.example", "c.example"), (*certs, whole), strict=True
        ):
            assert shown(server, name) == certificate(file)
    with pytest.raises(
        OptionError, match=f"^ssl_keyfile='{keys[1]}' does not belong to .*{certs[0]}"
    ):
        Server(hello, ssl_certfile=certs, ssl_keyfile=keys[::-1])


def test_certificate_that_would_never_be_used(tls: Certificates, tmp_path: Path) -> None:
    nobody = issue(tls, tmp_path / "address", "127.0.0.1")
    with pytest.raises(OptionError, match=f"^ssl_certfile='{nobody}' names no host"):
        Server(hello, ssl_certfile=(tls.certfile, nobody))
    Server(hello, ssl_certfile=(nobody, tls.certfile))


@pytest.mark.parametrize(
    ("name", "cut", "said"),
    [
        ("ssl_certfile", slice(0, 0), "contains no certificate"),
        ("ssl_certfile", slice(0, 300), "contains an invalid certificate"),
        ("ssl_certfile", slice(-300, None), "contains no certificate"),
        ("ssl_certfile", None, "No such file"),
        ("ssl_keyfile", slice(0, 0), "contains no private key"),
        ("ssl_keyfile", slice(0, 100), "contains no private key"),
        ("ssl_keyfile", None, "No such file"),
    ],
)
def test_invalid_files(
    name: str, cut: slice | None, said: str, tls: Certificates, tmp_path: Path
) -> None:
    """The message names the option and the file."""
    leaf = tls.authority.issue_cert("localhost")
    files = {"ssl_certfile": tmp_path / "cert.pem", "ssl_keyfile": tmp_path / "key.pem"}
    leaf.cert_chain_pems[0].write_to_path(files["ssl_certfile"])
    leaf.private_key_pem.write_to_path(files["ssl_keyfile"])
    if cut is None:
        files[name].unlink()
    else:
        files[name].write_bytes(files[name].read_bytes()[cut])
    with pytest.raises(OptionError) as raised:
        Server(hello, **{option: str(path) for option, path in files.items()})
    assert str(raised.value).startswith(f"{name}='{files[name]}' ")
    assert said in str(raised.value)


def test_certificate_without_its_key(tls: Certificates, tmp_path: Path) -> None:
    file = str(tmp_path / "cert.pem")
    tls.authority.issue_cert("localhost").cert_chain_pems[0].write_to_path(file)
    with pytest.raises(OptionError, match=f"^ssl_certfile='{file}' contains no private key"):
        Server(hello, ssl_certfile=file)


def test_expired_certificate(
    tls: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is used, and one warning is logged."""
    end = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    file = issue(tls, tmp_path / "old.pem", "localhost", not_after=end)
    with serve(hello, ssl_certfile=file, lifespan="off") as server:
        for _ in range(2):
            assert shown(server, "localhost") == certificate(file)
    (message,) = caplog.messages
    assert message == f"ssl_certfile='{file}': the certificate has expired"


# Reload.


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_reload(
    loop: Any,
    check_always: None,
    tls: Certificates,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """New connections get the new certificate; old ones stay open."""
    file = issue(tls, tmp_path / "cert.pem", "localhost")
    before = certificate(file)

    def talk(port: int) -> None:
        with Client(port, tls.context()) as old:
            assert old.response(GET).status == 200
            assert shown(port, "localhost") == before
            issue(tls, tmp_path / "cert.pem", "localhost")
            assert shown(port, "localhost") == certificate(file) != before
            assert shown(port, "localhost") == certificate(file)
            assert old.response(GET).status == 200

    caplog.set_level(logging.INFO, "tinyasgi.server")
    async with Server(hello, port=0, lifespan="off", ssl_certfile=file) as server:
        await asyncio.to_thread(talk, server.port)
    assert caplog.messages == ["reloaded the TLS files; new connections use them"]


def test_files_are_replaced_one_after_the_other(
    check_always: None, tls: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until they match, the old ones stay in use. Each change is logged once."""
    leaf, new = (tls.authority.issue_cert("localhost") for _ in range(2))
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(cert)
    leaf.private_key_pem.write_to_path(key)
    before = certificate(str(cert))
    options = {"ssl_certfile": str(cert), "ssl_keyfile": str(key), "lifespan": "off"}
    with serve(hello, **options) as server:
        put(cert, new.cert_chain_pems[0].bytes()[:300])  # half
        for _ in range(3):
            assert shown(server, None) == before
        put(cert, new.cert_chain_pems[0].bytes())
        for _ in range(3):
            assert shown(server, None) == before
        put(key, new.private_key_pem.bytes())
        assert shown(server, None) == certificate(str(cert)) != before
        cert.unlink()
        assert shown(server, None) != before
    broken, unfit, missing = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    start = "can't reload the TLS files, the old certificate stays in use: "
    assert all(message.startswith(start) for message in (broken, unfit, missing))
    assert f"ssl_certfile='{cert}'" in broken
    assert f"ssl_keyfile='{key}' does not belong to the certificate in '{cert}'" in unfit
    assert "No such file" in missing


def test_files_behind_a_link(check_always: None, tls: Certificates, tmp_path: Path) -> None:
    """Kubernetes changes a mounted secret by replacing a link to a directory."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        leaf = tls.authority.issue_cert("localhost")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / version / "tls.crt")
        leaf.private_key_pem.write_to_path(tmp_path / version / "tls.key")
    (tmp_path / "..data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    crt, key = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    with serve(hello, ssl_certfile=crt, ssl_keyfile=key, lifespan="off") as server:
        before = shown(server, None)
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(tmp_path / "..data")
        assert shown(server, None) == certificate(crt) != before


def test_files_of_an_app_that_changes_its_directory(
    check_always: None, tls: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    issue(tls, tmp_path / "cert.pem", "localhost")
    shutil.copy(tls.ca_certs, "ca.pem")
    options = {"ssl_certfile": "cert.pem", "ssl_keyfile": "cert.pem", "ssl_ca_certs": "ca.pem"}
    with serve(hello, **options, ssl_cert_reqs="optional", lifespan="off") as server:
        monkeypatch.chdir("/")
        issue(tls, tmp_path / "cert.pem", "localhost")
        assert shown(server, None) == certificate(str(tmp_path / "cert.pem"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_outlives_a_certificate(
    version: ssl.TLSVersion, check_always: None, tls: Certificates, tmp_path: Path
) -> None:
    file = issue(tls, tmp_path / "cert.pem", "localhost")
    context = tls.context()
    context.maximum_version = version

    def reused(port: int, session: Any) -> tuple[bool, Any]:
        with (
            Client(port) as client,
            context.wrap_socket(
                client.sock, server_hostname="localhost", session=session
            ) as secure,
        ):
            secure.sendall(GET)
            secure.recv(1 << 16)
            return bool(secure.session_reused), secure.session

    with serve(hello, ssl_certfile=file, lifespan="off") as server:
        _, session = reused(server.port, None)
        again, session = reused(server.port, session)
        assert again
        issue(tls, tmp_path / "cert.pem", "localhost")
        again, _ = reused(server.port, session)
        assert not again


def test_files_are_checked_once_a_second(
    tls: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced context is freed at once."""
    now = 100.0
    monkeypatch.setattr("tinyasgi.tls.contexts.time.monotonic", lambda: now)
    files = [issue(tls, tmp_path / name, name) for name in ("a.example", "b.example")]
    contexts = TLSContexts(Config(ssl_certfile=tuple(files)))
    first = weakref.ref(contexts.current())
    issue(tls, tmp_path / "b.example", "b.example")
    assert contexts.current() is first()
    now += 1
    contexts.current()
    assert first() is None


def test_reload_of_an_authority(check_always: None, tls: Certificates, tmp_path: Path) -> None:
    """Sessions of clients that the old authority has signed are rejected, too."""
    authorities = [trustme.CA() for _ in range(2)]
    clients = [tls.context(authority.issue_cert("client")) for authority in authorities]
    ca_certs = tmp_path / "ca.pem"
    authorities[0].cert_pem.write_to_path(ca_certs)
    options = {"ssl_ca_certs": str(ca_certs), "ssl_cert_reqs": "required", "lifespan": "off"}
    with serve(hello, ssl_certfile=tls.certfile, **options) as server:
        assert [is_served(server, client) for client in clients] == [True, False]
        put(ca_certs, authorities[1].cert_pem.bytes())
        assert [is_served(server, client) for client in clients] == [False, True]


# Failed handshakes.


def test_log_lines_about_client_certificates(
    tls: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    strange = tls.context(trustme.CA().issue_cert("client"))
    options = {"ssl_ca_certs": tls.ca_certs, "ssl_cert_reqs": "required", "lifespan": "off"}
    with serve(hello, ssl_certfile=tls.certfile, **options) as server:
        assert not is_served(server, tls.context())
        assert not is_served(server, strange)
    none, unknown = caplog.messages
    assert none.startswith("127.0.0.1:")
    assert none.endswith(": TLS handshake failed: the client sent no certificate")
    assert ": TLS handshake failed: the certificate of the client was rejected: " in unknown


# Contexts from `--ssl-context-factory`.


def strict(config: Config, default: Any) -> ssl.SSLContext:
    """A context factory at module level, which workers can import."""
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context  # type: ignore[no-any-return]


@pytest.mark.parametrize("function", [strict, f"{__name__}:strict"])
def test_context_factory(function: Any, tls: Certificates) -> None:
    config = Config(ssl_certfile=tls.certfile, ssl_context_factory=function)
    assert pickle.loads(pickle.dumps(config)).ssl_context_factory == f"{__name__}:strict"
    with serve(hello, config.replace(port=0)) as server:
        old = tls.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert not is_served(server, old)
        assert is_served(server, tls.context())


def test_context_factory_without_files(tls: Certificates) -> None:
    def make(config: Config, default: Any) -> ssl.SSLContext:
        with pytest.raises(OptionError, match="ssl_certfile"):
            default()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certfile)
        return context

    with serve(hello, ssl_context_factory=make) as server:
        assert server.url.startswith("https://")
        assert is_served(server, tls.context())


def test_context_factory_is_called_for_each_name(
    check_always: None, tls: Certificates, tmp_path: Path
) -> None:
    """And again after a change of a file."""
    made = []

    def make(config: Config, default: Any) -> ssl.SSLContext:
        made.append(default())
        return made[-1]

    files = [issue(tls, tmp_path / name, name) for name in ("a.example", "b.example")]
    with serve(hello, ssl_certfile=tuple(files), ssl_context_factory=make) as server:
        assert shown(server, "b.example") == certificate(files[1])
        assert len(made) == 2
        issue(tls, tmp_path / "b.example", "b.example")
        assert shown(server, "b.example") == certificate(files[1])
        assert len(made) == 4


def test_invalid_context_factory(tls: Certificates) -> None:
    def fail(config: Config, default: Any) -> Any:
        raise KeyError("secret")

    for function, said in (
        (fail, "failed: 'secret'"),
        (lambda config, default: None, "must return an ssl.SSLContext"),
        ("no_such_module:make", "failed: no module named 'no_such_module'"),
    ):
        with pytest.raises(OptionError, match=r"^ssl_context_factory=") as raised:
            Server(hello, ssl_certfile=tls.certfile, ssl_context_factory=function)
        assert said in str(raised.value)
        assert isinstance(raised.value.__cause__, KeyError) is (function is fail)


# Processes.


@pytest.mark.parametrize("count", [2, 1])
def test_hup_with_a_broken_certificate(
    count: int, start: Start, tls: Certificates, tmp_path: Path
) -> None:
    """The running workers keep their certificates."""
    file = tmp_path / "cert.pem"
    issue(tls, file, "localhost")
    before = certificate(str(file))
    with start("--workers", str(count), "--ssl-certfile", str(file)) as command:
        port = command.port
        put(file, file.read_bytes()[:400])
        command.send(signal.SIGHUP)
        command.wait_for(f"--ssl-certfile {file} contains ")
        command.wait_for(f"reload failed; {count} of {count} workers keep running")
        assert shown(port, None) == before
        issue(tls, file, "localhost")
        command.send(signal.SIGHUP)
        command.wait_for("shutdown of", count)
        assert shown(port, None) == certificate(str(file)) != before
        assert command.stop() == 0
        assert all(line.strip() for line in command.log.splitlines())


@pytest.mark.slow
def test_workers_notice_a_change(start: Start, tls: Certificates, tmp_path: Path) -> None:
    """Each worker reloads the files at one of its next handshakes."""
    files = [tmp_path / "a.pem", tmp_path / "b.pem"]
    for file in files:
        issue(tls, file, "localhost")
    words = [word for file in files for word in ("--ssl-certfile", str(file))]
    with start("--workers", "2", *words) as command:
        port = command.port
        issue(tls, files[0], "localhost")
        while shown(port, None) != certificate(str(files[0])):
            pass  # it has checked the files less than a second ago
        assert command.stop() == 0
        assert "reloaded the TLS files; new connections use them" in command.log


FACTORY = """
def make(config, default):
    context = default()
    context.set_alpn_protocols(["http/1.0"])
    return context
"""


@pytest.mark.parametrize("words", [[], ["--workers", "2"]])
def test_context_factory_by_name(
    words: list[str], start: Start, tls: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    words = [*words, "--ssl-certfile", tls.certfile, "--ssl-context-factory", "own:make"]
    context = ssl.create_default_context(cafile=tls.ca_certs)
    context.set_alpn_protocols(["http/1.0"])
    with start(*words) as command:
        with Client(command.port, context) as client:
            assert client.sock.selected_alpn_protocol() == "http/1.0"  # type: ignore[attr-defined]
        assert command.stop() == 0


def test_context_factory_that_workers_can_not_import(
    tls: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(config: Config, default: Any) -> Any:
        pytest.fail("called")

    options = {"workers": 2, "port": 0, "ssl_certfile": tls.certfile, "ssl_context_factory": make}
    with pytest.raises(SystemExit) as exited:
        run("app:app", **options)
    assert exited.value.code == 2
    assert "must be a module-level function" in capsys.readouterr().err


@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_handshakes_need_memory_only_after_the_first_byte(
    loop: Any, tls: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio allocates a buffer of 256 KiB for each handshake."""
    begun = []
    current = TLSContexts.current
    monkeypatch.setattr(TLSContexts, "current", lambda self: begun.append(self) or current(self))
    async with Server(hello, port=0, lifespan="off", ssl_certfile=tls.certfile) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            await until(lambda: server._acceptor.handshakes)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not begun
            sock.send(b"\x16")
            await until(lambda: begun)
        await until(lambda: not server._acceptor.handshakes)
