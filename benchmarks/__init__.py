"""Benchmarks of tinyasgi and other ASGI and WSGI servers, side by side on one machine.

Run `python -m benchmarks` in the root of the checkout. It needs Linux, because it reads /proc.

* `servers` has a row for each server.
* `workloads` has a row for each workload. The apps are in `apps`, `frameworks` and
  `wsgi_frameworks`; the measurements are in `load` (with wrk), `http2_load` (with h2load),
  `websocket`, `steady` and `resting`.
* `process` starts and stops a server. `environment` creates its environment.
* `results` stores the measurements. `report` and `charts` show them.
* `floor` is a server with minimal costs, for comparison.
* `hotpath` counts the instructions of `in_memory`.

The server runs on one core and the load generator on another. The rounds of the servers alternate,
so that a slow minute of the machine affects all of them. Before a measurement, the response of the
server is checked byte for byte.
"""
