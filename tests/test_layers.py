"""All imports follow the order of packages in docs/design.md, including lazy ones."""

import graphlib
import runpy
from pathlib import Path

import pytest

MAP = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "map.py"))
FILES = MAP["files"]()
LAYERS = {name: number for number, layer in enumerate(MAP["order"]()) for name in layer}
#: Modules above all layers.
DOORS = {"tinyasgi", "__main__"}


def test_the_order_is_complete() -> None:
    assert LAYERS.keys() == {MAP["package_of"](name) for name in FILES} - DOORS


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_go_down(name: str) -> None:
    package = MAP["package_of"](name)
    others = {MAP["package_of"](other) for other in MAP["imports"](name, FILES[name])} - {package}
    assert not others & DOORS
    layer = -1 if package in DOORS else LAYERS[package]
    assert [other for other in others if LAYERS[other] <= layer] == []


def test_no_circle_of_files() -> None:
    graph = {name: MAP["imports"](name, path, lazy=False) for name, path in FILES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_the_map_is_current() -> None:
    text = MAP["PAGE"].read_text(encoding="utf-8")
    assert text == MAP["render"](), "run make map"
