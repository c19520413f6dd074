"""The files of deploy/ for systemd, logrotate, containers and Kubernetes, without a cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helpers import GET, Client, Command
from tests.support.processes import APP, wait_until
from tests.support.proxies import DEPLOY, shipped
from tinyasgi.cli import main

#: The startup message.
START = re.compile(r"http://127\.0\.0\.1:(\d+)")


def settings(capsys: Any, *words: str) -> dict[str, Any]:
    """Return the result of a command line as if it were valid."""
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--print-config"])
    assert not leaving.value.code
    return tomllib.loads(capsys.readouterr().out)


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def test_settings(capsys: Any) -> None:
    found = settings(capsys, "--config", str(DEPLOY / "tinyasgi.toml"))
    assert found["app"] == "app:app"


# systemd.


def test_units(tmp_path: Path, capsys: Any) -> None:
    verify = program("systemd-analyze")
    command = "/srv/site/.venv/bin/tinyasgi"
    unit = shipped("tinyasgi.service", {command: sys.executable})
    (tmp_path / "tinyasgi.service").write_text(unit)
    (tmp_path / "tinyasgi.socket").write_text(shipped("tinyasgi.socket", {}))
    units = [str(tmp_path / name) for name in ("tinyasgi.service", "tinyasgi.socket")]
    done = subprocess.run([verify, "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    seconds = next(int(line[15:]) for line in unit.splitlines() if "TimeoutStopSec=" in line)
    found = settings(capsys, "--config", str(DEPLOY / "tinyasgi.toml"))
    assert seconds > found["shutdown-delay"] + 2 * found["timeout-graceful-shutdown"]


@pytest.mark.slow
def test_socket_activation(tmp_path: Path) -> None:
    """systemd-socket-activate starts the server as the units do."""
    changes = {"workers = 4": "workers = 2", "shutdown-delay = 3": "shutdown-delay = 0"}
    (tmp_path / "tinyasgi.toml").write_text(shipped("tinyasgi.toml", changes))
    (tmp_path / "app.py").write_text(APP)
    path = str(tmp_path / "site.sock")
    words = [program("systemd-socket-activate"), "-l", path]
    words += [f"-E{name}" for name in ("PYTHONPATH", "PYTHONWARNINGS")]
    words += [sys.executable, "-m", "tinyasgi"]
    (tmp_path / "activate.py").write_text(f"import os\nos.execv({words[0]!r}, {words!r})\n")
    with Command(script="activate.py", cwd=tmp_path) as command:
        command.wait_for(f"Listening on {path} as ")  # the file exists earlier
        with Client(path) as client:  # starts the server
            answer = client.response(GET)
        assert int(answer.body.split()[0]) in (0, 1)
        command.wait_for(f"on unix:{path} ")
        with Client(path) as client:
            assert client.response(GET.replace(b"/ ", b"/healthz ")).body == b"ok\n"
        assert command.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_logrotate(tmp_path: Path) -> None:
    """Earlier lines are in the old file, later ones in the new file."""
    rotate = program("logrotate")
    (tmp_path / "app.py").write_text(APP)
    files = [f"--{kind}-log-file={tmp_path / kind}.log" for kind in ("access", "error")]
    with Command("--port=0", "--workers=2", *files, "app:app", cwd=tmp_path) as command:
        access, error = tmp_path / "access.log", tmp_path / "error.log"
        wait_until(lambda: error.exists() and START.search(error.read_text()))
        start = START.search(error.read_text())
        assert start is not None

        def ask(name: str) -> bool:
            with Client(int(start[1])) as client:
                client.response(GET.replace(b"/ ", f"/{name} ".encode()))
            return access.exists() and name in access.read_text()

        wait_until(lambda: ask("before"))
        changes = {
            "/var/log/tinyasgi/": f"{tmp_path}/",
            "systemctl kill --kill-who=main --signal=USR1 tinyasgi.service": (
                f"kill -USR1 {command.process.pid}"
            ),
        }
        (tmp_path / "rules").write_text(shipped("logrotate", changes))
        (tmp_path / "rules").chmod(0o644)
        subprocess.run([rotate, "-f", "-s", tmp_path / "state", tmp_path / "rules"], check=True)
        wait_until(lambda: ask("after"))
        assert command.stop() == 0
    assert "before" in (tmp_path / "access.log.1").read_text()
    assert "stopped" in error.read_text()


# Proxies.


def test_haproxy_takes_a_backend_out_before_it_stops() -> None:
    """HAProxy removes a backend after its second failed check, within the shutdown delay."""
    text = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    found = re.search(r"check inter (\d+)s fastinter (\d+)ms downinter 1s fall 2 rise 1", text)
    delay = re.search(r"--shutdown-delay (\d+)", text)
    assert found is not None
    assert delay is not None
    assert int(delay[1]) > int(found[1]) + int(found[2]) / 1000
    page = " ".join((DEPLOY / "README.md").read_text(encoding="utf-8").split())
    assert f"`--health-path` every {found[1]} s." in page
    assert f"which is {delay[1]} s or more" in page


# Containers.


def test_containerfile(capsys: Any) -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = dict(line.split(" ", 1) for line in lines)
    assert set(found) <= {"FROM", "COPY", "RUN", "WORKDIR", "USER", "ENV", "EXPOSE", "STOPSIGNAL",
                          "CMD"}  # fmt: skip
    assert ":" in found["FROM"]
    assert found["USER"].split(":")[0] not in ("0", "root")
    assert found["STOPSIGNAL"] == "SIGTERM"
    command, *words = json.loads(found["CMD"])  # JSON is the form without a shell
    assert command == "tinyasgi"
    options = settings(capsys, *words)
    assert (options["host"], str(options["port"])) == ("0.0.0.0", found["EXPOSE"])


def test_kubernetes(capsys: Any) -> None:
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    found = {document["kind"]: document for document in yaml.safe_load_all(text)}
    assert all(document["metadata"]["name"] == "site" for document in found.values())
    template = found["Deployment"]["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] == "tinyasgi"
    options = settings(capsys, *container["args"][1:])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    # Values that occur in two files are the same.
    assert ports["http"] == options["port"]
    assert options["metrics-bind"].endswith(f":{ports['metrics']}")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked == {"path": options["health-path"], "port": "http"}
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert found[kind]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    # Kubernetes knows that a pod is not ready before it stops accepting. The grace period suffices.
    ready = container["readinessProbe"]
    assert options["shutdown-delay"] > ready["periodSeconds"] * ready["failureThreshold"]
    drain = options["shutdown-delay"] + 2 * options["timeout-graceful-shutdown"]
    assert pod["terminationGracePeriodSeconds"] > drain
    page = (DEPLOY.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric in found["HorizontalPodAutoscaler"]["spec"]["metrics"]:
        assert f"`{metric['pods']['metric']['name']}`" in page
