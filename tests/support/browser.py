"""Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["chromium"]


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a headless browser with Selenium. Skips the test if there is no browser."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    more = ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--ignore-certificate-errors")
    for option in more:
        options.add_argument(option)
    # Without a path, Selenium would download a driver.
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as page:
        yield page
