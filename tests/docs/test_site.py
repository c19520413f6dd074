"""The documentation site: it builds without warnings, its links hold, and it fits a phone."""

import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.helpers import PATIENCE
from tests.support.pages import DOCS, ROOT

pytestmark = pytest.mark.xdist_group("site")  # one process builds it

#: Pages that must exist, and a heading of each.
PAGES = {
    "index": "Why tinyasgi",
    "quickstart": "Install",
    "frameworks/fastapi": "Serve in production",
    "frameworks/django": "ASGI or WSGI",
    "frameworks/flask": "App factories",
    "frameworks/litestar": "WebSocket",
    "testing": "Recipes",
    "tour/index": "Guided tour",
    "deployment/index": "Checklist",
    "deployment/nginx": "nginx.conf",
    "deployment/haproxy": "haproxy.cfg",
    "deployment/systemd": "tinyasgi.service",
    "deployment/containers": "Notes",
    "deployment/kubernetes": "Probes",
    "operations": "Graceful shutdown",
    "security": "Hardening",
    "performance": "Cost of a request",
    "options": "Time limits",
    "api": "pytest plugin",
    "troubleshooting": "Requests are slow",
    "design": "Life of a request",
}
#: Pages with wide tables, wide code or diagrams.
WIDE = [
    "index",
    "operations",
    "options",
    "deployment/nginx",
    "benchmarks/results",
    "api",
    "design",
    "tour/tasks",
]

CONTRAST = """
function luminance(color) {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((value) => {
    value /= 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function background(element) {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
}
const found = {};
const texts = "article :is(p, li, td, th, a, h1, h2, code, pre, pre span)";
for (const element of document.querySelectorAll(texts)) {
  if (![...element.childNodes].some((node) => node.nodeType == 3 && node.data.trim())) continue;
  if (!element.checkVisibility() || element.matches(".headerlink")) continue;
  const style = getComputedStyle(element);
  const [a, b] = [luminance(style.color), luminance(background(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) found[element.tagName + "." + element.className] = ratio;
}
return found;
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for module in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", DOCS, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_and_links(site: Path) -> None:
    check = runpy.run_path(str(DOCS / "check.py"))
    assert list(check["broken_links"](site)) == []
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for name, heading in PAGES.items():
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        assert re.search(rf"<h[1-4]>([\d.]+ )?{re.escape(heading)}<", text), name
        assert name == "index" or f'href="{name}.html"' in navigation, name
    assert (site / "searchindex.js").stat().st_size > 10_000


def test_broken_links_are_found(tmp_path: Path) -> None:
    check = runpy.run_path(str(DOCS / "check.py"))
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there"><a href="b.html#gone"><a href="c.html"><a href="#self">'
        '<a href="https://example.org/"><img src="none.svg">'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    found = [f"a.html: {link}" for link in ("b.html#gone", "c.html", "#self", "none.svg")]
    assert list(check["broken_links"](tmp_path)) == found


def test_diagrams_are_current() -> None:
    diagrams = runpy.run_path(str(DOCS / "diagrams.py"))
    for name, draw in diagrams["PICTURES"].items():
        text = (diagrams["FOLDER"] / f"{name}.svg").read_text(encoding="utf-8")
        assert text == draw(), "make map brings it up to date"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


def show(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    """Open a page in a window of this width, in pixels."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(site: Path, browser: Any, width: int) -> None:
    for name in WIDE:
        show(browser, site / f"{name}.html", width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, name
        # Tables, code and diagrams scroll in themselves; text does not.
        text = (
            "return [...document.querySelectorAll('article :is(h1, h2, h3, p:not(:has(> img)))')]"
        )
        wide = ".filter((e) => !e.closest('table') && e.scrollWidth > e.clientWidth + 1)"
        assert browser.execute_script(f"{text}{wide}.map((e) => e.textContent)") == [], name


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(site: Path, browser: Any, scheme: str) -> None:
    for name in ("quickstart", "operations", "deployment/nginx", "frameworks/django", "api"):
        show(browser, site / f"{name}.html", 1280, scheme)
        assert browser.execute_script(CONTRAST) == {}, name


@pytest.mark.browser
def test_search_needs_no_network(site: Path, browser: Any) -> None:
    show(browser, site / "search.html", 1280)
    browser.get(f"{(site / 'search.html').as_uri()}?q=shutdown")
    found = "return [...document.querySelectorAll('#search-results li a')].map((a) => a.innerText)"
    deadline = time.monotonic() + PATIENCE
    while "Operations" not in (results := browser.execute_script(found)):
        assert time.monotonic() < deadline, results


def test_links_on_github() -> None:
    """Pages outside docs/ link to files and headings that exist."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "deploy").glob("*.md")]
    assert len(pages) > 4
    for page in pages:
        for link in re.findall(r"\]\(([^()\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, fragment = link.partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = page.parent / path if path else page
            assert target.exists(), (page.name, link)
            if fragment:
                assert fragment in headings(target), (page.name, link)


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}
