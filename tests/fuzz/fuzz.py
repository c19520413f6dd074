"""Coverage-guided fuzzing with libFuzzer (atheris).

    python tests/fuzz/fuzz.py connection -max_total_time=60

The first argument is one of CHECKS. The others are arguments of libFuzzer. New inputs and failing
inputs are written to a temporary directory; the corpus is not changed. Pass the path of a failing
input to run it again.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import atheris

FUZZ = Path(__file__).parent
sys.path.insert(0, str(FUZZ.parents[1]))

with atheris.instrument_imports(include=["tinyasgi"]):
    from tests.fuzz import connection, frames, http2

CHECKS = {
    "connection": connection.check,
    "frames": frames.check,
    "http2": http2.check,
    "hpack": http2.check_hpack,
}


def main() -> None:
    script, name, *given = sys.argv
    findings = tempfile.mkdtemp(prefix="tinyasgi-fuzz-")
    options = [f"-artifact_prefix={findings}{os.sep}", "-timeout=10", "-max_len=1000"]
    if not any(os.path.isfile(argument) for argument in given):
        given += [findings, str(FUZZ / "corpus" / name)]  # new inputs are written to the first one
    with asyncio.Runner() as runner:
        atheris.Setup([script, *options, *given], lambda data: runner.run(CHECKS[name](data)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
