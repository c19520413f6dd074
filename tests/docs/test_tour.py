"""The guided tour: its examples print what the pages show, and its files and objects exist."""

import ast
import contextlib
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs" / "tour"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"literalinclude\} (\S+)\n:language: python\n:pyobject: (\S+)")


@pytest.fixture
def logging_restored() -> Iterator[None]:
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("page", sorted(path.name for path in TOUR.glob("[!i]*.md")))
def test_examples(page: str) -> None:
    """All examples of a page run in one namespace, as if pasted into one interpreter."""
    namespace: dict[str, object] = {"__name__": "tour"}
    examples = BLOCK.findall((TOUR / page).read_text())
    assert examples
    for example in examples:
        expected = [line[4:] for line in example.splitlines() if line.startswith("# > ")]
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(example, page, "exec"), namespace)
        assert output.getvalue().splitlines() == expected


@pytest.mark.parametrize("page", sorted(path.name for path in TOUR.glob("*.md")))
def test_references(page: str) -> None:
    text = (TOUR / page).read_text()
    for file, name in INCLUDE.findall(text):
        node: ast.AST = ast.parse((TOUR / file).read_text())
        for part in name.split("."):
            node = next(
                each for each in ast.iter_child_nodes(node) if getattr(each, "name", "") == part
            )
    for path in re.findall(r"/(?:blob|tree)/main/([^)]+)\)", text):
        assert (ROOT / path).exists(), path
