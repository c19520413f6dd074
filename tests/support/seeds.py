"""A pytest plugin: all random values of a test come from a seed, and a failure names it."""

import random
import re
import shlex
import sys
from typing import Any

import pytest

__all__ = ["command", "own_id"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="seed of all random values (default: a new one)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.option.seed = config.workerinput["seed"]
    elif config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of xdist."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    chance = random.Random(f"{item.config.option.seed} {own_id(item.nodeid)}")
    random.seed(chance.randrange(2**32))
    if "hypothesis" in sys.modules:
        from hypothesis import core

        # As the option --hypothesis-seed does.
        core.global_force_seed = chance.randrange(2**32)  # type: ignore[assignment]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.option.times:
        return  # the plugin of `make flaky` names them
    failed = [r.nodeid for kind in ("failed", "error") for r in terminalreporter.getreports(kind)]
    if failed:
        terminalreporter.section("to run the failed tests again")
    for nodeid in dict.fromkeys(failed):
        terminalreporter.write_line(command(config, nodeid))


def command(config: pytest.Config, nodeid: str) -> str:
    """Return the command that runs a test again with the same random values."""
    times = f"--times={config.option.times} " if config.option.times else ""
    return f"python -m pytest {times}--seed={config.option.seed} {shlex.quote(own_id(nodeid))}"


def own_id(nodeid: str) -> str:
    """Return the id of a test without the group that xdist appends."""
    return re.sub(r"@\w+$", "", nodeid)
