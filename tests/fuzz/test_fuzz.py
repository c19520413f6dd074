"""The corpus of the fuzzer, without the fuzzer."""

import asyncio
from pathlib import Path

import pytest

from tests.fuzz import connection, frames, http2

CORPUS = Path(__file__).parent / "corpus"
CHECKS = {
    "connection": connection.check,
    "frames": frames.check,
    "http2": http2.check,
    "hpack": http2.check_hpack,
}


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_corpus(path: Path) -> None:
    asyncio.run(CHECKS[path.parent.name](path.read_bytes()))
