"""Configuration of the documentation site: `make site`.

The pages are Markdown that GitHub renders, too. Their links to files outside docs/ are relative
paths; here they become links to the repository.
"""

import re
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import tinyasgi

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/tinyasgi/tinyasgi"

project = "tinyasgi"
author = "the contributors of tinyasgi"
copyright = author
version = release = tinyasgi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_static"]
highlight_language = "text"

myst_enable_extensions = ["alert", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "literal"  # docstrings write `code` with single backquotes

# `make links` follows the others. read_page checks those to the repository.
linkcheck_ignore = [rf"{REPOSITORY}/(blob|tree)/", r"http://127\.0\.0\.1"]

html_theme = "furo"
html_title = "tinyasgi"
html_baseurl = "https://tinyasgi.github.io/tinyasgi/"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_domain_indices = False
html_use_index = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
}

#: Pages of the site that show files of the repository.
PAGES = {
    "CHANGELOG.md": "/changelog.md",
    "deploy": "/deployment/index.md",
    "deploy/README.md": "/deployment/index.md",
}

FENCE = re.compile(r"^([ \t]*)(`{3,}).*?^\1\2[ \t]*$", re.M | re.S)
#: The end of a link, or a whole one whose text is the name of a file.
LINK = re.compile(r"(\[[\w./-]+\.md\]|\])\(([^()\s]+)\)")


def rewrite_links(text: str, folder: Path) -> str:
    """Replace relative links by paths from docs/ and by addresses of the repository.

    A link to a page whose text is a file name gets the title of the page as its text.

    Raises FileNotFoundError for a link to a file that does not exist.
    """

    def replace(link: re.Match[str]) -> str:
        path, mark, fragment = link[2].partition("#")
        if not path or re.match(r"/|[a-z]+:", path):
            return link[0]
        target = (folder / path).resolve()
        if not target.exists():
            raise FileNotFoundError(f"{link[0]}: no file {target}")
        name = target.relative_to(ROOT).as_posix()
        page = PAGES.get(name) or (name.startswith("docs/") and name.removeprefix("docs"))
        if page:
            text = "[]" if link[1].endswith(".md]") else link[1]
            return f"{text}({page}{mark}{fragment})"
        kind = "tree" if target.is_dir() else "blob"
        return f"{link[1]}({REPOSITORY}/{kind}/main/{name}{mark}{fragment})"

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [LINK.sub(replace, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(replace, text[end:])])


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    content[0] = rewrite_links(content[0], path.parent)


def read_included(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    if path.suffix == ".md":
        content[0] = rewrite_links(content[0], (ROOT / "docs" / path).resolve().parent)


def format_docstring(*arguments: Any) -> None:
    """Mark arguments and indented code in the lines of a docstring, the last argument."""
    lines: list[str] = arguments[-1]
    found: list[str] = []
    is_item = False
    for line in lines:
        before = found[-1] if found else ""
        if item := re.match(r"([a-z_]+(?:, [a-z_]+)*): ", line):
            found += [""] if before and not is_item else []
            found.append(f"* ``{item[1]}``: {line[item.end() :]}")
            is_item = True
        elif is_item and line:
            found.append(f"  {line}")
        else:
            found += [".. code-block:: python", ""] if line[:4] == "    " and not before else []
            found.append(line)
            is_item = False
    lines[:] = found


def setup(app: Sphinx) -> None:
    app.add_lexer("haproxy", TextLexer)
    app.add_lexer("mermaid", TextLexer)
    app.connect("autodoc-process-docstring", format_docstring)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
