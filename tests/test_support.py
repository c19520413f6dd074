"""The pytest plugins of the test suite itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import all_mutants, justified
from tests.planted import PLANTED, Planted
from tests.support import helpers

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "tests.support.seeds", "-p", "tests.support.flaky", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def only_these_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def failures(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("FAILED")]


def test_a_seed_repeats_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import random
        from hypothesis import Phase, given, settings, strategies as st

        def test_random():
            assert random.random() < 0

        @given(st.integers())
        @settings(phases=[Phase.generate])
        def test_hypothesis(number):
            assert number < 1000
    """)
    first = pytester.runpytest(*OPTIONS)
    (header,) = (line for line in first.outlines if line.startswith("seed: "))
    seed = header.replace(": ", "=")
    command = f"python -m pytest --{seed} test_a_seed_repeats_a_failure.py::test_random"
    assert command in first.outlines
    assert failures(pytester.runpytest(*OPTIONS, f"--{seed}")) == failures(first)
    assert failures(pytester.runpytest(*OPTIONS)) != failures(first)


def test_each_run_counts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import itertools
        import pytest

        count = itertools.count()

        def test_flaky():
            assert next(count) % 4 < 3

        @pytest.mark.parametrize("name", ["it", "run2"])
        def test_steady(tmp_path, name):
            tmp_path.joinpath("x").mkdir()
    """)
    result = pytester.runpytest(*OPTIONS, "--times=8", "--seed=3")
    result.assert_outcomes(passed=22, failed=2)
    command = "python -m pytest --times=8 --seed=3 test_each_run_counts.py::test_flaky"
    assert f"2 of 8 runs failed: {command}" in result.outlines


@pytest.mark.slow
def test_workers_of_xdist_have_the_same_seed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        import random

        @pytest.mark.xdist_group("own")
        def test_random():
            assert random.random() < 0
    """)
    parallel = ("-p", "xdist", "-n2", "--dist=loadgroup")
    first = pytester.runpytest(*OPTIONS, *parallel)
    (command,) = (line for line in first.outlines if line.startswith("python -m pytest --seed="))
    (error,) = (line for line in first.outlines if line.startswith("E       assert 0."))
    second = pytester.runpytest(*OPTIONS, *command.split()[-2:])
    assert {command, error} <= set(second.outlines)


def test_time_is_limited(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(): pass")
    result = pytester.runpytest(*OPTIONS, "--times=8", "--within=1e-9")
    assert "8 repetitions were left when time was up" in result.outlines


def test_changed_tests(pytester: pytest.Pytester) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", *identity, *words], cwd=pytester.path, check=True)

    file = "def test_one():\n    x\n    pass\n\n\n@decorate\ndef test_two():\n    pass\n\n\nx = 1\n"
    file = "def decorate(test):\n    return test\n\n\n" + file
    path = pytester.makepyfile(file)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")

    def names(text: str) -> list[str]:
        Path(path).write_text(text)
        result = pytester.runpytest(*OPTIONS, "--changed=HEAD", "-v")
        assert result.ret == pytest.ExitCode.OK
        return [line.split("::")[1].split()[0] for line in result.outlines if "PASSED" in line]

    assert names(file) == []
    assert names(file.replace("x = 1", "x = 2")) == []
    assert names(file.replace("decorate", "mark")) == ["test_two"]
    assert names(file.replace("    x\n", "")) == ["test_one"]
    assert names(file + "\n\ndef test_three():\n    assert x\n") == ["test_three"]


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_command_that_hangs_with_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps stderr open, but ends with it."""
    monkeypatch.setattr(helpers, "PATIENCE", 0.5)
    (tmp_path / "script.py").write_text("import os, time\nos.fork()\ntime.sleep(600)\n")
    with (
        helpers.Command(script="script.py", cwd=tmp_path) as command,
        pytest.raises(AssertionError, match="the process exited without a line like 'never'"),
    ):
        command.wait_for("never")


# Planted faults and mutants.


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.path)
def test_a_planted_fault_fits_the_code(planted: Planted) -> None:
    compile(planted.edit().text, planted.path, "exec")


def test_mutants_are_valid_and_different() -> None:
    found = list(all_mutants("proxy/trust.py"))
    assert len({mutant.edit.text for mutant in found}) == len(found) > 10
    for mutant in found:
        compile(mutant.edit.text, mutant.path, "exec")


def test_justified_survivors_exist() -> None:
    assert justified() <= {text for mutant in all_mutants("") for text in mutant.texts}
