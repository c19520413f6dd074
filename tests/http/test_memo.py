"""`Memo`: cached results and their limits."""

import tracemalloc
from collections.abc import Callable

import pytest

from tests.support.helpers import hello, in_loop
from tinyasgi.http.memo import Memo
from tinyasgi.testing import connect


def test_results_are_kept() -> None:
    calls = []
    memo = Memo(lambda text: calls.append(text) or len(text), 2, longest=3)
    assert [memo["a"], memo["ab"], memo["a"], memo["ab"]] == [1, 2, 1, 2]
    assert calls == ["a", "ab"]
    assert memo["abc"] == 3  # the memo was full and has been cleared
    assert list(memo) == ["abc"]
    assert memo["abcd"] == 4  # too long
    assert list(memo) == ["abc"]


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET %b HTTP/1.1" % target, b"Host: here", *fields, b"", b""))


async def redirect(scope, receive, send) -> None:
    location = b"/" + scope["query_string"] + bytes(60_000).replace(b"\0", b"x")
    headers = [(b"location", location)]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    ("app", "request_of"),
    [
        (redirect, lambda n: get(b"/?%d" % n)),
        (hello, lambda n: get(b"/%d%b" % (n, b"x" * 60_000))),
        (hello, lambda n: get(b"http://%d%b/" % (n, b"x" * 60_000))),
        (hello, lambda n: get(b"/", b"X-Forwarded-For: %d%b" % (n, b"x" * 60_000))),
        (hello, lambda n: get(b"/", b"X-Forwarded-Prefix: /%d%b" % (n, b"x" * 60_000))),
    ],
    ids=["response header", "target", "authority", "address", "prefix"],
)
@in_loop
async def test_long_values_are_not_kept(app, request_of: Callable[[int], bytes]) -> None:
    """Otherwise clients could fill the memos with hundreds of long values."""
    async with connect(app, lifespan="off") as connection:
        await connection.feed(request_of(0))
        tracemalloc.start()
        try:
            for n in range(1, 50):
                await connection.feed(request_of(n))
                connection.sent.clear()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not connection.closed
    assert kept < 1_000_000
