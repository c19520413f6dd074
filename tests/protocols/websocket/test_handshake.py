"""Opening handshake: validation and response headers."""

import pytest

from tinyasgi.http.parsers import BadRequest
from tinyasgi.protocols.websocket.handshake import read_handshake

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
OFFER = (b"sec-websocket-extensions", b"permessage-deflate")


def test_example_of_the_rfc() -> None:
    assert read_handshake([KEY, VERSION], True).response_headers(None, []) == [
        (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")  # RFC 6455 §1.3
    ]


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"dGhlIHNhbXBsZSBub25jZQ",  # no padding
        b"dGhlIHNhbXBsZSBub25jZQ==\n",
        b"dGhlIHNhbXBsZSBub25j",  # 15 bytes
        b"dGhlIHNhbXBsZSBub25jZQAA",  # 18 bytes
        b"dGhlIHNhbXBs ZSBub25jZQ==",
        b"\xff" * 24,
        b"dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_invalid_key(key: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_handshake([(b"sec-websocket-key", key), VERSION], True)
    assert refused.value.status == 400


def test_repeated_key() -> None:
    with pytest.raises(BadRequest) as refused:
        read_handshake([KEY, KEY, VERSION], True)
    assert refused.value.status == 400


@pytest.mark.parametrize("versions", [[], [b"8"], [b"13", b"13"], [b"13, 8"], [b"013"]])
def test_unsupported_version(versions: list[bytes]) -> None:
    with pytest.raises(BadRequest) as refused:
        read_handshake([KEY, *[(b"sec-websocket-version", value) for value in versions]], True)
    assert refused.value.status == 426


def test_subprotocols() -> None:
    fields = [KEY, VERSION, (b"sec-websocket-protocol", b"chat,superchat ,, x")]
    handshake = read_handshake([*fields, (b"sec-websocket-protocol", b"y")], True)
    assert handshake.subprotocols == ["chat", "superchat", "x", "y"]
    assert (b"sec-websocket-protocol", b"superchat") in handshake.response_headers("superchat", [])
    with pytest.raises(ValueError, match="'z'"):
        handshake.response_headers("z", [])


def test_compression_is_accepted() -> None:
    answer = dict(read_handshake([KEY, VERSION, OFFER], True).response_headers(None, []))
    assert answer[b"sec-websocket-extensions"].startswith(b"permessage-deflate;")


@pytest.mark.parametrize(("offered", "allowed"), [(True, False), (False, True)])
def test_no_compression(offered: bool, allowed: bool) -> None:
    handshake = read_handshake([KEY, VERSION, *([OFFER] if offered else [])], allowed)
    assert handshake.deflate is None
    assert b"sec-websocket-extensions" not in dict(handshake.response_headers(None, []))


def test_headers_of_the_app() -> None:
    handshake = read_handshake([KEY, VERSION], True)
    assert (b"set-cookie", b"a=b") in handshake.response_headers(None, [(b"set-cookie", b"a=b")])
    with pytest.raises(ValueError, match="Sec-WebSocket-Protocol"):
        handshake.response_headers(None, [(b"Sec-WebSocket-Protocol", b"chat")])
