"""Draw the map of the packages, docs/modules.svg, from their imports: `make map`."""

import ast
import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import resolve_name
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tinyasgi"
DESIGN = ROOT / "docs" / "design.md"
PAGE = ROOT / "docs" / "modules.svg"

# Pixels.
WIDTH = 860
MARGIN = 20
INNER = 14
LINE = 18
GAP = 28  # between layers
BESIDE = 14  # between boxes of a layer
LANE = 18  # between long arrows, which run on the right


# What the source says.


@cache
def files() -> dict[str, Path]:
    """Modules by their names below `tinyasgi`; the package itself is "tinyasgi"."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name or "tinyasgi"] = path
    return found


@cache
def imports(name: str, path: Path, lazy: bool = True) -> set[str]:
    """The modules of the package that a module imports.

    lazy: with the imports within functions and for type checkers only.
    """
    modules = files()
    here = "tinyasgi" if name == "tinyasgi" else f"tinyasgi.{name}"
    package = here if path.name == "__init__.py" else here.rpartition(".")[0]
    found = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8")), lazy):
        if isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            found |= {f"{source}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    ours = [each.split(".")[1:] for each in found if each.split(".")[0] == "tinyasgi"]
    named = {".".join(parts) for parts in ours}
    return {
        each if each in modules else each.rpartition(".")[0] or "tinyasgi" for each in named
    } - {name}


def _statements(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not lazy:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
        yield node
        yield from _statements(node, lazy)


def package_of(name: str) -> str:
    """`http.parsers.h11` → `http`."""
    return name.partition(".")[0]


def order() -> list[list[str]]:
    """The layers of docs/design.md, the top one first."""
    match = re.search(r"^```\n(integrations > [^`]+)```$", DESIGN.read_text(encoding="utf-8"), re.M)
    assert match, "docs/design.md has no order of packages"
    return [layer.replace(",", " ").split() for layer in match[1].split(">")]


def edges(layers: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    """Imports between packages. The lowest layer counts as one, by its first name."""
    lowest = dict.fromkeys(layers[-1], layers[-1][0])
    found = {
        (package_of(name), lowest.get(package_of(other), package_of(other)))
        for name, path in files().items()
        for other in imports(name, path)
    }
    above = set(chain.from_iterable(layers[:-1]))
    return {(a, b) for a, b in found if a != b and a in above}


def direct(all_edges: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges that no longer path replaces."""
    below: dict[str, set[str]] = {}
    for a, b in all_edges:
        below.setdefault(a, set()).add(b)

    def reaches(start: str, end: str) -> bool:
        return start == end or any(reaches(each, end) for each in below.get(start, ()))

    return sorted(
        (a, b) for a, b in all_edges if not any(reaches(each, b) for each in below[a] - {b})
    )


# The picture.


class Box(NamedTuple):
    name: str
    lines: Sequence[tuple[str, str]]
    """Classes and texts."""
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


def describe(name: str, width: float) -> list[tuple[str, str]]:
    """The lines of a box: the name, what it is, and the modules in it."""
    folder = SOURCE / name
    if not folder.is_dir():
        summary = _wrapped("what", _summary(folder.with_suffix(".py")), width)
        return [("name", f"{name}.py"), *summary]
    inner = [path for path in folder.iterdir() if path.name[0] not in "_."]
    names = sorted(path.stem + ("/" if path.is_dir() else "") for path in inner)
    summary = _wrapped("what", _summary(folder / "__init__.py"), width)
    return [("name", f"{name}/"), *summary, *_wrapped("inner", " · ".join(names), width)]


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".").replace("`", "")


def _wrapped(kind: str, text: str, width: float) -> list[tuple[str, str]]:
    return [(kind, line) for line in textwrap.wrap(text, int((width - 2 * INNER) / 6.6))]


def place(layers: Sequence[Sequence[str]], lanes: int) -> dict[str, Box]:
    """Where boxes are. The modules of the lowest layer share one."""
    boxes = {}
    y: float = MARGIN
    space = WIDTH - 2 * MARGIN - lanes * LANE - 8
    for layer in layers:
        if layer is layers[-1]:
            lines = [("name", "   ".join(f"{name}.py" for name in layer))]
            boxes[layer[0]] = Box(layer[0], lines, MARGIN, y, space, 16 + LINE)
            break
        width = (space - (len(layer) - 1) * BESIDE) / len(layer)
        texts = {name: describe(name, width) for name in layer}
        height = 16 + LINE * max(map(len, texts.values()))
        for index, name in enumerate(layer):
            x = MARGIN + index * (width + BESIDE)
            boxes[name] = Box(name, texts[name], x, y, width, height)
        y += height + GAP
    return boxes


