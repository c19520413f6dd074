"""Say what was measured, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from .servers import SERVERS
from .workloads import WORKLOADS, Sample, Workload

PACKAGES = ("tinyasgi", "uvicorn", "granian", "uvloop", "httptools")
ASK_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **{n: found.get(n) for n in sys.argv[1:]}}))
"""


@dataclass(slots=True)
class Outcome:
    """What one server did in one workload: a sample per round, or why it was left out."""

    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def median(self, key: str = "value") -> float:
        return median(sample[key] for sample in self.samples)


Results = Mapping[str, Mapping[str, Outcome]]  # by workload, by server


def environment(python: Path, rounds: int, seconds: int) -> dict[str, str | int | None]:
    """Describe the machine, the versions and the settings: all that a result depends on."""
    command = [str(python), "-c", ASK_VERSIONS, *PACKAGES]
    versions = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in cpus if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "rounds": rounds,
        "seconds": seconds,
        **json.loads(versions),
    }


def as_json(about: Mapping[str, object], results: Results) -> str:
    """Return every sample, so that other statistics can be made of them later."""
    plain = {
        name: {server: asdict(outcome) for server, outcome in outcomes.items()}
        for name, outcomes in results.items()
    }
    return json.dumps({"environment": about, "results": plain}, indent=2, ensure_ascii=False) + "\n"


def as_markdown(about: Mapping[str, object], results: Results) -> str:
    """Return a section per workload, with the medians of the rounds side by side."""
    facts = ", ".join(f"{name} {value}" for name, value in about.items() if value is not None)
    sections = [section(WORKLOADS[name], outcomes) for name, outcomes in results.items()]
    return "\n".join(["# Benchmarks\n", f"{facts}.\n", *sections])


def section(workload: Workload, outcomes: Mapping[str, Outcome]) -> str:
    """Return one table. A ratio is a median divided by the peer's, or by the best peer's."""
    good = {name: outcome for name, outcome in outcomes.items() if not outcome.failure}
    peers = {name: good[name].median() for name in good if SERVERS[name].is_peer}
    best = max if workload.more_is_better else min
    divisors = {"best peer": best(peers.values()), **peers} if peers else {}
    extras = [key for key in next(iter(good.values())).samples[0] if key != "value"] if good else []
    sense = "more" if workload.more_is_better else "less"
    lines = [f"## {workload.name}\n", f"{workload.about}: {workload.unit}, {sense} is better.\n"]
    if good:
        heads = ["server", "median", "min", "max", *(f"÷ {name}" for name in divisors), *extras]
        lines += [row(heads), row(["---", *["---:"] * (len(heads) - 1)])]
    for name, outcome in good.items():
        values = [sample["value"] for sample in outcome.samples]
        cells = [number(value) for value in (outcome.median(), min(values), max(values))]
        cells += [f"{outcome.median() / divisor:.2f}" for divisor in divisors.values()]
        lines.append(row([name, *cells, *(number(outcome.median(key)) for key in extras)]))
    failures = [f"- {name} was left out: {o.failure}" for name, o in outcomes.items() if o.failure]
    return "\n".join([*lines, *([""] if good and failures else []), *failures, ""])


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Return three digits that matter, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
