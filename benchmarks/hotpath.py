"""`python -m benchmarks hotpath`: how many instructions a request takes, ours beside uvicorn's.

valgrind counts them, for connections in memory (`in_memory`). The counts repeat to about 1 %,
whatever else the machine does: they judge a change to the hot path. The ratios are kept in
`hotpath.json`, by version of Python.
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
from .process import ROOT

__all__ = ["main"]

KEPT = Path(__file__).with_name("hotpath.json")
LIMIT = 300  # seconds

Counts = dict[str, dict[str, int]]  # instructions, by row and server


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0, or 2 if nothing could be counted."""
    parser = argparse.ArgumentParser("python -m benchmarks hotpath", description=__doc__)
    parser.add_argument("--keep", action="store_true", help=f"write the result to {KEPT.name}")
    options = parser.parse_args(argv)
    if not shutil.which("valgrind"):
        print("valgrind counts, and is not found: apt-get install valgrind", file=sys.stderr)
        return 2
    try:
        counts = count()
    except subprocess.SubprocessError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    version = "{}.{}".format(*sys.version_info)
    kept: dict[str, Counts] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print(as_table(counts, kept.get(version, {})))
    if options.keep:
        kept = dict(sorted((kept | {version: counts}).items()))
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


def count() -> Counts:
    """Counts with the interpreter that runs this. Raises SubprocessError."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        tool = ["valgrind", "--tool=callgrind", "--dump-before=getppid"]
        command = [*tool, f"--callgrind-out-file={out}", sys.executable, "-m"]
        run = subprocess.run(
            [*command, "benchmarks.in_memory"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        counts: Counts = {}
        for number, line in enumerate(run.stdout.splitlines(), 1):
            row, server = line.split("\t")
            part = Path(f"{out}.{2 * number}").read_text()  # the odd ones are between two rows
            total = part.partition("\ntotals: ")[2].split(maxsplit=1)[0]
            counts.setdefault(row, {})[server] = int(total) // REPEATS
        return counts


def as_table(counts: Counts, kept: Counts) -> str:
    """Instructions, their ratio, and how ours have changed since the kept run."""
    lines = [f"{'instructions':40}{'tinyasgi':>12}{'change':>9}{'uvicorn':>12}{'ratio':>8}"]
    for row, by_server in counts.items():
        ours, theirs = by_server.get("tinyasgi"), by_server.get("uvicorn")
        before = kept.get(row, {}).get("tinyasgi")
        change = f"{ours / before - 1:+.1%}" if ours and before else ""
        ratio = f"{ours / theirs:.2f}" if ours and theirs else ""
        cells = [f"{value:,}" if value else "" for value in (ours, theirs)]
        if ours is None:
            cells[0] = "not available"
        lines.append(f"{row:40}{cells[0]:>12}{change:>9}{cells[1]:>12}{ratio:>8}")
    return "\n".join(lines)
