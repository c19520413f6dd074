"""Rules of RFC 9113 and RFC 7541: what the server answers to each violation, with its error code.

docs/http2.md lists the sections.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, SettingsFrame

from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import PREFACE, ErrorCode

from .cases import (
    CLOSED,
    DATA,
    END,
    FRAMES,
    GROW,
    NO,
    PING,
    PRIORITY,
    PROTOCOL,
    READ,
    RST,
    SETTINGS,
    SIZE,
    WINDOW,
    Case,
    get,
    number,
    request,
    setting,
    upload,
)
from .cases_messages import ATTACKS, MESSAGES
from .client import GET, Client, raw

CASES = FRAMES + MESSAGES + ATTACKS


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/wait":
        await receive()
        await receive()
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def client() -> Iterator[Client]:
    with simulated(app) as server:
        yield Client(server)
        server.server.stop()


#: Data beyond this size is sent whole.
MAX_CUT = 2000
CUTS = [("whole", 0), ("bytes", 1), ("sevens", 7)]


@pytest.mark.parametrize(
    ("case", "cut"),
    [
        pytest.param(case, cut, id=f"{name}-{case.section} {case.rule}")
        for name, cut in CUTS
        for case in CASES
        if not cut or len(case.data) <= MAX_CUT
    ],
)
def test_rule(client: Client, case: Case, cut: int) -> None:
    size = cut or len(case.data)
    for start in range(0, len(case.data), size):
        client.send(case.data[start : start + size])
        if client.goaway:
            break
    assert client.goaway is case.goaway or (client.goaway is NO and case.goaway is None)
    if case.goaway is not None:
        assert client.closed
        assert "HTTP/2 " + case.goaway.name in client.simulation.records[-1].getMessage()
        client.send(b"x" * 100)
        assert not client.peer.is_reset  # the client might lose the GOAWAY
        return
    resets = [code for code in [client.reset(1)] if code is not NO]
    assert resets == [case.reset] or (case.reset is None and resets == [None])
    assert client.status(1) == case.status or case.reset is not None
    if not client.goaway:
        before = 1001
        client.send(get(before))
        assert client.status(before) == 200  # other streams are not affected


@pytest.mark.parametrize(
    "data",
    [
        PREFACE[:20] + b"XX\r\n",
        PREFACE + raw(PING, 0, 0, b"x" * 8),
        PREFACE + raw(SETTINGS, 1, 0),
        PREFACE + get(),
        PREFACE + raw(SETTINGS, 0, 0, b"\0" * 5)[:-5] + b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_section_3_4_preface(data: bytes) -> None:
    with simulated(app) as server:
        client = Client(server, greet=False).send(data)
        assert client.goaway in (PROTOCOL, SIZE)
        assert client.closed


def test_section_5_1_closed_stream(client: Client) -> None:
    client.send(get())
    assert client.ended(1)
    client.send(END)
    assert client.goaway is CLOSED


@pytest.mark.parametrize(
    "data",
    [raw(RST, 0, 1, number(0)), raw(WINDOW, 0, 1, number(0)), GROW, raw(PRIORITY, 0, 1, b"\0" * 5)],
)
def test_section_5_1_late_frames(client: Client, data: bytes) -> None:
    """The client may have sent them before it has received the end of the response."""
    client.send(get())
    assert client.ended(1)
    client.send(data, get(3))
    assert client.ended(3)
    assert client.reset(1) is client.goaway is None


def test_section_5_1_data_after_trailers(client: Client) -> None:
    client.send(upload(), get(1, b"\0\1a\1b"))
    assert client.ended(1)
    client.send(END)
    assert client.goaway is CLOSED


def test_section_5_1_1_closed_stream_is_not_used_again(client: Client) -> None:
    client.send(get()).send(get())
    assert client.goaway is CLOSED


def test_section_6_5_3_acknowledgement(client: Client) -> None:
    before = len(client.of(SettingsFrame))
    client.send(setting(4, 1000) * 3)
    assert len(client.of(SettingsFrame)) == before + 3


def test_section_6_8_last_stream(client: Client) -> None:
    client.send(get(1), get(7), raw(PING, 0, 1, b"x" * 8))
    assert client.of(GoAwayFrame)[-1].last_stream_id == 7


def test_section_5_4_2_data_of_a_stream_with_an_error_is_ignored(client: Client) -> None:
    client.send(request(*READ, ("content-length", "1"), end_stream=False))
    client.send(raw(DATA, 0, 1, b"ab"), raw(DATA, 0, 1, b"cd"), END)
    assert len(client.of(RstStreamFrame, 1)) == 1
    assert client.ping()


def test_section_7_error_codes() -> None:
    codes = {code.name: code.value for code in ErrorCodes}
    assert {code.name: code.value for code in ErrorCode}.items() <= codes.items()


def test_section_8_1_request_headers_are_decoded_after_an_error(client: Client) -> None:
    """The table stays the same on both sides after a malformed request."""
    client.send(client.headers(1, [*GET, ("Upper", "x"), ("later", "value")], "END_STREAM"))
    assert client.reset(1) is PROTOCOL
    client.get(3, ("later", "value"))
    assert client.status(3) == 200


def test_floods_that_are_none(client: Client) -> None:
    """What a client may do often, because requests, bodies and responses pay for it."""
    for stream_id in range(1, 2001, 2):
        client.send(get(stream_id), raw(PING, 0, 0, b"x" * 8))
        client.send(raw(RST, 0, stream_id, number(8)))
    assert client.goaway is None
    assert len([frame for frame in client.of(DataFrame) if "END_STREAM" in frame.flags]) == 1000


def test_the_page_lists_all_sections() -> None:
    page = (Path(__file__).parents[3] / "docs" / "http2.md").read_text(encoding="utf-8")
    rules = page.partition("\n## Rules\n")[2]
    for section in {case.section for case in CASES}:
        rfc, _, number = f"9113 {section}".rpartition(" ")
        lines = [line for line in rules.splitlines() if f"§{number}" in line]
        assert lines, section
        assert rfc == "9113" or any(f"RFC {rfc.split()[-1]}" in line for line in lines)
