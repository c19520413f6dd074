"""The PROXY protocol: parsing, and connections with and without a header."""

import asyncio
import fcntl
import json
import logging
import socket
import ssl
import struct
import termios
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.websocket.helpers import handshake
from tests.support.helpers import GET, LOOPS, Certificates, Client, hello, in_loop, reply, until
from tinyasgi import Server
from tinyasgi.proxy.proxy_protocol import (
    MAX_SIZE,
    SIGNATURE,
    HeaderError,
    ProxyHeader,
    _crc32c,
    find_end,
    parse,
)
from tinyasgi.testing import serve

CLIENT, SERVER = ("203.0.113.9", 4711), ("198.51.100.1", 443)
LINE = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
FOUR = socket.inet_aton(CLIENT[0]) + socket.inet_aton(SERVER[0]) + struct.pack("!HH", 4711, 443)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1")


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def header(command: int = 0x21, family: int = 0x11, content: bytes = FOUR) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(content)) + content


def with_checksum(content: bytes, error: int = 0) -> bytes:
    blank = header(content=content + tlv(3, bytes(4)))
    return blank[:-4] + struct.pack("!L", _crc32c(blank) ^ error)


def ssl_tlv(client: int = 1, verify: int = 0, **texts: str) -> bytes:
    kinds = {"version": 0x21, "cn": 0x22, "cipher": 0x23}
    values = [tlv(kinds[name], text.encode()) for name, text in texts.items()]
    return tlv(0x20, struct.pack("!BL", client, verify) + b"".join(values))


TLS = ssl_tlv(7, 0, version="TLSv1.3", cn="a,b", cipher="TLS_AES_128_GCM_SHA256")
FACTS = {"tls_version": 0x0304, "cipher_suite": 0x1301, "client_cert_name": "CN=a\\,b"}

# Headers.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (LINE, ProxyHeader(CLIENT, SERVER)),
        (
            b"PROXY TCP6 2001:DB8:0::1 ::1 1 65535\r\n",
            ProxyHeader(("2001:db8::1", 1), ("::1", 65535)),
        ),
        (b"PROXY UNKNOWN\r\n", ProxyHeader()),
        (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", ProxyHeader()),
        (header(), ProxyHeader(CLIENT, SERVER)),
        (
            header(family=0x21, content=SIX * 2 + struct.pack("!HH", 1, 2)),
            ProxyHeader(("2001:db8::1", 1), ("2001:db8::1", 2)),
        ),
        (
            header(family=0x31, content=b"/from".ljust(108, b"\0") + b"/to".ljust(108, b"\0")),
            ProxyHeader(None, ("/to", None)),
        ),
        (header(0x20), ProxyHeader()),
        (header(0x20, 0x00, b""), ProxyHeader()),
        (header(0x20, 0x99, b"anything"), ProxyHeader()),
        (header(0x21, 0x00, b""), ProxyHeader()),
        (header(0x21, 0x00, b"anything"), ProxyHeader()),
        (header(0x21, 0x12), ProxyHeader()),  # UDP
        (
            header(content=FOUR + tlv(4, b"padding") + tlv(0xEA, b"aws")),
            ProxyHeader(CLIENT, SERVER),
        ),
        (header(content=FOUR + TLS), ProxyHeader(CLIENT, SERVER, FACTS)),
        (header(content=FOUR + ssl_tlv(0)), ProxyHeader(CLIENT, SERVER)),
        (
            header(content=FOUR + ssl_tlv(7, 18, version="TLSv9", cn="\xff", cipher="?")),
            ProxyHeader(
                CLIENT,
                SERVER,
                {
                    "tls_version": None,
                    "cipher_suite": None,
                    "client_cert_name": "CN=\xff",
                    "client_cert_error": "OpenSSL verification error 18",
                },
            ),
        ),
        (with_checksum(FOUR + TLS), ProxyHeader(CLIENT, SERVER, FACTS)),
    ],
)
def test_header(data: bytes, expected: ProxyHeader) -> None:
    assert parse(data) == expected
    for end in range(len(data)):
        assert find_end(data[:end]) is None
    assert find_end(data) == find_end(data + b"GET / HTTP/1.1\r\n\r\n") == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY \r\n",
        b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
        b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 256.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP6 ::1 :: 1 x\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n\r\n",
        b"PROXY UNKNOWNx\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        header(0x22),
        header(0x11),
        header(0x31),
        header(family=0x41),
        header(family=0x13),
        header(content=FOUR[:-1]),
        header(family=0x21),
        header(family=0x31, content=bytes(215)),
        header(content=FOUR + b"\x04"),
        header(content=FOUR + tlv(4, b"abc")[:-1]),
        header(content=FOUR + tlv(0x20, b"")),
        header(content=FOUR + tlv(0x20, b"\x01\0\0")),
        header(content=FOUR + tlv(0x20, b"\x01\0\0\0\0\x21\0\xff")),
        header(content=FOUR + tlv(3, b"")),
        with_checksum(FOUR + TLS, error=1),
    ],
)
def test_malformed_header(data: bytes) -> None:
    with pytest.raises(HeaderError, match="malformed PROXY header: b'"):
        find_end(data)
        parse(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "missing PROXY header: b'GET / HTTP/1.1"),
        (b"P" + b"UT / HTTP/1.1\r\n", "missing PROXY header"),
        (b"\x16\x03\x01\x02", "missing PROXY header: b'.x16"),
        (b"\r\n\r\nGET / HTTP/1.1", "missing PROXY header"),
        (b"PROXY\r\n", "missing PROXY header"),
        (b"proxy TCP4", "missing PROXY header"),
        (b"PROXY TCP4 " + b"1" * 100, "malformed PROXY header"),
        (header(content=bytes(MAX_SIZE)), "PROXY header longer than 8192 bytes"),
    ],
)
def test_missing_header(data: bytes, reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        find_end(data)


def test_checksum() -> None:
    assert _crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@settings(deadline=None)
@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, header()[:16]]), st.binary())
def test_any_bytes(start: bytes, rest: bytes) -> None:
    try:
        end = find_end(start + rest)
        if end is not None:
            assert 0 < end <= len(start + rest)
            parse((start + rest)[:end])
    except HeaderError as error:
        assert str(error).isprintable()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_tlvs(values: bytes) -> None:
    try:
        parse(header(content=FOUR + values))
    except HeaderError as error:
        assert str(error).isprintable()


