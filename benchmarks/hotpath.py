"""`python -m benchmarks hotpath`: instructions per request of tinyasgi and uvicorn.

valgrind counts the instructions of in-memory connections (`in_memory`). The counts vary by about
1 %, even on a busy machine, so they show the effect of a change to the hot path. `hotpath.json`
stores the counts of each Python version for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .in_memory import REPEATS
from .options import CHANGING, OPTIONS
from .process import ROOT

STORED = Path(__file__).with_name("hotpath.json")
TIMEOUT = 300  # seconds

Counts = dict[str, dict[str, int]]  # instructions, by row and server


def main(argv: Sequence[str]) -> int:
    """Run the command. Return 0, or 2 after an error."""
    parser = argparse.ArgumentParser("python -m benchmarks hotpath", description=__doc__)
    parser.add_argument("--keep", action="store_true", help=f"store the result in {STORED.name}")
    parser.add_argument("--options", action="store_true", help="show what options cost instead")
    options = parser.parse_args(argv)
    if not shutil.which("valgrind"):
        print("benchmarks: valgrind is not installed: apt-get install valgrind", file=sys.stderr)
        return 2
    try:
        if options.options:
            print(as_additions(count_options()))
            return 0
        counts = count("benchmarks.in_memory")
    except subprocess.SubprocessError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    version = "{}.{}".format(*sys.version_info)
    stored: dict[str, Counts] = json.loads(STORED.read_text()) if STORED.exists() else {}
    print(as_table(counts, stored.get(version, {})))
    if options.keep:
        stored = dict(sorted((stored | {version: counts}).items()))
        STORED.write_text(json.dumps(stored, indent=1) + "\n")
    return 0


def count_options() -> Counts:
    """Count the rows of `options`, each in its own process. Raises SubprocessError."""
    rows = [count("benchmarks.options", row) for row in (*OPTIONS, *CHANGING)]
    return {name: servers for row in rows for name, servers in row.items()}


def count(module: str, *arguments: str) -> Counts:
    """Count the rows of a module with the current interpreter. Raises SubprocessError."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        tool = ["valgrind", "--tool=callgrind", "--dump-before=getppid"]
        command = [*tool, f"--callgrind-out-file={out}", sys.executable, "-m"]
        run = subprocess.run(
            [*command, module, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        counts: Counts = {}
        for number, line in enumerate(run.stdout.splitlines(), 1):
            row, server = line.split("\t")
            part = Path(
                f"{out}.{2 * number}"
            ).read_text()  # odd numbers are the parts between two rows
            total = part.partition("\ntotals: ")[2].split(maxsplit=1)[0]
            counts.setdefault(row, {})[server] = int(total) // REPEATS
        return counts


def as_table(counts: Counts, stored: Counts) -> str:
    """Return a table: instructions, their ratio, and the change since the stored run."""
    lines = [f"{'instructions':40}{'tinyasgi':>12}{'change':>9}{'uvicorn':>12}{'ratio':>8}"]
    for row, by_server in counts.items():
        ours, theirs = by_server.get("tinyasgi"), by_server.get("uvicorn")
        before = stored.get(row, {}).get("tinyasgi")
        change = f"{ours / before - 1:+.1%}" if ours and before else ""
        ratio = f"{ours / theirs:.2f}" if ours and theirs else ""
        cells = [f"{value:,}" if value else "" for value in (ours, theirs)]
        if ours is None:
            cells[0] = "not available"
        lines.append(f"{row:40}{cells[0]:>12}{change:>9}{cells[1]:>12}{ratio:>8}")
    return "\n".join(lines)


def as_additions(counts: Counts) -> str:
    """Return a table: instructions, and the difference to the base of the row."""
    lines = [f"{'GET':44}{'instructions':>13}{'more':>9}"]
    for row, by_server in counts.items():
        base = next(iter(CHANGING if row in CHANGING else OPTIONS))
        value = by_server["tinyasgi"]
        lines.append(f"{row:44}{value:>13,}{value - counts[base]['tinyasgi']:>+9,}")
    return "\n".join(lines)
