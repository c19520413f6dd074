"""docs/options.md and README.md agree with `Config`."""

import dataclasses
import re
import runpy
from pathlib import Path

from tinyasgi import Config
from tinyasgi.config.sources import option_name

ROOT = Path(__file__).parents[2]


def test_page_is_current() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "options.py"))
    text = page["PAGE"].read_text(encoding="utf-8")
    assert text == page["render"](), "make docs brings it up to date"


def test_readme_names_only_options_that_exist() -> None:
    names = {option_name(field.name) for field in dataclasses.fields(Config)}
    names |= {name.replace("--", "--no-", 1) for name in names}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(--[a-z-]+)", readme, re.MULTILINE)
    assert table
    assert set(table) <= names
