"""Results of a run, and their file, which has every sample for later statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from .environment import Facts
from .samples import Sample


@dataclass(slots=True)
class Outcome:
    """The result of one server in one workload: a sample for each round, or the failure."""

    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def values(self, key: str = "value") -> list[float]:
        return [sample[key] for sample in self.samples]

    def median(self, key: str = "value") -> float:
        return median(self.values(key))


#: By workload, by server.
Results = Mapping[str, Mapping[str, Outcome]]


def write(path: Path, about: Facts, results: Results) -> None:
    """Write a run as JSON."""
    plain = {
        name: {server: asdict(outcome) for server, outcome in outcomes.items()}
        for name, outcomes in results.items()
    }
    text = json.dumps({"environment": about, "results": plain}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> tuple[Facts, Results]:
    """Read a file that `write` has written."""
    run = json.loads(path.read_text(encoding="utf-8"))
    results = {
        name: {server: Outcome(**outcome) for server, outcome in outcomes.items()}
        for name, outcomes in run["results"].items()
    }
    return run["environment"], results
