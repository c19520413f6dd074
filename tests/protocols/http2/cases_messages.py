"""Cases of the conformance of HTTP/2: requests, header blocks, and floods."""

from .cases import (
    ABORTED,
    BLOCK,
    CALM,
    COMPRESSION,
    DATA,
    END,
    END_HEADERS,
    EVICTED,
    PING,
    PRIORITY,
    READ,
    RST,
    SETTINGS,
    WAIT,
    WINDOW,
    fatal,
    fine,
    get,
    number,
    request,
    setting,
    stream,
    upload,
    with_field,
)
from .client import GET, raw

MESSAGES = [
    # Messages.
    stream("8.1", "trailers without END_STREAM", upload() + get(1, b"\0\1a\1b", END_HEADERS)),
    stream("8.1", "a pseudo-header in trailers", upload() + get(1, b"\x82")),
    stream("8.2.2", "connection in trailers", upload() + get(1, b"\0\x0aconnection\1b")),
    fine("8.1", "trailers", upload() + get(1, b"\0\1a\1b"), 200),
    stream(
        "8.1.1",
        "a body longer than its length",
        request(*READ, ("content-length", "1"), end_stream=False) + raw(DATA, 0, 1, b"ab"),
    ),
    stream(
        "8.1.1",
        "a body shorter than its length",
        request(*READ, ("content-length", "2"), end_stream=False) + raw(DATA, 1, 1, b"a"),
    ),
    stream("8.1.1", "no body although it has a length", request(*READ, ("content-length", "2"))),
    stream(
        "8.1.1",
        "different lengths",
        request(*READ, ("content-length", "2"), ("content-length", "3")),
    ),
    stream("8.1.1", "an invalid length", request(*READ, ("content-length", "+1"))),
    *[
        stream("8.1.1", f"the length {value!r}", request(*READ, ("content-length", value)))
        for value in ("", "-1", "0x1", "1.0", "1, 1", "9" * 30)
    ],
    fine("8.1.1", "a length of 0", request(*READ, ("content-length", "0")), 200),
    stream(
        "8.1.1",
        "a body although its length is 0",
        request(*READ, ("content-length", "0"), end_stream=False) + raw(DATA, 1, 1, b"a"),
    ),
    stream(
        "8.1.1",
        "several frames shorter than the length",
        request(*READ, ("content-length", "3"), end_stream=False) + raw(DATA, 0, 1, b"a") * 2 + END,
    ),
    stream(
        "8.1.1",
        "trailers before the whole length",
        request(*READ, ("content-length", "3"), end_stream=False) + get(1, b"\0\1a\1b"),
    ),
    fine(
        "8.1.1",
        "padding is not part of the length",
        request(*READ, ("content-length", "1"), end_stream=False) + raw(DATA, 9, 1, b"\2a\0\0"),
        200,
    ),
    # Headers.
    stream("8.2.1", "an upper-case name", with_field("X-Name", "y")),
    stream("8.2.1", "an empty name", with_field("", "y")),
    stream("8.2.1", "a space in a name", with_field("a b", "y")),
    stream("8.2.1", "a colon in a name", with_field("a:b", "y")),
    stream("8.2.1", "a byte above 127 in a name", with_field("a\xe4", "y")),
    stream("8.2.1", "NUL in a value", with_field("a", "b\0")),
    stream("8.2.1", "CR in a value", with_field("a", "b\rc")),
    stream("8.2.1", "LF in a value", with_field("a", "b\nc")),
    stream("8.2.1", "a space before a value", with_field("a", " b")),
    stream("8.2.1", "a tab after a value", with_field("a", "b\t")),
    stream("8.2.1", "DEL in a name", with_field("a\x7f", "b")),
    stream("8.2.1", "NUL in a name", with_field("a\0", "b")),
    stream("8.2.1", "LF in a name", with_field("a\n", "b")),
    stream("8.2.1", "an upper-case name of a known header", with_field("Content-Length", "0")),
    stream("8.2.1", "NUL alone as a value", with_field("a", "\0")),
    fine("8.2.1", "spaces and tabs within a value", with_field("a", "b \t c"), 200),
    fine("8.2.1", "an empty value", with_field("a", ""), 200),
    fine("8.2.1", "bytes above 127 in a value", with_field("a", "\xe4\xff"), 200),
    *[
        stream("8.2.2", f"the header {name}", with_field(name, "close"))
        for name in (
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        )
    ],
    stream("8.2.2", "te with another value", with_field("te", "gzip")),
    fine("8.2.2", "te: trailers", with_field("te", "trailers"), 200),
    stream("8.2.2", "te with trailers and another value", with_field("te", "trailers, gzip")),
    stream("8.2.2", "an empty te", with_field("te", "")),
    # Pseudo-headers.
    stream("8.3", "an unknown pseudo-header", with_field(":unknown", "x")),
    stream("8.3", "a pseudo-header of responses", with_field(":status", "200")),
    stream("8.3", "a pseudo-header after a header", request(*GET[:3], ("a", "b"), GET[3])),
    stream("8.3", "an empty pseudo-header", with_field(":", "x")),
    stream("8.3", "an upper-case pseudo-header", request((":Method", "GET"), *GET[1:])),
    *[
        stream("8.3.1", f"no {name}", request(*[field for field in GET if field[0] != name]))
        for name in (":method", ":scheme", ":path")
    ],
    *[stream("8.3.1", f"{field[0]} twice", request(*GET, field)) for field in GET],
    *[
        stream("8.3.1", f"the scheme {value!r}", request(GET[0], (":scheme", value), *GET[2:]))
        for value in ("", "ht tp", "http\0", "http\n", "9p", "http/")
    ],
    stream("8.3.1", "an empty path", request(*GET[:3], (":path", ""))),
    stream("8.3.1", "a path without a slash", request(*GET[:3], (":path", "a"))),
    stream("8.3.1", "an absolute target", request(*GET[:3], (":path", "http://here/"))),
    stream("8.3.1", "a space in the path", request(*GET[:3], (":path", "/a b"))),
    stream("8.3.1", "a fragment in the path", request(*GET[:3], (":path", "/a#b"))),
    stream("8.3.1", "only a query", request(*GET[:3], (":path", "?a=b"))),
    stream("8.3.1", "NUL in the path", request(*GET[:3], (":path", "/\0"))),
    stream("8.3.1", "DEL in the path", request(*GET[:3], (":path", "/\x7f"))),
    stream("8.3.1", "LF in the path", request(*GET[:3], (":path", "/a\nb"))),
    stream("8.3.1", "* with GET", request(*GET[:3], (":path", "*"))),
    fine("8.3.1", "OPTIONS *", request((":method", "OPTIONS"), *GET[1:3], (":path", "*")), 200),
    stream("8.3.1", "an invalid method", request((":method", "G T"), *GET[1:])),
    stream("8.3.1", "an empty method", request((":method", ""), *GET[1:])),
    stream("8.3.1", "user information", request(*GET[:2], (":authority", "me@here"), GET[3])),
    stream("8.3.1", "an empty authority", request(*GET[:2], (":authority", ""), GET[3])),
    *[
        stream(
            "8.3.1", f"the authority {value!r}", request(*GET[:2], (":authority", value), GET[3])
        )
        for value in ("a b", "here:x", "[::1", "a/b", "a,b", "@here")
    ],
    *[
        fine(
            "8.3.1", f"the authority {value}", request(*GET[:2], (":authority", value), GET[3]), 200
        )
        for value in ("here:80", "[::1]:80", "HERE")
    ],
    stream("8.3.1", "Host twice", request(*GET[:2], GET[3], ("host", "a"), ("host", "a"))),
    fine("8.3.1", "another scheme", request(GET[0], (":scheme", "https"), *GET[2:]), 200),
    stream("8.3.1", "Host differs from :authority", request(*GET, ("host", "there"))),
    fine("8.3.1", "Host is the same as :authority", request(*GET, ("host", "HERE")), 200),
    fine("8.3.1", "Host without :authority", request(*GET[:2], GET[3], ("host", "here")), 200),
    fine("8.3.1", "neither Host nor :authority", request(*GET[:2], GET[3]), 400),
    stream("8.5", "CONNECT with a path", request((":method", "CONNECT"), *GET[1:])),
    stream("8.5", "CONNECT without :authority", request((":method", "CONNECT"))),
    stream("8.5", "CONNECT with a scheme", request((":method", "CONNECT"), *GET[1:3])),
    fine("8.5", "CONNECT", request((":method", "CONNECT"), (":authority", "here:443")), 501),
    # HPACK.
    stream("8.1.1", "one byte announced, no body", request(*GET, ("content-length", "1"))),
    fatal("7541 2.3.3", "index 0", get(1, b"\x80"), COMPRESSION),
    fatal("7541 2.3.3", "index 0 before others", get(1, b"\x80\1a\1b" + BLOCK), COMPRESSION),
    fatal("7541 2.3.3", "an index beyond the table", get(1, b"\xff\x00"), COMPRESSION),
    fatal("7541 2.3.3", "a name beyond the table", get(1, b"\x7f\x00\x01a"), COMPRESSION),
    fatal("7541 2.3.3", "a name beyond it, not indexed", get(1, b"\x0f\x2f\x01a"), COMPRESSION),
    fatal("7541 2.3.3", "a name beyond it, never indexed", get(1, b"\x1f\x2f\x01a"), COMPRESSION),
    fatal("7541 2.3.3", "the first index of an empty table", get(1, b"\xbe"), COMPRESSION),
    fine("7541 4.2", "a table size of 0, then 4,096", get(1, b"\x20\x3f\xe1\x1f" + BLOCK), 200),
    fatal("7541 4.2", "a size update after a field", get(1, BLOCK + b"\x20"), COMPRESSION),
    stream("7541 4.2", "only a size update", get(1, b"\x20")),
    fatal("7541 4.2", "an incomplete size update", get(1, b"\x3f"), COMPRESSION),
    fatal("7541 4.2", "an entry that a size update has evicted", EVICTED, COMPRESSION),
    fatal("7541 5.1", "an integer that does not end", get(1, b"\xff" + b"\x80" * 20), COMPRESSION),
    fatal("7541 5.1", "a large integer", get(1, b"\xff" + b"\xff" * 9 + b"\1"), COMPRESSION),
    fatal("7541 5.2", "padding of 8 bits", get(1, b"\0\x82\x1f\xff\1a"), COMPRESSION),
    fatal("7541 5.2", "padding with zeros", get(1, b"\0\x81\x18\1a"), COMPRESSION),
    fatal("7541 5.2", "EOS in a string", get(1, b"\0\x84\xff\xff\xff\xff\1a"), COMPRESSION),
    fatal("7541 5.2", "a string beyond the block", get(1, b"\0\x05ab"), COMPRESSION),
    fatal("7541 5.2", "no value", get(1, BLOCK + b"\0\1a"), COMPRESSION),
    fatal("7541 5.2", "an invalid string in trailers", upload() + get(1, b"\0\5a"), COMPRESSION),
    fatal("7541 6.3", "a table of 4,097 bytes", get(1, b"\x3f\xe2\x1f" + BLOCK), COMPRESSION),
    fatal("7541 6.3", "the same, then a smaller one", get(1, b"\x3f\xe2\x1f\x20"), COMPRESSION),
    fine("7541 6.2.3", "a field that is never indexed", get(1, BLOCK + b"\x10\1a\1b"), 200),
    # Extended CONNECT.
    stream("8441 4", ":protocol without CONNECT", request(*GET, (":protocol", "websocket"))),
    stream(
        "8441 4",
        ":protocol twice",
        request((":method", "CONNECT"), *GET[1:], *[(":protocol", "websocket")] * 2),
    ),
    stream(
        "8441 4",
        ":protocol without :scheme",
        request((":method", "CONNECT"), *GET[2:], (":protocol", "websocket")),
    ),
    fatal("8441 3", "ENABLE_CONNECT_PROTOCOL of 2", setting(8, 2)),
    fine("8441 3", "ENABLE_CONNECT_PROTOCOL of 1", setting(8, 1) + get(), 200),
    fine("9218 7.1", "PRIORITY_UPDATE is ignored", raw(16, 0, 0, number(1) + b"u=1") + get(), 200),
    fine("9218 7.1", "the header priority is ignored", with_field("priority", "u=9, i=?"), 200),
    stream(
        "8441 4",
        ":protocol without :path",
        request((":method", "CONNECT"), *GET[1:3], (":protocol", "websocket")),
    ),
    fine(
        "8441 4",
        "an unknown protocol",
        request((":method", "CONNECT"), *GET[1:], (":protocol", "x")),
        501,
    ),
]
ATTACKS = [
    fatal("10.5", "CONTINUATION without end", get(1, b"", 1) + raw(9, 0, 1) * 40, CALM),
    fatal(
        "10.5",
        "a header block without end",
        get(1, b"", 1) + raw(9, 0, 1, b"\0" * 16_000) * 20,
        CALM,
    ),
    fatal("10.5", "a field in each byte", get(1, BLOCK + b"\x40\1a\1b" + b"\xbe" * 16_000), CALM),
    fine("10.5", "one field many times", get(1, BLOCK + b"\x40\1a\1b" + b"\xbe" * 4000), 431),
    fine("10.5", "one cookie many times", get(1, BLOCK + b"\x60\3a=b" + b"\xbe" * 4000), 431),
    fine(
        "10.5",
        "a large field many times",
        get(1, BLOCK + b"\x40\1a\x7f\x81\x1e" + b"x" * 4000 + b"\xbe" * 4000),
        431,
    ),
    fatal("10.5", "PING flood", raw(PING, 0, 0, b"x" * 8) * 2000, CALM),
    fatal("10.5", "SETTINGS flood", raw(SETTINGS, 0, 0) * 2000, CALM),
    fine("10.5", "the most settings", raw(SETTINGS, 0, 0, b"\0\4\0\0\1\0" * 32) + get(), 200),
    fatal("10.5", "many settings", raw(SETTINGS, 0, 0, b"\0\4\0\0\1\0" * 33), CALM),
    fatal("10.5", "trailers after RST_STREAM", ABORTED + get(1, b"\0\1a\1b") * 2000, CALM),
    fatal("10.5", "END_STREAM after RST_STREAM", ABORTED + END * 2000, CALM),
    fatal("10.5", "PRIORITY flood", raw(PRIORITY, 0, 1, b"\0" * 5) * 2000, CALM),
    fatal("10.5", "WINDOW_UPDATE flood", raw(WINDOW, 0, 0, number(1)) * 2000, CALM),
    fatal("10.5", "empty DATA flood", upload() + raw(DATA, 0, 1) * 2000, CALM),
    fatal("10.5", "padded empty DATA flood", upload() + raw(DATA, 8, 1, b"\1\0") * 2000, CALM),
    fatal("10.5", "unknown frames", raw(0x16, 0, 0) * 2000, CALM),
    fatal(
        "10.5",
        "rapid reset",
        b"".join(get(i, WAIT) + raw(RST, 0, i, number(8)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal(
        "10.5",
        "rapid reset of uploads",
        b"".join(upload(i) + raw(RST, 0, i, number(8)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal(
        "10.5",
        "resets by the server",
        b"".join(upload(i) + raw(WINDOW, 0, i, number(0)) for i in range(1, 999, 2)),
        CALM,
    ),
    fatal("10.5", "malformed requests", b"".join(get(i, b"\x82") for i in range(1, 999, 2)), CALM),
    fatal("10.5", "refused streams", b"".join(upload(i) for i in range(1, 999, 2)), CALM),
]
