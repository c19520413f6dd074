"""Run the Autobahn test suite against the echo example. Every case must pass.

    python tests/autobahn.py              all 517 cases, about ten minutes
    python tests/autobahn.py '9.*' '10.*' cases of some groups
    python tests/autobahn.py quick        without most of the long cases

The suite is written in Python 2. It needs CPython 2.7 with pip, on the PATH or in pyenv. The suite
and its report are stored beside the current virtual environment.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(sys.prefix, "autobahn")
REPORT = HOME / "report"
SUITE = "autobahntestsuite==0.8.2"
#: Cases of groups 12 and 13 (compression) with short messages. Each case sends a thousand.
QUICK = [f"{group}.*" for group in range(1, 11)] + ["12.*.4", "13.*.4"]
#: Results of passed cases. INFORMATIONAL: RFC 6455 permits several behaviours.
GOOD = {"OK", "INFORMATIONAL"}

Results = dict[str, dict[str, Any]]


def pythons() -> Iterator[str]:
    """Return paths where CPython 2.7 may be installed."""
    if python := shutil.which("python2.7"):
        yield python
    if pyenv := shutil.which("pyenv"):
        root = subprocess.check_output([pyenv, "root"], text=True).strip()
        yield from map(str, Path(root, "versions").glob("2.7.*/bin/python"))


def install() -> list[str] | None:
    """Return the path of `wstest`; install it if necessary. None without CPython 2.7."""
    os.environ["PYTHONUSERBASE"] = str(HOME)
    os.environ["PYTHONWARNINGS"] = "ignore"  # ignore the deprecation warning for Python 2
    wstest, null = HOME / "bin" / "wstest", subprocess.DEVNULL
    for python in pythons():
        pip = [python, "-m", "pip", "-qq", "--disable-pip-version-check"]
        if subprocess.call([*pip, "--version"], stdout=null, stderr=null) == 0:
            if not wstest.exists():
                subprocess.run([*pip, "install", "--user", SUITE], check=True)
            return [python, str(wstest)]
    return None


def run(wstest: list[str], cases: list[str]) -> Results:
    """Return the result of each case by its number."""
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir()
    spec = REPORT / "spec.json"
    with socket.create_server(("127.0.0.1", 0)) as listener, (REPORT / "log").open("w") as log:
        server = {"agent": "tinyasgi", "url": f"ws://127.0.0.1:{listener.getsockname()[1]}"}
        choice = {"cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
        spec.write_text(json.dumps({"outdir": str(REPORT), "servers": [server]} | choice))
        fd = listener.fileno()
        command = [sys.executable, "-m", "tinyasgi", "--fd", str(fd), "examples.echo:app"]
        with subprocess.Popen(command, cwd=ROOT, pass_fds=[fd], stdout=log, stderr=log) as process:
            try:
                client = [*wstest, "-m", "fuzzingclient", "-s", str(spec)]
                subprocess.run(client, stdout=log, stderr=log, check=True)
            finally:
                process.terminate()
    results: Results = json.loads((REPORT / "index.json").read_text())["tinyasgi"]
    return results


def summary(results: Results) -> Iterator[str]:
    """Return a line for each group."""
    groups: dict[int, Counter[str]] = {}
    for number, result in results.items():
        groups.setdefault(int(number.split(".")[0]), Counter())[result["behavior"]] += 1
    for group, counts in sorted(groups.items()):
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        yield f"group {group:2}: {kinds}"


def main(cases: list[str]) -> int:
    """Run the suite; return the exit code."""
    wstest = install()
    if wstest is None:
        print("Autobahn: skipped, there is no CPython 2.7 with pip")
        return 0
    results = run(wstest, QUICK if cases == ["quick"] else cases or ["*"])
    print(*summary(results), f"report: {REPORT / 'index.html'}", sep="\n")
    bad = [
        f"{number}: {result['behavior']}, closing {result['behaviorClose']}"
        for number, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= GOOD
    ]
    print(*bad, f"Autobahn: {len(bad)} of {len(results)} cases are not OK", sep="\n")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
