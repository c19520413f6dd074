"""The PROXY protocol, versions 1 and 2: a header at the start of a connection names the client.

Specification: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

import asyncio
import os
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..http.client import ClientInfo, peer_address, peer_name
from ..peek import peek
from ..tls import certificate
from ..tls.extension import TLSExtension, cipher_suite, version
from ..typing import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Maximum size of a header of version 1, in bytes (§2.1).
MAX_LINE = 107
#: Maximum size of a header of version 2, in bytes. The format allows 64 KiB; proxies send less.
MAX_SIZE = 8192

_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) %b %b)\r\n"
    % (_PORT, _PORT)
)

# Version 2: version with command, address families, layouts of the addresses, types of TLVs.
LOCAL, PROXY = 0x20, 0x21
INET, INET6, UNIX = 1, 2, 3
FAMILIES = {INET: socket.AF_INET, INET6: socket.AF_INET6}
LAYOUTS = {
    family: struct.Struct(layout)
    for family, layout in ((INET, "!4s4sHH"), (INET6, "!16s16sHH"), (UNIX, "!108s108s"))
}
STREAM = 1
CRC32C, SSL, SSL_VERSION, SSL_CN, SSL_CIPHER = 0x03, 0x20, 0x21, 0x22, 0x23
#: Bits of the client field of the SSL TLV: the client uses TLS; it has sent a certificate.
CLIENT_SSL, CLIENT_CERT = 0x01, 0x06


class HeaderError(Exception):
    """A missing or malformed header. The message contains only printable characters."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A parsed header. `server` is None for requests of the proxy itself, such as health checks."""

    client: Address | None = None
    """Address of the client; None on a unix socket."""
    server: tuple[str, int | None] | None = None
    tls: dict[str, Any] | None = None
    """TLS of the client, with the keys of the ASGI extension `tls`; None without TLS."""

    def replace(self, peer: ClientInfo) -> ClientInfo:
        """Return the peer of the connection: `peer` with the addresses of this header."""
        if self.server is None:  # untrusted: the proxy may forward headers from others
            return replace(peer, address=None)
        scope = peer.scope | {"client": self.client, "server": self.server}
        if self.tls is not None:
            scope["scheme"] = "https"
            scope["extensions"] = peer.scope["extensions"] | {"tls": TLSExtension(**self.tls)}
        address = peer_address(self.client, unix=False)  # a unix socket of the proxy is not trusted
        return ClientInfo(scope, peer_name(self.client, unix=self.client is None), address)


async def read(sock: socket.socket) -> ProxyHeader | None:
    """Read a header and leave the bytes after it in the socket.

    Return None if the peer closes the connection without sending anything. Raises HeaderError and
    OSError.
    """
    data = bytearray()
    while True:
        peeked = await peek(sock, MAX_SIZE - len(data))
        if not peeked:
            if data:
                raise HeaderError("connection closed within the PROXY header")
            return None
        previous = len(data)
        data += peeked
        end = find_end(data)
        sock.recv(len(peeked) if end is None else end - previous)
        if end is not None:
            return parse(bytes(data[:end]))


async def refuse(sock: socket.socket, response: bytes) -> None:
    """Send an error response and wait until the peer closes the connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, response)
    sock.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(sock, 65536):
        pass


def find_end(data: bytes | bytearray) -> int | None:
    """Return the length of the header at the start of the data; None if it is incomplete.

    Raises HeaderError if the data does not begin with a header.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        if len(data) < 16:
            return None
        end = 16 + int.from_bytes(data[14:16])
        if end > MAX_SIZE:
            raise HeaderError(f"PROXY header longer than {MAX_SIZE} bytes")
        return end if end <= len(data) else None
    if not data.startswith(b"PROXY "[: len(data)]):
        raise HeaderError(f"missing PROXY header: {bytes(data[:40])!r}")
    end = data.find(b"\r\n", 0, MAX_LINE) + 2
    if end < 2 and len(data) >= MAX_LINE:
        raise _malformed(data)
    return end if end >= 2 else None


def parse(data: bytes) -> ProxyHeader:
    """Parse a complete header. Raises HeaderError."""
    try:
        return _parse_2(data) if data.startswith(SIGNATURE) else _parse_1(data)
    except (ValueError, OSError, struct.error):
        raise _malformed(data) from None


def _malformed(data: bytes | bytearray) -> HeaderError:
    return HeaderError(f"malformed PROXY header: {bytes(data[:MAX_LINE])!r}")


def _parse_1(data: bytes) -> ProxyHeader:
    match = _LINE.fullmatch(data)
    if match is None:
        raise ValueError
    if match[1] is None:
        return ProxyHeader()
    family = socket.AF_INET if match[1] == b"4" else socket.AF_INET6
    hosts = [socket.inet_pton(family, match[group].decode()) for group in (2, 3)]
    return _ip_header(family, hosts, [int(match[4]), int(match[5])])


def _ip_header(
    family: int, hosts: Sequence[bytes], ports: Sequence[int], tls: dict[str, Any] | None = None
) -> ProxyHeader:
    """Return a header for the hosts and ports of client and server, in this order."""
    if max(ports) > 65535:
        raise ValueError
    client, server = zip([socket.inet_ntop(family, host) for host in hosts], ports, strict=True)
    return ProxyHeader(client, server, tls)


def _parse_2(data: bytes) -> ProxyHeader:
    command, family, protocol = data[12], data[13] >> 4, data[13] & 15
    if command == LOCAL:
        return ProxyHeader()
    if command != PROXY or family > UNIX or protocol > 2:
        raise ValueError
    if not family or protocol != STREAM:
        return ProxyHeader()
    addresses = LAYOUTS[family].unpack_from(data, 16)
    tls = None
    for position, kind, value in _parse_tlvs(data, 16 + LAYOUTS[family].size):
        if kind == CRC32C:
            blank = data[:position] + bytes(4) + data[position + 4 :]
            if value != _crc32c(blank).to_bytes(4):
                raise ValueError
        elif kind == SSL:
            tls = _parse_tls(value)
    if family == UNIX:
        return ProxyHeader(None, (os.fsdecode(addresses[1].partition(b"\0")[0]), None), tls)
    return _ip_header(FAMILIES[family], addresses[:2], addresses[2:], tls)


def _parse_tlvs(data: bytes, position: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield offset, type and value of each type-length-value vector. Raises ValueError."""
    while position < len(data):
        kind, length = struct.unpack_from("!BH", data, position)
        position += 3
        if position + length > len(data):
            raise ValueError
        yield position, kind, data[position : position + length]
        position += length


def _parse_tls(data: bytes) -> dict[str, Any] | None:
    """Parse the SSL TLV; return None if the client does not use TLS."""
    client, verified = struct.unpack_from("!BL", data)
    if not client & CLIENT_SSL:
        return None
    texts = {kind: value.decode(errors="replace") for _, kind, value in _parse_tlvs(data, 5)}
    facts: dict[str, Any] = {
        "tls_version": version(texts.get(SSL_VERSION, "")),
        "cipher_suite": cipher_suite(texts.get(SSL_CIPHER, "")),
    }
    if client & CLIENT_CERT:
        if SSL_CN in texts:
            facts["client_cert_name"] = "CN=" + certificate.escape(texts[SSL_CN])
        if verified != 0:
            facts["client_cert_error"] = f"OpenSSL verification error {verified}"
    return facts


def _crc32c(data: bytes) -> int:
    """Return the checksum of RFC 4960, appendix B."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF
