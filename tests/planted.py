"""Planted faults: each of these changes must make one of its tests fail.

    python -m tests.planted [--jobs 2] [text]

The faults are of the kinds that were found in this server or in others. `text` selects those whose
path or new line contains it.
"""

import argparse
import sys
from typing import NamedTuple

from tests.support.copies import PACKAGE, Edit, try_all

HTTP = "tests/protocols/test_machine_http1.py"
WEBSOCKET = "tests/protocols/websocket/test_machine.py"
TABLE = "tests/conformance/test_conformance.py"
POLICY = "tests/workers/test_policy.py"
LIFE = "tests/protocols/test_http1.py"
FAULTS = "tests/test_faults.py"


class Planted(NamedTuple):
    path: str
    old: str
    """Text that occurs once in the file."""
    new: str
    tests: tuple[str, ...]

    def edit(self) -> Edit:
        """Return the faulty file. Raise ValueError if the table is out of date."""
        text = (PACKAGE / self.path).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.path} contains {text.count(self.old)} times: {self.old}")
        return Edit(self.path, text.replace(self.old, self.new), self.tests)


PLANTED = [
    # Framing of requests.
    Planted("http/body.py", "= size + 2", "= size + 3", (HTTP,)),
    Planted("http/body.py", "self._room -= size", "pass", (HTTP,)),
    Planted("http/body.py", "len(data) < remaining", "len(data) <= remaining", (HTTP,)),
    Planted("http/buffer.py", "len(self.data) - 3", "len(self.data)", (HTTP, TABLE)),
    Planted("http/buffer.py", "request.check_size(head, self._limit)", "pass", (HTTP,)),
    Planted(
        "http/request.py",
        'raise BadRequest(400, "both Transfer-Encoding and Content-Length")',
        "pass",
        (HTTP,),
    ),
    Planted(
        "http/request.py",
        'raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")',
        "pass",
        (HTTP,),
    ),
    Planted("protocols/request_head.py", "self._headers.copy(),", "self._headers,", (HTTP,)),
    Planted("protocols/http1.py", "context.lifespan_state.copy()", "{'leak': 0}", (HTTP,)),
    # Framing of responses.
    Planted(
        "http/response.py",
        'b"" if more_body else b"0\\r\\n\\r\\n"',
        'b""',
        (HTTP,),
    ),
    Planted("http/response.py", "if section.close or not persistent", "if section.close", (HTTP,)),
    Planted("http/memo.py", "if len(self) >= self._size", "if False", ("tests/http",)),
    # Connections.
    Planted(
        "protocols/http1.py",
        "            self._continue = False\n            self._write",
        "            self._write",
        (HTTP, LIFE),
    ),
    Planted(
        "protocols/response_writer.py",
        "elif not more_body:\n            self._flush()",
        "elif not more_body:\n            pass",
        (HTTP,),
    ),
    Planted(
        "protocols/http1.py",
        "if self._exchange is exchange:\n            self._flush()",
        "if self._exchange is None:\n            self._flush()",
        (HTTP, LIFE),
    ),
    Planted(
        "protocols/connection.py",
        "if not more:\n                self._flush()",
        "if not more:\n                pass",
        (HTTP,),
    ),
    Planted(
        "protocols/connection.py",
        "self.eof = self._drained = True\n        self._flush()",
        "self.eof = self._drained = True",
        (LIFE,),
    ),
    Planted(
        "protocols/connection.py",
        "if ticks - self._since > timeouts[self._state]:\n                self._expire()",
        "if ticks - self._since > timeouts[self._state]:\n                pass",
        (HTTP,),
    ),
    Planted("protocols/connection.py", "if not linger or self._drained", "if True", (HTTP,)),
    Planted(
        "protocols/http1.py",
        "_set_reading(not rest and not exchange.full)\n        elif",
        "_set_reading(not rest)\n        elif",
        (HTTP,),
    ),
    Planted(
        "protocols/response_writer.py",
        "if not exchange.persistent or context.stopping",
        "if not exchange.persistent",
        (HTTP, LIFE),
    ),
    Planted(
        "protocols/http1.py",
        "super().resume_writing()\n        if self._exchange is not None:\n"
        "            self._exchange.wake()",
        "super().resume_writing()\n        if self._exchange is not None:\n            pass",
        (HTTP,),
    ),
    Planted(
        "protocols/http1.py",
        "super().connection_lost(exc)\n        if self._exchange is not None:",
        "super().connection_lost(exc)\n        if exc is not None and self._exchange is not None:",
        (HTTP,),
    ),
    Planted(
        "protocols/exchange.py",
        "if arrived:\n            self._input = ARRIVED",
        "if arrived and data:\n            self._input = ARRIVED",
        (HTTP,),
    ),
    Planted(
        "protocols/exchange.py",
        "self._input = ARRIVED\n        if self._waiters:\n            self.wake()",
        "self._input = ARRIVED\n        if self._waiters and data:\n            self.wake()",
        (HTTP,),
    ),
    Planted(
        "protocols/context.py",
        "if self.concurrency and exchange.phase is COMPLETE:\n            self.unanswered -= 1",
        "if self.concurrency and exchange.phase is COMPLETE:\n            pass",
        (HTTP,),
    ),
    Planted("net/accept.py", "return 0 < limit <=", "return 0 < limit <", (FAULTS,)),
    # WebSocket.
    Planted(
        "protocols/websocket/frames.py",
        "self._room -= len(part)",
        "pass",
        (WEBSOCKET, "tests/protocols/websocket/test_frames.py"),
    ),
    Planted(
        "protocols/websocket/frames.py",
        "(self._key + self._key)[size & 3 :][:4]",
        "self._key",
        (WEBSOCKET,),
    ),
    Planted(
        "protocols/websocket/exchange.py",
        "self._held = len(self._messages) >= self._max_queue or self._queued >= HIGH_WATER",
        "self._held = len(self._messages) >= self._max_queue",
        (WEBSOCKET,),
    ),
    Planted(
        "protocols/websocket/connection.py",
        "            self._pong = None\n        if self._exchange",
        "        if self._exchange",
        (WEBSOCKET, "tests/protocols/websocket/test_connection.py"),
    ),
    Planted(
        "protocols/websocket/deflate.py",
        "limit + 1)",
        "0)",
        ("tests/protocols/websocket/test_deflate.py",),
    ),
    # Proxies.
    Planted(
        "proxy/trust.py",
        "address is not None and self[address]",
        "address is None or self[address]",
        ("tests/proxy",),
    ),
    Planted(
        "proxy/forwarded.py",
        "for index in range(len(hops) - 1, 0, -1)",
        "for index in range(len(hops) - 1)",
        ("tests/proxy",),
    ),
    Planted(
        "proxy/proxy_protocol.py",
        "return replace(peer, address=None)",
        "return peer",
        ("tests/proxy",),
    ),
    # Logs.
    Planted(
        "logs/access.py",
        "_UNQUOTABLE.sub(_escape, _or_dash(value))",
        "_or_dash(value)",
        ("tests/logs/test_access.py",),
    ),
    # The supervisor.
    Planted(
        "workers/policy.py",
        "            self._actions.append(actions.Tell(worker, STOP))\n"
        "            return self._advance(now)\n"
        "        worker.state = WorkerState.READY",
        "            return self._advance(now)\n        worker.state = WorkerState.READY",
        (POLICY,),
    ),
    Planted("workers/slot.py", "self.failures + 1 if", "0 if", (POLICY,)),
    Planted(
        "workers/policy.py",
        "slot.worker, worker, None",
        "slot.worker, None, None",
        (POLICY,),
    ),
    Planted("workers/queues.py", "elif helper not in serving", "elif helper is None", (POLICY,)),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("text", nargs="?", default="")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    wanted = [each for each in PLANTED if options.text in f"{each.path} {each.new}"]
    missed = 0
    for planted, is_noticed in try_all([(each, each.edit()) for each in wanted], options.jobs):
        missed += not is_noticed
        line = " / ".join(planted.new.split("\n"))
        print("noticed" if is_noticed else "MISSED ", planted.path, "-->", line, flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} faults were noticed")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
