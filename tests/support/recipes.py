"""The Python blocks of docs/testing.md. The first line of a block is its file name."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

RECIPES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def run(pytester: pytest.Pytester, *names: str) -> pytest.RunResult:
    """Run some of the examples in a separate process, with warnings as errors."""
    for name in names:
        pytester.path.joinpath(name).write_text(RECIPES[name])
    return pytester.runpytest_subprocess("-Werror", "--strict-markers", "-pno:asyncio")
