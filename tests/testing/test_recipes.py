"""The examples of docs/testing.md work unchanged."""

import shutil

import pytest

from tests.support.recipes import PAGE, RECIPES, run

pytest_plugins = ["pytester"]

#: Examples that have a separate test.
APART = {"test_browser.py", "test_websocket.py"}


def test_all_blocks_are_recipes() -> None:
    assert PAGE.read_text().count("```python\n") == len(RECIPES)


@pytest.mark.slow
def test_recipes(pytester: pytest.Pytester) -> None:
    names = RECIPES.keys() - APART
    tests = sum(RECIPES[name].count("\ndef test_") for name in names)
    run(pytester, *names).assert_outcomes(passed=tests)


@pytest.mark.browser
@pytest.mark.skipif(
    not shutil.which("chromium") or not shutil.which("chromedriver"),
    reason="no Chromium here: apt-get install chromium chromium-driver",
)
def test_browser(pytester: pytest.Pytester) -> None:
    run(pytester, "test_browser.py").assert_outcomes(passed=1)
