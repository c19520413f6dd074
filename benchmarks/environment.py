"""Environment of the servers: interpreter, certificates, and facts about the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path

from .process import ROOT
from .servers import SERVERS

HERE = Path(__file__).resolve().parent
PACKAGES = ["httptools", "uvloop", "websockets", "flask", "django", *SERVERS]
VERSIONS_SCRIPT = """
import importlib.metadata, json, platform, sys
found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **{n: found.get(n) for n in sys.argv[1:]}}))
"""

Facts = dict[str, str | int | None]


def own_python() -> Path:
    """Return the interpreter of the benchmarks' virtual environment; create it if necessary.

    It has the pinned peers, and this checkout as an editable installation. It is created again when
    the requirements change. Each version of Python has its own.
    """
    home = HERE / f".venv-{sys.version_info.major}.{sys.version_info.minor}"
    requirements, python, stamp = HERE / "requirements.txt", home / "bin/python", home / "made-from"
    wanted = requirements.read_text() + (ROOT / "pyproject.toml").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Creating {home.relative_to(ROOT)} ...", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run([*install, "-e", f"{ROOT}[standard]"], check=True, timeout=600)
        stamp.write_text(wanted)
    return python


def certificates(directory: Path) -> dict[str, Path]:
    """Create a certificate and its key, if openssl is installed; return the paths."""
    files = {"certfile": directory / "cert.pem", "keyfile": directory / "key.pem"}
    if not shutil.which("openssl"):
        return files
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    paths = ["-out", str(files["certfile"]), "-keyout", str(files["keyfile"])]
    command = ["openssl", "req", "-x509", *curve, *name, *paths]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return files


def describe(python: Path, rounds: int, seconds: int) -> Facts:
    """Return the conditions of a run: machine, versions and settings."""
    command = [str(python), "-c", VERSIONS_SCRIPT, *PACKAGES]
    versions = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in cpus if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "rounds": rounds,
        "seconds": seconds,
        **json.loads(versions),
    }
