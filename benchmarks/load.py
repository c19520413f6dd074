"""HTTP under load, by wrk."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile

from .process import HOST, Process
from .samples import PERCENTILES, Launch, Sample, Workload
from .servers import Failure

__all__ = ["load", "run_wrk"]

# Times are in microseconds. wrk makes the request, or the batch of them, only once.
SCRIPT = """
wrk.method, wrk.body = "%(method)s", %(body)s
%(fields)s
if %(pipeline)d > 1 then
  local batch
  init = function() batch = string.rep(wrk.format(), %(pipeline)d) end
  request = function() return batch end
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests": %%d, "us": %%d, "errors": %%d',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
  for _, p in ipairs({%(percentiles)s}) do
    io.write(string.format(', "p%%g": %%d', p, latency:percentile(p)))
  end
  io.write("}")
end
"""


def load(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Requests per second under wrk, after a second in which the server warms up.

    A share of CPU well below 100 % means that wrk, not the server, was the limit. The requests
    that are under way when the time ends cost CPU and are not counted.

    wrk corrects its latencies for the requests that it could not send while it waited. It takes a
    batch for one of them, which makes nonsense of it: pipelined requests have no latency here.
    """
    with launch() as process:
        workload.check(process)
        if workload.pipeline > 1:
            check_batch(workload, process.port)
        run_wrk(process, workload, 1)
        return run_wrk(process, workload, seconds)


def check_batch(workload: Workload, port: int) -> None:
    """Fails unless all requests of a batch are answered."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    batch = (request + b"\r\n") * (workload.pipeline - 1) + request
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(batch + b"Connection: close\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    for part in (b"HTTP/1.1 200 ", workload.answer):
        if received.count(part) != workload.pipeline:
            raise Failure(f"wrong answer to {workload.pipeline} pipelined requests")


def run_wrk(process: Process, workload: Workload, seconds: int) -> Sample:
    """Runs wrk, which inherits this process's core."""
    fill = {
        "method": "POST" if workload.body else "GET",
        "body": json.dumps(workload.body.decode("ascii")) if workload.body else "nil",
        "fields": "\n".join(
            f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}"
            for name, value in workload.fields
        ),
        "pipeline": workload.pipeline,
        "percentiles": ", ".join(map(str, PERCENTILES)),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % fill)
        script.flush()
        options = [f"-c{workload.connections}", f"-d{seconds}s", "-t1", "--timeout=10s"]
        command = ["wrk", *options, f"-s{script.name}", process.url]
        limit = seconds + 30
        before = process.cpu_seconds()
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
        cpu = process.cpu_seconds() - before
    if run.returncode:
        raise Failure(f"wrk: {run.stderr.strip()}")
    result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    requests, elapsed = result["requests"], result["us"] / 1e6
    if result["errors"] or not requests:
        raise Failure(f"{result['errors']} errors, {requests} answers under load")
    sample = {
        "value": requests / elapsed,
        "CPU µs/request": cpu / requests * 1e6,
        "CPU %": cpu / elapsed * 100,
    }
    if workload.pipeline == 1:
        sample |= {f"p{p:g} ms": result[f"p{p:g}"] / 1000 for p in PERCENTILES}
    return sample
