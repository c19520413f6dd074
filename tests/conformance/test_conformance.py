"""Each row of the table, with both parsers: in one read, byte by byte, and cut at random."""

import asyncio
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.properties import profile
from tinyasgi.http import parsers
from tinyasgi.testing import MemoryConnection, connect

from .table import ANSWER, CONTINUE, ROWS, App, Row, Seen

DOCS = Path(__file__).resolve().parents[2] / "docs" / "http.md"

PARSERS = ("h11", "httptools")
# Ways to cut the bytes of a row into reads. A digit in the name is the seed.
CUTS = WHOLE, BYTES, *_ = "whole", "bytes", "random 1", "random 2"

HEAD = re.compile(rb"(HTTP/1\.1 \d{3} [^\r\n]*\r\n)((?:[^\r\n]+\r\n)*)\r\n")
REFUSAL = re.compile(
    rb"HTTP/1\.1 (?P<status>\d{3}) [A-Za-z -]+\r\n"
    rb"connection: close\r\n"
    rb"content-length: (?P<length>\d+)\r\n"
    rb"content-type: text/plain; charset=utf-8\r\n"
    rb"(?P<retry>retry-after: \d+\r\n)?"
    rb"\r\n"
    rb"(?P<body>[ -~]*\n|)"
)


def in_order(responses: bytes) -> bytes:
    """Sort the headers of each head by name, because their order has no meaning."""

    def sort(head: re.Match[bytes]) -> bytes:
        lines = head[2].splitlines(keepends=True)
        return head[1] + b"".join(sorted(lines, key=lambda line: line.split(b":")[0])) + b"\r\n"

    return HEAD.sub(sort, responses)


@dataclass
class Outcome:
    """The result of a series of reads."""

    seen: list[Seen]
    sent: bytes
    ends: str


def recorded(app: App, seen: list[Seen]) -> App:
    """Wrap the app to record the requests that it sees."""

    async def recorder(scope: Any, receive: Any, send: Any) -> None:
        request = Seen(
            scope["method"],
            scope["path"],
            scope["raw_path"],
            scope["query_string"],
            version=scope["http_version"],
            headers=list(scope["headers"]),
            body=None,
        )
        seen.append(request)
        body = b""

        async def recorded_receive() -> Any:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    request.body = body
            return message

        await app(scope, recorded_receive, send)

    return recorder


async def play(row: Row, http: str, reads: Iterable[bytes]) -> Outcome:
    """Run a row with these reads."""
    seen: list[Seen] = []
    options = {"date_header": False, "server_header": False, **row.options}

    def outcome(connection: MemoryConnection) -> Outcome:
        ends = "aborted" if connection.aborted else "closed" if connection.closed else "open"
        return Outcome([replace(request) for request in seen], bytes(connection.sent), ends)

    async with connect(recorded(row.app, seen), http=http, **options) as connection:
        await connection.feed(*reads)
        if row.eof:
            await connection.eof()
        before, after = None, outcome(connection)
        while before != after:
            await connection.settle()
            before, after = after, outcome(connection)
        return after


def cut(row: Row, how: str) -> list[bytes]:
    """Return the reads of a row. A long step is cut into a thousand pieces instead of bytes."""
    chance = random.Random(row.name + how)
    steps = [row.reads] if isinstance(row.reads, bytes) else row.reads
    stride = 1 + sum(map(len, steps)) // 1000
    reads = []
    for step in steps:
        size = len(step)
        if how == WHOLE:
            places = []
        elif how == BYTES:
            places = list(range(0, size, stride))
        else:
            places = chance.sample(range(size), min(size, chance.randint(1, 9)))
        edges = sorted({0, *places, size})
        reads += [step[begin:end] for begin, end in pairwise(edges)]
    return reads


def without_refused(seen: Sequence[Seen]) -> list[Seen]:
    """Remove a request whose body was refused. Whether the app sees it depends on the cuts."""
    return list(seen[:-1] if seen and seen[-1].body is None else seen)


