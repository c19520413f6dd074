"""Compare tinyasgi with other ASGI servers, side by side on one machine.

Run it with `python -m benchmarks` from the root of the checkout (Linux only: it reads /proc).

* `servers` is the table of servers: a new peer is one more row.
* `workloads` is the table of workloads: a new one is one more row, with an app in `apps` or
  `frameworks`, measured by `load` (wrk), `websocket` or `resting`.
* `process` starts and stops a server, `environment` is what it runs in.
* `results` keeps what was measured, `report` and `charts` show it.
* `floor` is the least any server on this event loop and parser must spend.
* `hotpath` counts instructions instead, of what `in_memory` does.

The server has one core to itself and the load generator another. The rounds are interleaved, so
that a slow minute of the machine falls on every server and not on one of them. What a server
answers is checked, byte for byte, before it is measured.
"""
