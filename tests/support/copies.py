"""Copies of the package with a fault, and the tests that should notice it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

__all__ = ["PACKAGE", "Edit", "is_noticed", "try_all"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tinyasgi"

#: Seconds for all tests of one fault. After that, they count as failed.
LIMIT = 900
#: Property tests try more examples, and do not look for the smallest one.
ENVIRONMENT = {"PATIENCE": "20", "PROPERTY_EXAMPLES": "1000", "PROPERTY_SHRINK": "0"}


class Edit(NamedTuple):
    """A changed file."""

    path: str
    """Relative to the package."""
    text: str
    """The whole file."""
    tests: Sequence[str]
    """Arguments for pytest: the tests that should fail."""


def is_noticed(edit: Edit) -> bool:
    """Run the tests with a copy of the package; return whether one fails or hangs."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(PACKAGE.parent, copy)
        (copy / "tinyasgi" / edit.path).write_text(edit.text, encoding="utf-8")
        options = ["-qx", "--seed=1", "-p", "no:cacheprovider", "-m", "not slow"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *edit.tests],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(copy)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output = process.communicate(timeout=LIMIT)[0]
        except subprocess.TimeoutExpired:
            return True
        finally:
            with suppress(ProcessLookupError):  # also servers that a test has left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 5 or "ERROR: not found" in output:
        raise ValueError(f"no such tests: {edit.tests}")
    return process.returncode != 0


Key = TypeVar("Key")


def try_all(edits: Iterable[tuple[Key, Edit]], jobs: int) -> Iterator[tuple[Key, bool]]:
    """Try edits in parallel; yield the key of each, in order, and whether it was noticed."""
    pairs = list(edits)
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(is_noticed, [edit for _, edit in pairs])
        for (key, _), result in zip(pairs, results, strict=True):
            yield key, result
