"""Chromium, for pages that only a browser can judge."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["chromium"]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window, driven by Selenium; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(option)
    # Selenium would download a driver of its own if none were named.
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as page:
        yield page
