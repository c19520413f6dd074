"""A pytest plugin for `make flaky`: repeat tests in random order while all cores are busy."""

import inspect
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.seeds import command, own_id

__all__ = ["run"]

#: A process that keeps a core busy until its parent ends.
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(1_000_000))"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flaky tests")
    group.addoption("--times", type=int, help="run each test so often, with busy cores")
    group.addoption("--within", type=float, help="seconds after which no more tests are run")
    group.addoption("--changed", metavar="REV", help="only tests that changed since a revision")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.times:
        config.pluginmanager.register(Flaky(config), "flaky tests")
    if config.option.changed:
        changed = Changed(config.rootpath, config.option.changed)
        config.pluginmanager.register(changed, "changed tests")


@pytest.fixture
def run(request: pytest.FixtureRequest) -> int:
    """The number of a repetition."""
    number: int = request.param
    return number


class Flaky:
    """Repeats each test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._end = float("inf")
        self._busy: list[subprocess.Popen[bytes]] = []
        self._left = 0

    def pytest_sessionstart(self) -> None:
        if not hasattr(self._config, "workerinput"):  # not in the workers of xdist
            words = [sys.executable, "-c", BUSY]
            self._busy = [subprocess.Popen(words) for _ in range(os.cpu_count() or 1)]

    def pytest_unconfigure(self) -> None:
        for process in self._busy:
            process.kill()
            process.wait()

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.fixturenames.append("run")
        changed = self._config.pluginmanager.get_plugin("changed tests")
        is_wanted = changed is None or changed.has(metafunc.definition)
        numbers = range(1, self._config.option.times + 1 if is_wanted else 2)
        metafunc.parametrize("run", numbers, indirect=True, ids="run{}".format)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        random.Random(self._config.option.seed).shuffle(items)
        items.sort(key=lambda item: item.callspec.params["run"])

    def pytest_collection_finish(self) -> None:
        if self._config.option.within:
            self._end = time.monotonic() + self._config.option.within

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        if time.monotonic() < self._end:
            return None
        self._left += 1
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._left:
            terminalreporter.write_line(f"{self._left} repetitions were left when time was up")
        failed = Counter(
            re.sub(r"\[run\d+\]$|-run\d+(?=\]$)", "", own_id(report.nodeid))
            for kind in ("failed", "error")
            for report in terminalreporter.getreports(kind)
        )
        if failed:
            terminalreporter.section("flaky tests")
        for nodeid, count in failed.most_common():
            times = f"{count} of {self._config.option.times} runs failed"
            terminalreporter.write_line(f"{times}: {command(self._config, nodeid)}")


class Changed:
    """Selects the tests of which a line was changed after a revision."""

    def __init__(self, root: Path, revision: str) -> None:
        words = ["git", "diff", "--unified=0", "--relative", revision, "--", "*.py"]
        diff = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout
        self._lines: dict[Path, set[int]] = {}
        lines: set[int] = set()
        for match in re.finditer(r"^\+\+\+ b/(.*)|^@@ \S+ \+(\d+)(?:,(\d+))?", diff, re.MULTILINE):
            path, first, count = match.groups()
            if path:
                lines = self._lines.setdefault(root / path, set())
            else:
                # Lines are removed after the first one if the count is 0.
                lines.update(range(int(first), int(first) + max(1, int(count or 1))))

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Import only test files with changes. None leaves the decision to others."""
        is_test = collection_path.match("test_*.py")
        return True if is_test and collection_path not in self._lines else None

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        changed = [item for item in items if self.has(item)]
        kept = set(changed)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = changed

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK

    def has(self, item: Any) -> bool:
        """Return whether a line of a test was changed."""
        if item.path not in self._lines:
            return False
        source, first = inspect.getsourcelines(inspect.unwrap(item.function))
        return not self._lines[item.path].isdisjoint(range(first, first + len(source)))