def check(row: Row, outcome: Outcome, how: str) -> None:
    """Check the result of a row."""
    *_, answer = (b"", *row.sends)
    for actual, expected in zip(outcome.seen, row.sees, strict=False):
        if expected.headers is None:
            actual.headers = None
    if isinstance(answer, int) and len(outcome.seen) < len(row.sees):
        assert outcome.seen == without_refused(row.sees), how
    else:
        assert outcome.seen == list(row.sees), how
    certain = in_order(b"".join(answer for answer in row.sends if isinstance(answer, bytes)))
    sent = in_order(outcome.sent)
    if isinstance(answer, bytes):
        assert sent == certain, how
    else:
        assert sent.startswith(certain), how
        refusal = REFUSAL.fullmatch(sent, len(certain))
        assert refusal, (how, sent)
        assert int(refusal["status"]) == answer, how
        assert bool(refusal["retry"]) == (answer == 503), how
        head = b"".join(cut(row, WHOLE)).startswith(b"HEAD ")
        assert len(refusal["body"]) == (0 if head else int(refusal["length"])), how
    assert outcome.ends == row.ends, how


async def play_all(row: Row, cuts: Iterable[str]) -> list[Outcome]:
    """Run a row with each way to cut it. Both parsers must have the same result."""
    outcomes = []
    for how in cuts:
        reads = cut(row, how)
        one, other = [await play(row, http, reads) for http in PARSERS]
        assert one == other, f"{PARSERS}, {how}"
        outcomes.append(one)
    return outcomes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    cuts = CUTS if row.cut else CUTS[:1]
    for how, outcome in zip(cuts, asyncio.run(play_all(row, cuts)), strict=True):
        check(row, outcome, how)


def test_rows_share_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections of a loop share a parser. No state of a request is left for the next."""
    monkeypatch.setattr(parsers, "create_parser", cache(parsers.create_parser))

    async def play_rows() -> None:
        for row in random.Random(0).sample(ROWS, len(ROWS)):
            check(row, *await play_all(row, [WHOLE]), row.name)

    asyncio.run(play_rows())


def test_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_sections_are_known() -> None:
    for row in ROWS:
        assert re.fullmatch(r"(9110|9112|6585) §\d+(\.\d+)*", row.rfc), row


def test_documentation_cites_rows() -> None:
    """Each point of docs/http.md ends with the names of its rows."""
    names = {row.name for row in ROWS}
    points = re.findall(r"^- (.+?)(?=\n\n|\n- |\n#|\Z)", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert points
    for point in points:
        cited = set(re.findall("`(.+?)`", point.partition("→")[2]))
        assert cited, point
        assert cited <= names, point


# Fuzzing: both parsers have the same result for any bytes, cut in any way.

SEEDS = [
    row.reads
    for row in ROWS
    if isinstance(row.reads, bytes)
    and len(row.reads) < 150
    and row.app is ANSWER
    and not row.options
    and not row.eof
]
SPICES = [bytes([byte]) for byte in b'\0\t\n\r\x1b !"#,/0159:;=?AZaf\\\x7f\x80\xff']
SPICES += [b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.0", b"chunked", b"Content-Length: 1\r\n"]
SPICES += [b"Host: a\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Transfer-Encoding: "]
ANSWERS = re.compile(
    rb"(?:HTTP/1\.1 100 Continue\r\n\r\n"
    rb"|HTTP/1\.1 200 OK\r\n(?:connection: [a-z-]+\r\n)?content-length: 2\r\n\r\n(?:ok)?)*"
)


@st.composite
def requests(draw: Any) -> bytes:
    """Generate one or more requests of the table, with bytes inserted, replaced or removed."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        end = begin + draw(st.integers(0, 3))
        data = data[:begin] + draw(st.sampled_from(SPICES)) + data[end:]
    return data


@given(requests() | st.binary(max_size=50))
@profile(50)
def test_any_bytes(data: bytes) -> None:
    results = []
    for outcome in asyncio.run(play_all(Row("any", data), CUTS)):
        # The requests get the same responses, whatever the cuts. A refusal gives the first error
        # that it finds, which can depend on the cuts.
        sent = in_order(outcome.sent)
        answers = ANSWERS.match(sent)
        assert answers
        refusal = sent[answers.end() :]
        if refusal:
            assert REFUSAL.fullmatch(refusal)
            assert outcome.ends == "closed"
        answered = answers[0].replace(CONTINUE, b"")
        seen = without_refused(outcome.seen) if refusal else outcome.seen
        results.append((seen, answered, bool(refusal), outcome.ends))
    assert all(result == results[0] for result in results)
