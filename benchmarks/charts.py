"""Charts of a run, as SVG for light and dark pages.

`python -m benchmarks.charts DIRECTORY` draws the charts of `results.json` in that directory. It
needs matplotlib, so `python -m benchmarks` runs it in the virtual environment of the benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from .report import number
from .results import Outcome, Results, read
from .samples import PERCENTILES
from .workloads import WORKLOADS

COLOURS = {
    "tinyasgi": "#e8590c",
    "uvicorn": "#4c8dd6",
    "granian": "#2f9e6e",
    "h2corn": "#8a5a44",
    "hypercorn": "#9775d6",
    "gunicorn": "#b08a2e",
    "daphne": "#c75d93",
    "waitress": "#3aa6b9",
    "floor": "#8b949e",
}
# Placeholders for colours that depend on the colour scheme of the page.
INK, GRID = "#010203", "#040506"
STYLE = (
    "<style>svg{--ink:#1f2328;--grid:#d1d9e0}"
    "@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--grid:#3d444d}}</style>"
)
SETTINGS: Any = {  # matplotlib types the keys as literals
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.size": 8,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "tinyasgi",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Draw = Callable[[Any, str, Mapping[str, Outcome]], None]


def bars(axes: Any, name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Draw the median of each server, and the range of its rounds."""
    workload = WORKLOADS[name]
    for place, (server, outcome) in enumerate(outcomes.items()):
        if outcome.failure:
            axes.annotate("-", (0, place), (4, 0), textcoords="offset points", va="center")
            continue
        values, middle = outcome.values(), outcome.median()
        spread = [[middle - min(values)], [max(values) - middle]]
        colour = COLOURS[server]
        axes.barh(place, middle, 0.7, color=colour)
        axes.errorbar(
            middle, place, xerr=spread, color=INK, capsize=2, elinewidth=0.8, capthick=0.8
        )
        end, text = (max(values), place), number(middle)
        axes.annotate(text, end, (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(outcomes)), outcomes)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_title(f"{workload.about}, {workload.unit}")


def latencies(axes: Any, name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Draw the latency at each percentile."""
    for server, outcome in outcomes.items():
        if not outcome.failure:
            curve = [outcome.median(f"p{p:g} ms") for p in PERCENTILES]
            style = "--" if server == "floor" else "-"
            axes.plot(curve, style, color=COLOURS[server], label=server, marker=".", lw=1.5)
    axes.set_xticks(range(len(PERCENTILES)), [f"{p:g}" for p in PERCENTILES])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.grid(axis="y", lw=0.5)
    axes.set_xlabel("percentile")
    axes.set_title(f"{WORKLOADS[name].about}, ms")


def memory(axes: Any, name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Draw the memory over the number of open connections."""
    for server, outcome in outcomes.items():
        if not outcome.failure:
            keys = [key for key in outcome.samples[0] if key.startswith("MiB at ")]
            steps = [int(key.split()[-1]) for key in keys]
            curve = [outcome.median(key) for key in keys]
            axes.plot(steps, curve, color=COLOURS[server], label=server, marker=".", lw=1.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", lw=0.5)
    axes.set_xlabel("idle connections")
    axes.set_title("Memory (PSS), MiB")


def draw(path: Path, results: Results, kind: Draw, columns: int, height: float) -> None:
    """Write a file with a panel for each workload."""
    if not results:
        return
    rows = ceil(len(results) / columns)
    size = (4.6 * columns, height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    for axes, (name, outcomes) in zip(grid.flat, results.items(), strict=False):
        kind(axes, name, outcomes)
    if kind is not bars:
        lines = grid.flat[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    text = path.read_text(encoding="utf-8")
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    path.write_text(text.replace("<defs>", f"{STYLE}\n <defs>", 1), encoding="utf-8")


def main(directory: Path) -> None:
    """Draw all charts of a run."""
    results = read(directory / "results.json")[1]

    def select(wanted: Callable[[str, str], bool]) -> Results:
        """Return the workloads with a server that has a sample with a wanted key."""
        return {
            name: outcomes
            for name, outcomes in results.items()
            if any(wanted(name, key) for o in outcomes.values() for s in o.samples for key in s)
        }

    main = [
        "hello",
        "hello-log",
        "pipelined",
        "post-1k",
        "stream-4m",
        "events-100",
        "fastapi",
        "h2",
        "ws-64",
    ]
    few = ("hello", "fastapi", "ws-64", "crowd", "latency-50", "latency-80")
    loads = select(lambda name, key: WORKLOADS[name].unit.endswith("/s"))
    resting = select(lambda name, key: not WORKLOADS[name].unit.endswith("/s"))
    with mpl.rc_context(SETTINGS):
        draw(directory / "main.svg", select(lambda name, _: name in main), bars, 2, 1.6)
        draw(directory / "throughput.svg", loads, bars, 2, 1.6)
        draw(directory / "resting.svg", resting, bars, 2, 1.6)
        curves = select(lambda name, key: name in few and key == "p50 ms")
        draw(directory / "latency.svg", curves, latencies, 2, 3)
        draw(directory / "memory.svg", select(lambda _, key: key == "MiB at 0"), memory, 1, 3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
