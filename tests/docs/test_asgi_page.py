"""The page about ASGI names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_named_tests_exist() -> None:
    page = (ROOT / "docs" / "asgi.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    existing = {name for text in sources for name in re.findall(r"def (test_\w+)", text)}
    assert len(named) > 30
    assert named - existing == set()
