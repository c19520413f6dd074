"""What was measured, for people: Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from .environment import PACKAGES, Facts
from .results import Outcome, Results
from .servers import SERVERS
from .workloads import WORKLOADS

__all__ = ["as_markdown", "into_readme"]

BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
#: What a detailed table shows beside the values, when it is there.
DETAILS = ("CPU µs/request", "CPU µs/message", "CPU %", "p50 ms", "p99 ms", "p99.9 ms", "MiB")


def as_markdown(about: Facts, results: Results, command: str) -> str:
    """A table of all, then one per workload with the medians of the rounds side by side."""
    sections = [section(name, outcomes) for name, outcomes in results.items()]
    return "\n".join(["# Benchmarks\n", summary(about, results, command), *sections])


def into_readme(readme: str, about: Facts, results: Results, command: str, chart: str) -> str:
    """A README with the table and the chart of this run between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    image = f"![Requests a second, by workload and server]({chart})"
    return f"{before}{BEGIN}\n{summary(about, results, command)}\n{image}\n\n{END}{after}"


def summary(about: Facts, results: Results, command: str) -> str:
    """The medians of all workloads and servers, and how ours compares with the best peer."""
    names = [name for name in SERVERS if any(name in outcomes for outcomes in results.values())]
    lines = [row(["workload", "", *names, "tinyasgi ÷ best peer"])]
    lines.append(row(["---", "---", *["---:"] * (len(names) + 1)]))
    for name, outcomes in results.items():
        cells = [cell(outcomes.get(server)) for server in names]
        ours, best = outcomes.get("tinyasgi"), best_peer(name, outcomes)
        ratio = ours.median() / best if ours and not ours.failure and best else None
        cells.append("" if ratio is None else f"**{ratio:.2f}**")
        lines.append(row([WORKLOADS[name].about, WORKLOADS[name].unit, *cells]))
    versions = ", ".join(f"{name} {about[name]}" for name in PACKAGES if about.get(name))
    machine = f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}"
    lines += [
        "",
        f"Medians of {about['rounds']} interleaved rounds of {about['seconds']} s, "
        f"{about['date']}; {machine}; CPython {about['python']}; {versions}. A - stands for what "
        f"a server does not have, does wrong or fails at under this load. Made by `{command}`.\n",
    ]
    return "\n".join(lines)


def cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "-" if outcome.failure else number(outcome.median())


def best_peer(workload: str, outcomes: Mapping[str, Outcome]) -> float | None:
    """The best median among the peers."""
    best = max if WORKLOADS[workload].more_is_better else min
    medians = [
        outcome.median()
        for server, outcome in outcomes.items()
        if SERVERS[server].is_peer and not outcome.failure
    ]
    return best(medians) if medians else None


def section(name: str, outcomes: Mapping[str, Outcome]) -> str:
    """One workload in detail. A ratio is a median divided by the best peer's."""
    workload = WORKLOADS[name]
    good = {server: outcome for server, outcome in outcomes.items() if not outcome.failure}
    best = best_peer(name, outcomes)
    sense = "more" if workload.more_is_better else "less"
    lines = [f"## {name}\n", f"{workload.about}: {workload.unit}, {sense} is better.\n"]
    if good:
        first = next(iter(good.values())).samples[0]
        details = [key for key in DETAILS if key in first]
        heads = ["server", "median", "min", "max", "÷ best peer", *details]
        lines += [row(heads), row(["---", *["---:"] * (len(heads) - 1)])]
    for server, outcome in good.items():
        values = outcome.values()
        cells = [number(value) for value in (outcome.median(), min(values), max(values))]
        cells.append(f"{outcome.median() / best:.2f}" if best else "")
        lines.append(row([server, *cells, *(number(outcome.median(key)) for key in details)]))
    failures = [f"- {server}: {o.failure}" for server, o in outcomes.items() if o.failure]
    return "\n".join([*lines, *([""] if good and failures else []), *failures, ""])


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three digits that matter, or all those before the point."""
    return f"{value:,.0f}" if value >= 100 or not value else f"{value:.3g}"
