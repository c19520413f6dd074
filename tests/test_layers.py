"""The table of rooms in docs/design.md is law: it says who imports whom, and it is complete."""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

import tinyasgi

PACKAGE = Path(tinyasgi.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
ROOMS = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}


def module(room: str) -> str:
    """`parsers/h11.py` → `tinyasgi.http.parsers.h11`."""
    parts = room.removesuffix(".py").removesuffix("__init__").rstrip("/").split("/")
    return ".".join(["tinyasgi", *filter(None, parts)])


MODULES = {module(room) for room in ROOMS}


def imports(room: str) -> set[str]:
    """What a room imports from the package, named as in the table."""
    here = module(room)
    package = here if room.endswith("__init__.py") else here.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(ROOMS[room].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in MODULES or alias.name == "__version__" else source)
    ours = {name for name in found if name == "tinyasgi" or name.startswith("tinyasgi.")}
    # `__version__`, which is set before anything is imported, is free to all.
    return {name.removeprefix("tinyasgi.") for name in ours - {"tinyasgi.__version__"}}


def table() -> dict[str, set[str]]:
    """Rooms, and what each may import. A row may have more than one room."""
    if not DESIGN.exists():
        pytest.skip("docs/design.md is not written yet")
    rows: dict[str, set[str]] = {}
    for line in DESIGN.read_text().splitlines():
        if match := re.fullmatch(r"\|\s*(`[^|]*\.py`)\s*\|[^|]*\|([^|]*)\|", line):
            allowed = set(re.findall(r"[\w.]+", match[2]))
            rows |= dict.fromkeys(re.findall(r"`([^`]*\.py)`", match[1]), allowed)
    return rows


def test_every_room_is_in_the_table() -> None:
    assert table().keys() == ROOMS.keys()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports(room: str) -> None:
    assert imports(room) == table().get(room)


def test_server_log_has_one_door() -> None:
    """A filter or a handler that raises is caught in `server_log`."""
    named = {room for room, path in ROOMS.items() if 'tinyasgi.server")' in path.read_text()}
    assert named == {"server_log.py", "log.py"}  # which sets up its handlers
