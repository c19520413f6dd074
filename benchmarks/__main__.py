"""The command: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path

from .report import Outcome, as_json, as_markdown, environment
from .servers import CLIENT_CPU, SERVERS, Failure, own_python, running
from .workloads import WORKLOADS, load


def names(table: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names that must be in ``table``."""

    def parse(text: str) -> list[str]:
        chosen = list(dict.fromkeys(text.split(",")))
        if unknown := [name for name in chosen if name not in table]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(table)}")
        return chosen

    return parse


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("benchmarks", description="Compare ASGI servers.")
    add = parser.add_argument
    add("--servers", type=names(SERVERS), default=list(SERVERS), help=",".join(SERVERS))
    add("--workloads", type=names(WORKLOADS), default=list(WORKLOADS), help=",".join(WORKLOADS))
    add("--rounds", type=positive, default=5, help="measurements of each server (5)")
    add("--seconds", type=positive, default=3, help="length of one load measurement (3)")
    add("--python", type=Path, help="an interpreter that has the servers (benchmarks/.venv)")
    add("--output", type=Path, help="directory to write results.md and results.json to")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace, python: Path) -> dict[str, dict[str, Outcome]]:
    """Run the rounds, interleaved; each round begins with another server, so that none is favoured.

    A server that fails once is out of the workload: what it did before does not count either.
    """
    results: dict[str, dict[str, Outcome]] = {}
    for workload in (WORKLOADS[name] for name in options.workloads):
        plain = workload.app == "hello" and not workload.log
        servers = [SERVERS[name] for name in options.servers]
        servers = [server for server in servers if plain or not server.is_fixed]
        outcomes = results[workload.name] = {server.name: Outcome() for server in servers}
        for number in range(options.rounds):
            shift = number % max(len(servers), 1)
            for server in servers[shift:] + servers[:shift]:
                outcome = outcomes[server.name]
                if outcome.failure:
                    continue
                progress(f"{workload.name}: round {number + 1}/{options.rounds}, {server.name}")
                launch = partial(running, server, python, workload.app, workload.log)
                try:
                    sample = workload.measure(launch, workload, options.seconds)
                    outcome.samples.append(sample)
                except (Failure, OSError, HTTPException, subprocess.SubprocessError) as error:
                    outcome.failure = str(error) or type(error).__name__
                    progress(f"{workload.name}: {server.name} is left out: {outcome.failure}\n")
    progress("")
    return results


def progress(text: str) -> None:
    """Show where the run is: over the last line of a terminal, or on a line of its own."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text.rstrip(), file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0; 1 if a server was left out; 2 if nothing could be measured."""
    options = arguments(argv)
    loaded = any(WORKLOADS[name].measure is load for name in options.workloads)
    if loaded and not shutil.which("wrk"):
        print("The load comes from wrk, not found: apt-get install wrk", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that servers are stopped
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # servers inherit it: 1000 idle
    try:
        python = options.python.absolute() if options.python else own_python()
        about = environment(python, options.rounds, options.seconds)
        os.sched_setaffinity(0, {CLIENT_CPU})
        results = measure(options, python)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    table = as_markdown(about, results)
    print(table)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "results.md").write_text(table, encoding="utf-8")
        (options.output / "results.json").write_text(as_json(about, results), encoding="utf-8")
    failed = any(outcome.failure for o in results.values() for outcome in o.values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
