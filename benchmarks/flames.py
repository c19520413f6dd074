"""`python -m benchmarks flames`: flame graphs of tinyasgi and uvicorn.

perf samples the stacks of both servers under the load of the workload `hello`. The stacks contain
Python frames, which needs CPython 3.13 or newer. Both graphs have the same scale: the width of a
box is CPU time per request.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path

from .environment import own_python
from .load import run_wrk
from .process import ROOT, running
from .servers import SERVERS
from .workloads import HELLO, WORKLOADS

FILE = ROOT / "docs/benchmarks/flames.svg"
WIDTH, ROW, LETTER = 960, 17, 6.0  # pixels
MIN_SHARE = 0.002  # share of all samples from which on a frame is drawn

COLOURS = {
    "the app": "#2f9e6e",
    "the server": "#e8590c",
    "httptools": "#c75d93",
    "asyncio": "#9775d6",
    "uvloop": "#4c8dd6",
    "the kernel": "#8b949e",
}
#: The first pattern that matches a symbol determines its kind. Other symbols are skipped.
KINDS = [
    ("the app", re.compile(r"py::(.+):.*/benchmarks/")),
    ("the server", re.compile(r"py::(.+):.*/(?:tinyasgi|uvicorn)/")),
    ("the kernel", re.compile(r"(?:__x64_sys|ksys)_(\w+)")),
    ("httptools", re.compile(r".*(?:httptools|llhttp)")),
    ("asyncio", re.compile(r"_asyncio|task_|py::.*/asyncio/")),
    ("uvloop", re.compile(r".*uvloop|uv_")),
]
#: Symbols at which an iteration of the loop begins. perf cannot always unwind further.
TURN = ("uv_run", "uv__io_poll")
STYLE = (
    "<style>svg{--ink:#1f2328;--page:#fff}@media(prefers-color-scheme:dark)"
    "{svg{--ink:#e6edf3;--page:#0d1117}}text{font:11px sans-serif;fill:var(--ink)}"
    "rect{stroke:var(--page);stroke-width:.5}rect+text{fill:#fff}</style>"
)


@dataclass(slots=True)
class Frame:
    """A function as called by one caller, with the number of samples that contain it."""

    name: str
    kind: str
    samples: int = 0
    calls: dict[tuple[str, str], Frame] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((call.depth() for call in self.calls.values()), default=0)


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks flames", description=__doc__)
    parser.add_argument("--python", type=Path, help="interpreter with the servers")
    parser.add_argument("--seconds", type=int, default=8, help="seconds per server (default: 8)")
    options = parser.parse_args(argv)
    python = options.python.absolute() if options.python else own_python()
    graphs = [record(name, python, options.seconds) for name in ("tinyasgi", "uvicorn")]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(draw(graphs), encoding="utf-8")
    print(f"wrote {FILE.relative_to(ROOT)}")
    return 0


def record(name: str, python: Path, seconds: int) -> tuple[Frame, float]:
    """Sample one server; return its stacks and its CPU time per request in microseconds."""
    server = replace(SERVERS[name], command=f"-X perf_jit {SERVERS[name].command}")
    with tempfile.TemporaryDirectory() as directory:
        perf = ["perf", "--buildid-dir", directory]
        raw, whole = f"{directory}/raw", f"{directory}/whole"
        call = partial(subprocess.run, check=True, capture_output=True, text=True, timeout=300)
        with running(server, python, HELLO, {}) as process:
            pid = process.leader.pid
            how = ["-k", "1", "-e", "cpu-clock", "-F", "999", "--call-graph=dwarf,8192"]
            until = ["-p", str(pid), "--", "sleep", str(seconds)]
            with ThreadPoolExecutor() as pool:
                sampling = pool.submit(call, [*perf, "record", *how, "-o", raw, *until])
                sample = run_wrk(process, WORKLOADS["hello"], seconds + 2)
                sampling.result()
        try:
            call([*perf, "inject", "--jit", "-i", raw, "-o", whole])
            script = call([*perf, "script", "-i", whole, "-F", "ip,sym"])
        finally:
            for pattern in (f"jit-{pid}.dump", f"jitted-{pid}-*"):
                for file in Path("/tmp").glob(pattern):
                    file.unlink()
        return tree(name, script.stdout), sample["CPU µs/request"]


def tree(name: str, script: str) -> Frame:
    """Merge the stacks that perf prints into a tree, from the event loop on."""
    root = Frame(name, "uvloop")
    for stack in script.split("\n\n"):
        symbols = [line.split(maxsplit=1)[1] for line in stack.splitlines() if line.strip()]
        turn = next((place for place, symbol in enumerate(symbols) if symbol in TURN), 0)
        if not turn:
            continue
        frame = root
        frame.samples += 1
        for symbol in reversed(symbols[:turn]):
            key = classify(symbol)
            if key and key != (frame.name, frame.kind):
                frame = frame.calls.setdefault(key, Frame(*key))
                frame.samples += 1
    return root


def classify(symbol: str) -> tuple[str, str] | None:
    """Return the name and the kind of a symbol, or None if it is skipped."""
    for kind, pattern in KINDS:
        if match := pattern.match(symbol):
            return match[1] if pattern.groups else kind, kind
    return None


def draw(graphs: Sequence[tuple[Frame, float]]) -> str:
    """Draw the graphs in one SVG, one below the other."""
    highest = max(cost for _, cost in graphs)
    parts, top = [], 0
    for root, cost in graphs:
        title = f"{root.name}: {cost:.1f} µs of CPU time per request"
        parts.append(f'<g><text x="2" y="{top + 13}" font-weight="bold">{title}</text></g>')
        top += 20
        parts += boxes(
            root, 0.0, top, WIDTH * cost / highest / root.samples, root.samples * MIN_SHARE
        )
        top += root.depth() * ROW + 14
    for place, (kind, colour) in enumerate(COLOURS.items()):
        box = f'x="{place * 130 + 2}" y="{top}" width="10" height="10" fill="{colour}"'
        parts.append(f"<rect {box}/>")
        parts.append(f'<g><text x="{place * 130 + 18}" y="{top + 9}">{kind}</text></g>')
    size = f'viewBox="0 0 {WIDTH} {top + 16}" width="{WIDTH}" height="{top + 16}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}'
    return "\n".join([start, *parts, "</svg>", ""])


def boxes(frame: Frame, left: float, top: int, scale: float, least: float) -> list[str]:
    """Return a box for a frame, and boxes for its calls below it."""
    width = frame.samples * scale
    box = f'x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW}"'
    parts = [f'<rect {box} fill="{COLOURS[frame.kind]}"/>']
    if letters := int((width - 6) / LETTER):
        name = frame.name if len(frame.name) <= letters else frame.name[: letters - 1] + "…"
        if letters > 2:
            parts[0] += f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(name)}</text>'
    for call in sorted(frame.calls.values(), key=lambda call: -call.samples):
        if call.samples > least:
            parts += boxes(call, left, top + ROW, scale, least)
        left += call.samples * scale
    return parts
