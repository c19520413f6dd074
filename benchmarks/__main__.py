"""The command `python -m benchmarks`, with the subcommands `hotpath` and `flames`."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http.client import HTTPException
from pathlib import Path

from . import flames, hotpath, results
from .environment import certificates, describe, own_python
from .process import CLIENT_CPU, ROOT, running
from .progress import Progress
from .report import as_markdown, into_readme
from .results import Outcome, Results
from .servers import SERVERS, Failure
from .workloads import HELLO, WORKLOADS

CHARTS = "docs/benchmarks"


def names(table: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names that must be in `table`."""

    def parse(text: str) -> list[str]:
        chosen = list(dict.fromkeys(text.split(",")))
        if unknown := [name for name in chosen if name not in table]:
            raise argparse.ArgumentTypeError(
                f"unknown name {unknown[0]!r}; choose from {', '.join(table)}"
            )
        return chosen

    return parse


def positive(text: str) -> int:
    """Parse a positive integer."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Compare ASGI and WSGI servers, side by side on this machine."
        " The subcommand `hotpath` counts the instructions of a request. The subcommand `flames`"
        " draws flame graphs.",
    )
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=list(SERVERS), help=",".join(SERVERS))
    add("--workloads", type=names(WORKLOADS), default=list(WORKLOADS), help=",".join(WORKLOADS))
    add("--rounds", type=positive, default=3, help="measurements of each server (default: 3)")
    add("--seconds", type=positive, default=2, help="seconds of one load measurement (default: 2)")
    add(
        "--loop",
        choices=["uvloop", "asyncio"],
        default="uvloop",
        help="event loop (default: uvloop)",
    )
    add(
        "--python",
        type=Path,
        help="interpreter with the servers (default: create a virtual environment)",
    )
    add("--output", type=Path, help="directory for results.json, results.md and charts (SVG)")
    add(
        "--readme", action="store_true", help=f"write to {CHARTS} and update the table in README.md"
    )
    add(
        "--redraw",
        action="store_true",
        help="do not measure; use results.json in the output directory",
    )
    options = parser.parse_args(argv)
    if options.readme:
        options.output = ROOT / CHARTS
    if options.redraw and not options.output:
        parser.error("--redraw needs --output or --readme")
    return options


def measure(
    options: argparse.Namespace, python: Path, tls_files: Mapping[str, Path]
) -> dict[str, dict[str, Outcome]]:
    """Run the rounds of all servers alternately. Each round starts with a different server.

    A server that fails once is excluded from the workload, with its earlier samples.
    """
    measured: dict[str, dict[str, Outcome]] = {}
    servers = [SERVERS[name] for name in options.servers]
    progress = Progress(len(options.workloads) * options.rounds * len(servers))
    for workload in (WORKLOADS[name] for name in options.workloads):
        outcomes = {
            server.name: Outcome()
            for server in servers
            if workload.setup == HELLO or not server.is_fixed
        }
        measured[workload.name] = outcomes
        for number in range(options.rounds):
            shift = number % len(servers)
            for server in servers[shift:] + servers[:shift]:
                outcome = outcomes.get(server.name)
                progress.step(f"{workload.name}: round {number + 1}, {server.name}")
                if outcome is None or outcome.failure:
                    continue
                setup = replace(workload.setup, loop=options.loop)
                launch = partial(running, server, python, setup, tls_files)
                try:
                    outcome.samples.append(workload.measure(launch, workload, options.seconds))
                except (Failure, OSError, HTTPException, subprocess.SubprocessError) as error:
                    outcome.failure = str(error) or type(error).__name__
                    progress.note(f"{workload.name}: {server.name}: {outcome.failure}")
    progress.end()
    return measured


def write(options: argparse.Namespace, python: Path, text: str) -> None:
    """Write the report and the charts beside `results.json`."""
    (options.output / "results.md").write_text(text, encoding="utf-8")
    draw = [str(python), "-m", "benchmarks.charts", str(options.output.resolve())]
    subprocess.run(draw, cwd=ROOT, check=True, timeout=120)


def main(argv: Sequence[str]) -> int:
    """Run the command. Return 0, 1 if tinyasgi failed in a workload, or 2 for a usage error."""
    if argv[:1] == ["hotpath"]:
        return hotpath.main(argv[1:])
    if argv[:1] == ["flames"]:
        return flames.main(argv[1:])
    options = arguments(argv)
    needed = {"wrk": "wrk"}
    if any(WORKLOADS[name].setup.http2 for name in options.workloads):
        needed["h2load"] = "nghttp2-client"
    for tool, package in needed.items():
        if not options.redraw and not shutil.which(tool):
            print(
                f"benchmarks: {tool} is not installed: apt-get install {package}", file=sys.stderr
            )
            return 2
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # runs the `finally` blocks, which stop servers
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (limit, limit)
    )  # for 10,000 connections; servers inherit it
    measured: Results
    try:
        python = options.python.absolute() if options.python else own_python()
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
        if options.redraw:
            about, measured = results.read(options.output / "results.json")
        else:
            words = [word for word in argv if word != "--redraw"]
            about = describe(python, options.rounds, options.seconds)
            about["command"] = " ".join(["python -m benchmarks", *words])
            os.sched_setaffinity(0, {CLIENT_CPU})
            with tempfile.TemporaryDirectory() as directory:
                measured = measure(options, python, certificates(Path(directory)))
        command = str(about["command"])
        text = as_markdown(about, measured, command)
        if options.output:
            results.write(options.output / "results.json", about, measured)
            write(options, python, text)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.readme:
        readme = ROOT / "README.md"
        before, chart = readme.read_text(encoding="utf-8"), f"{CHARTS}/main.svg"
        after = into_readme(before, about, measured, command, chart)
        readme.write_text(after, encoding="utf-8")
    print(text)
    ours = [outcomes["tinyasgi"] for outcomes in measured.values() if "tinyasgi" in outcomes]
    return 1 if any(outcome.failure for outcome in ours) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
