"""Check the built site: every link within it leads to a page and an anchor that exist.

Run as `python docs/check.py build/site`. External links are not
followed, so the check works offline.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors and links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Yield "page: link" for each link to something that the site does not have."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if target.is_dir():
                target /= "index.html"
            known = target not in pages or not address.fragment
            if not target.is_file() or not (known or address.fragment in pages[target].anchors):
                yield f"{path.relative_to(site)}: {link}"


if __name__ == "__main__":
    if broken := list(broken_links(Path(sys.argv[1]))):
        sys.exit("broken links:\n" + "\n".join(broken))