# Connections.


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Respond with the scope."""
    assert scope["type"] == "http"
    seen = {name: scope[name] for name in ("client", "server", "scheme", "path")}
    seen["tls"] = scope.get("extensions", {}).get("tls")
    await reply(send, json.dumps(seen).encode())


def told(client: Client, *pieces: bytes) -> Any:
    client.send(*pieces)
    return json.loads(client.response().body)


def test_version_1() -> None:
    with serve(tell, proxy_protocol=True) as server, Client(server) as client:
        seen = told(client, LINE + GET)
        assert (seen["client"], seen["server"]) == ([*CLIENT], [*SERVER])
        assert (seen["scheme"], seen["tls"]) == ("http", None)
        assert told(client, GET) == seen  # also for further requests on the connection


@pytest.mark.parametrize("data", [LINE, header(content=FOUR + TLS)], ids=["1", "2"])
@pytest.mark.parametrize("loop", LOOPS)
@in_loop
async def test_byte_by_byte(loop: Any, data: bytes) -> None:
    """Each byte arrives alone: the next is sent when the server has read the previous one."""
    async with Server(tell, port=0, proxy_protocol=True, timeout_head=0) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in data:
                sock.send(bytes([byte]))
                await until(lambda: unacknowledged(sock) == 0)
            sock.send(GET)
            sock.setblocking(False)
            answer = await asyncio.get_running_loop().sock_recv(sock, 65536)
            assert b'"client": ["203.0.113.9", 4711]' in answer


def unacknowledged(sock: socket.socket) -> int:
    """Return the number of bytes that the other end has not read."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def test_tls_of_the_client() -> None:
    with serve(tell, proxy_protocol=True) as server, Client(server) as client:
        seen = told(client, with_checksum(FOUR + TLS) + GET)
    assert (seen["client"], seen["scheme"]) == ([*CLIENT], "https")
    empty = {"server_cert": None, "client_cert_chain": [], "client_cert_error": None}
    assert seen["tls"] == empty | FACTS


def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    """The TLS of the connection is then the client's."""
    certificates = Certificates(tmp_path)
    options = {"ssl_certfile": certificates.certfile, "proxy_protocol": True}
    with serve(tell, **options) as server:
        for data in (LINE, header(), header(0x20)):
            raw = socket.create_connection(("127.0.0.1", server.port), 60)
            raw.sendall(data)
            with certificates.context().wrap_socket(raw, server_hostname="localhost") as sock:
                mine = [*raw.getsockname()] if raw.fileno() >= 0 else [*sock.getsockname()]
                sock.sendall(GET)
                answer = sock.recv(65536)
                while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                    answer += sock.recv(65536)
            seen = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert seen["client"] == (mine if data == header(0x20) else [*CLIENT])
            assert seen["scheme"] == "https"
            assert seen["tls"]["tls_version"] == 0x0304


