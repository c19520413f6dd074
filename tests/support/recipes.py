"""The Python blocks of docs/testing.md, each a file that its first line names."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

RECIPES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def run(pytester: pytest.Pytester, *names: str) -> pytest.RunResult:
    """Runs some of the recipes in a process of their own, with warnings as errors."""
    for name in names:
        pytester.path.joinpath(name).write_text(RECIPES[name])
    return pytester.runpytest_subprocess("-Werror", "--strict-markers", "-pno:asyncio")
