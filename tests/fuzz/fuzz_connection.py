"""Random bytes, led by coverage, through `check`.

    python tests/fuzz/fuzz_connection.py -max_total_time=60 tests/fuzz/corpus

The arguments are libFuzzer's. What it finds goes to a new temporary directory, the corpus stays
as it is. An input that fails is written there too; pass its path to run it again.
"""

import asyncio
import os
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["tinyasgi"]):
    from check import check


def main() -> None:
    findings = tempfile.mkdtemp(prefix="tinyasgi-fuzz-")
    options = [f"-artifact_prefix={findings}{os.sep}", "-timeout=10", "-max_len=1000"]
    given = sys.argv[1:]
    if not any(os.path.isfile(argument) for argument in given):
        options.append(findings)  # the first directory takes new inputs
    with asyncio.Runner() as runner:
        atheris.Setup([sys.argv[0], *options, *given], lambda data: runner.run(check(data)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