def test_a_connection_of_the_proxy_itself() -> None:
    """The peer is the proxy; forwarded headers are ignored, because they may be from others."""
    field = b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    with serve(tell, proxy_protocol=True) as server:
        for data in (b"PROXY UNKNOWN\r\n", header(0x20, 0, b""), header(0x21, 0, b"")):
            with Client(server) as client:
                seen = told(client, data + GET.replace(b"\r\n\r\n", field))
                assert seen["client"] == [*client.sock.getsockname()]


def test_headers_are_trusted_by_the_address_in_the_proxy_header() -> None:
    """A TCP proxy does not remove headers that clients send."""
    request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
    with serve(tell, proxy_protocol=True) as server, Client(server) as client:
        assert told(client, LINE + request)["client"] == [*CLIENT]
    allowed = ("127.0.0.1", "203.0.113.0/24")
    options = {"proxy_protocol": True, "forwarded_allow_ips": allowed}
    with serve(tell, **options) as server, Client(server) as client:
        assert told(client, LINE + request)["client"] == ["192.0.2.1", 0]


def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    unix = header(family=0x31, content=b"/from".ljust(108, b"\0") + b"/to".ljust(108, b"\0"))
    with serve(tell, uds=path, proxy_protocol=True):
        with Client(path) as client:
            assert told(client, header() + GET)["client"] == [*CLIENT]
        with Client(path) as client:
            seen = told(client, unix + GET)
            assert (seen["client"], seen["server"]) == (None, ["/to", None])


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (GET, {}, "missing PROXY header: b'GET / HTTP/1.1"),
        (b"PROXY TCP9\r\n" + GET, {}, "malformed PROXY header: b'PROXY TCP9"),
        (header(0x2F), {}, "malformed PROXY header: b'"),
        (LINE + GET, {"forwarded_allow_ips": ("10.0.0.1",)}, "PROXY header refused"),
        (GET, {"forwarded_allow_ips": ("10.0.0.1",)}, "PROXY header refused"),
        (GET, {"forwarded_allow_ips": ()}, "PROXY header refused"),
    ],
)
def test_refused_connection(
    data: bytes, options: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        serve(hello, lifespan="off", proxy_protocol=True, **options) as server,
        Client(server) as client,
    ):
        answer = client.response(data)
        assert (answer.status, answer.fields["connection"]) == (400, "close")
        assert client.rest() == b""
        peer = "{}:{}".format(*client.sock.getsockname())
    (line,) = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert line.startswith(f"{peer}: {reason}")
    assert line.removeprefix(f"{peer}: ") in answer.body.decode()


def test_refused_connection_with_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(tmp_path)
    options = {"ssl_certfile": certificates.certfile, "proxy_protocol": True}
    refused = pytest.raises((ssl.SSLError, ConnectionError))
    with serve(hello, lifespan="off", **options) as server, refused:
        Client(server, certificates.context())
    assert [": missing PROXY header: b" in line for line in caplog.messages] == [True]


def test_incomplete_header(caplog: pytest.LogCaptureFixture) -> None:
    with serve(hello, lifespan="off", proxy_protocol=True) as server:
        with Client(server):
            pass  # a port scan
        with Client(server) as client:
            client.send(LINE[:20])
            client.half_close()
            assert client.head()[0] == 400
        with Client(server) as client:
            assert client.response(LINE + GET).body == b"hello"
    assert [": connection closed within the PROXY header" in line for line in caplog.messages] == [
        True
    ]


def test_header_timeout(caplog: pytest.LogCaptureFixture) -> None:
    with (
        serve(hello, lifespan="off", proxy_protocol=True, timeout_head=0.05) as server,
        Client(server) as client,
    ):
        client.send(LINE[:20])
        assert client.head()[0] == 400
        assert client.rest().endswith(b"no PROXY header within 0.05 s (--timeout-head)\n")
    assert [": no PROXY header within 0.05 s" in line for line in caplog.messages] == [True]


def test_a_stop_does_not_wait_for_headers() -> None:
    with serve(hello, lifespan="off", proxy_protocol=True, timeout_head=0) as server:
        client = Client(server)
        client.send(LINE[:5])
        with Client(server) as other:
            assert other.response(LINE + GET).status == 200
    assert client.rest() == b""
    client.close()


def test_websocket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{scope['client']} {scope['scheme']}"})

    with serve(app, lifespan="off", proxy_protocol=True) as server, Client(server) as client:
        client.send(header(content=FOUR + TLS) + handshake())
        assert client.head()[0] == 101
        assert client.file.read(2 + 25)[2:] == b"('203.0.113.9', 4711) wss"