def draw_box(box: Box) -> str:
    kind = "package" if (SOURCE / box.name).is_dir() else "module"
    place = f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'
    lines = [f'  <rect class="{kind}" {place} rx="6"/>']
    for number, (style, text) in enumerate(box.lines):
        x, y = box.x + INNER, box.y + 22 + number * LINE
        lines.append(f'  <text class="{style}" x="{x:g}" y="{y:g}">{html.escape(text)}</text>')
    return "\n".join(lines)


def draw_arrow(above: Box, below: Box) -> str:
    """Straight down, where the boxes overlap."""
    x = (max(above.x, below.x) + min(above.right, below.right)) / 2
    return f'  <path class="arrow" d="M{x:g} {above.bottom:g}V{below.y - 2:g}"/>'


def draw_long_arrow(above: Box, below: Box, lane: int) -> str:
    """Past the layers between, on the right."""
    x = WIDTH - MARGIN - lane * LANE
    start, end = above.middle - 8 + 10 * lane, below.middle - 16 + 10 * lane
    return (
        f'  <path class="arrow" d="M{above.right:g} {start:g}H{x - 8:g}Q{x:g} {start:g}'
        f" {x:g} {start + 8:g}V{end - 8:g}Q{x:g} {end:g} {x - 8:g} {end:g}"
        f'H{below.right + 2:g}"/>'
    )


STYLE = """
    text { white-space: pre }
    .package { fill: #f6f8fa; stroke: #57606a }
    .module { fill: #ffffff; stroke: #57606a }
    .arrow { fill: none; stroke: #0969da; stroke-width: 1.6; marker-end: url(#tip) }
    .tip { fill: #0969da }
    .name { font-weight: 600; fill: #1f2328 }
    .what { fill: #1f2328; font-size: 13px }
    .inner { fill: #57606a; font-size: 12.5px }
    .note { fill: #57606a; font-size: 12px }
    .page { fill: #ffffff }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117 }
      .package { fill: #161b22; stroke: #8b949e }
      .module { fill: #0d1117; stroke: #8b949e }
      .arrow { stroke: #58a6ff }
      .tip { fill: #58a6ff }
      .name, .what { fill: #e6edf3 }
      .inner, .note { fill: #9da7b3 }
    }
"""


def render() -> str:
    layers = order()
    number = {name: index for index, layer in enumerate(layers) for name in layer}
    arrows = direct(edges(layers))
    long = sorted((b, a) for a, b in arrows if number[b] - number[a] > 1)
    long.sort(key=lambda arrow: number[arrow[0]] - number[arrow[1]], reverse=True)
    ends = set(chain.from_iterable(long))
    layers = [sorted(layer, key=lambda name: name in ends) for layer in layers]
    boxes = place(layers, len(long))
    height = max(box.bottom for box in boxes.values()) + 40
    lines = [draw_box(box) for box in boxes.values()]
    lines += [draw_arrow(boxes[a], boxes[b]) for a, b in arrows if (b, a) not in long]
    lines += [draw_long_arrow(boxes[a], boxes[b], lane) for lane, (b, a) in enumerate(long)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}"'
            f' width="{WIDTH}" height="{height:g}" role="img" aria-labelledby="title"'
            ' font-family="system-ui, sans-serif" font-size="15">',
            '  <title id="title">The packages of tinyasgi; imports go down.</title>',
            f"  <style>{STYLE}  </style>",
            "  <defs>",
            '    <marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6"'
            ' markerHeight="6" orient="auto"><path class="tip" d="M0 0 8 4 0 8Z"/></marker>',
            "  </defs>",
            f'  <rect class="page" width="{WIDTH}" height="{height:g}"/>',
            *lines,
            f'  <text class="note" x="{MARGIN}" y="{height - 14:g}">An arrow is an import. Imports'
            " that follow from others are not drawn.</text>",
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
