"""docs/security.md names tests, conformance cases, options and their defaults."""

import dataclasses
import re
from pathlib import Path

from tests.conformance.table import ROWS
from tinyasgi import Config
from tinyasgi.config.sources import option_name

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_tests() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    tests = set(re.findall(r"def (test_\w+)\(", "\n".join(sources)))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named <= tests


def test_cases() -> None:
    cells = re.findall(r"`table\.py`: ([^|]*)", PAGE)
    named = {name.strip(" `") for cell in cells for name in cell.split(",")}
    assert named
    assert named <= {row.name for row in ROWS}


def test_options() -> None:
    options = {option_name(field.name) for field in dataclasses.fields(Config)}
    options |= {name.replace("--", "--no-", 1) for name in options}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= options


def test_defaults() -> None:
    units = {
        "": 1,
        " s": 1,
        " bytes a second": 1,
        " KiB": 1 << 10,
        " MiB": 1 << 20,
        " GiB": 1 << 30,
    }
    config = {option_name(field.name): field.default for field in dataclasses.fields(Config)}
    found = re.findall(r"`(--[a-z-]+)` \((none|[0-9]+)([^)]*)\)", PAGE)
    assert found
    for name, number, unit in found:
        assert config[name] == (0 if number == "none" else int(number) * units[unit]), name
