"""The inputs that the fuzzer starts from, without the fuzzer."""

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.fixture(scope="module")
def check() -> Any:
    return runpy.run_path(str(FUZZ / "check.py"))["check"]


@pytest.mark.parametrize("path", sorted((FUZZ / "corpus").iterdir()), ids=lambda path: path.name)
def test_corpus(path: Path, check: Any) -> None:
    asyncio.run(check(path.read_bytes()))
