"""HTTP/1.1 connections as a state machine: clients, apps, time and shutdown in any order.

`make property` tries more, at random.
"""

import re
from collections import defaultdict
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from tests.support.network import RCVBUF, SNDBUF
from tests.support.properties import SimulationMachine, profile
from tests.support.simulation import Entry, footprint, simulated
from tinyasgi.protocols.exchange import HIGH_WATER
from tinyasgi.protocols.states import COMPLETE, LOST, REFUSED

from .model import BAD_HEADS, LIMITS, Client, Plan, Request, Run

#: The largest piece of a response body.
LARGE = 100_000
#: More than what a connection holds besides bodies: heads, and what is written together.
HEADS = 40_000
#: Longer than all timeouts together.
LONG = 300
#: Seconds in which a disconnect is noticed, even while nothing is read.
NOTICE = 2
#: More than what a client has to send.
ALL = 1 << 30

TIMEOUTS = {
    "timeout_head": 4,
    "timeout_body": 6,
    "timeout_keep_alive": 5,
    "timeout_write": 8,
    "timeout_graceful_shutdown": 7,
}

sizes = st.sampled_from([10, 5000, 0, LARGE])
steps = st.one_of(
    st.sampled_from(
        [
            ["wait", "read"],
            ["read", "receive"],
            ["read", ("send", LARGE), ("send", 10)],
            ["wait", ("send", 10), "read"],
            ["read", "listen", ("send", 10), "wait"],
            [("send", LARGE), "wait", ("send", LARGE)],
            ["read", ("send", 10), "receive"],
        ]
    ),
    st.lists(
        st.one_of(
            st.sampled_from(["read", "receive", "wait", "listen"]),
            st.tuples(st.just("send"), sizes),
            st.tuples(st.just("sleep"), st.sampled_from([1, 5])),
        ),
        max_size=4,
    ),
)
valid = st.builds(
    Plan,
    method=st.sampled_from(["POST", "GET", "POST", "HEAD", "PURGE"]),
    version=st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
    framing=st.sampled_from(["chunked", "length", "none"]),
    size=st.sampled_from([500, 0, 1, 70_000, 150_000]),
    expect=st.sampled_from([False, False, True]),
    close=st.sampled_from([False, False, False, True]),
    steps=steps,
    status=st.sampled_from([200, 200, 200, 404, 204, 304]),
    measured=st.booleans(),
)
faulty = st.builds(
    Plan,
    method=st.just("POST"),
    framing=st.sampled_from(["bad", "length"]),
    size=st.sampled_from([500, 150_000]),
    fault=st.integers(0, 5),
    steps=steps,
    measured=st.booleans(),
    ending=st.sampled_from(["wrong", "return", "raise"]),
)
#: How clients leave, and how servers stop.
ENDS, STOPS = ["half_close", "close", "reset"], ["stop", "leave", "quit"]
indexes = st.integers(0, 3)


class HTTP1Machine(SimulationMachine):
    """A server with up to three clients. Rules act; `check` looks at what has come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.requests: dict[int, Request] = {}
        self.runs: dict[int, Run] = {}
        self.stops = self.tells = self.finishes = False

    @initialize(
        http=st.sampled_from(["httptools", "h11"]),
        cancel=st.booleans(),
        concurrency=st.sampled_from([0, 0, 2]),
        delay=st.sampled_from([0, 0, 3]),
        rate=st.sampled_from([0, 240]),
    )
    def start(self, http: str, cancel: bool, concurrency: int, delay: int, rate: int) -> None:
        options = {"http": http, "cancel_on_disconnect": cancel, "shutdown_delay": delay}
        options |= {"limit_concurrency": concurrency, "min_rate_write": rate, "min_rate_body": rate}
        self.delay, self.busy = delay, {503} if concurrency else set()
        self.simulation = self.stack.enter_context(
            simulated(self.app, **options, **LIMITS, **TIMEOUTS)
        )
        self.loop = self.simulation.loop
        self._connect()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        assert number not in self.runs, "the app is called twice"
        self.runs[number] = run = Run(self.requests[number])
        assert run.plan.version == "1.1" or run.plan.framing != "chunked", "chunks in HTTP/1.0"
        if self.finishes:
            run.release.set()
        assert scope["headers"] == run.request.headers
        assert scope["state"] == {}
        scope["headers"].append((b"x-leak", b""))  # no other request may see that
        scope["state"]["leak"] = number
        await run(receive, send)

    # What clients do.

    def _connect(self) -> Client:
        client = Client(self.simulation.connect())
        client.busy = self.busy
        self.clients.append(client)
        return client

    def _open(self, index: int) -> Client:
        """A client that can send a further request."""
        able = [client for client in self.clients if client.is_able]
        if len(able) <= min(index, 2):
            return self._connect()
        return able[index % len(able)]

    def _any(self, index: int) -> Client:
        """One of the latest clients."""
        latest = self.clients[-3:]
        return latest[index % len(latest)]

    @rule(index=indexes, plan=valid)
    def request(self, index: int, plan: Plan) -> None:
        self._add(index, plan).send(ALL)
        self.loop.settle()

    @rule(index=indexes, plan=valid, size=st.sampled_from([-1, 1, 30, -2, 200, 20_000, -3, 0]))
    def request_in_part(self, index: int, plan: Plan, size: int) -> None:
        """size: bytes to send for now; less than 0 counts from the end of the head."""
        client = self._add(index, plan)
        before = len(client.queue) - len(client.requests[-1].data)
        client.send(before + len(client.requests[-1].head) + size if size < 0 else size)
        self.loop.settle()

    def _add(self, index: int, plan: Plan) -> Client:
        client, number = self._open(index), len(self.requests)
        self.requests[number] = request = Request(number, plan)
        client.add(request)
        return client

    @rule(index=indexes, size=st.sampled_from([ALL, 1, -5, 20, 100, -3, 4000, 30_000]))
    def send(self, index: int, size: int) -> None:
        """size: less than 0 leaves so many bytes, such as the last chunk."""
        pending = [each for each in self.clients if each.queue and not each.peer.has_shut]
        if pending:
            client = pending[index % len(pending)]
            client.send(size if size > 0 else max(len(client.queue) + size, 0))
            self.loop.settle()

    @rule(index=indexes, size=st.sampled_from([ALL, 0, 3000, SNDBUF]))
    def read(self, index: int, size: int) -> None:
        """Let a client stop reading, or go on."""
        client = self._any(index)
        client.peer.set_reading(size == ALL)
        client.peer.read(size)
        self.loop.settle()

    # What else happens.

    @rule(index=indexes)
    def release(self, index: int) -> None:
        """Let an app go on that waits for something of its own."""
        waiting = [run for run in self.runs.values() if run.doing == "wait"]
        if waiting:
            waiting[index % len(waiting)].release.set()
            self.loop.settle()

    @rule(seconds=st.sampled_from([1, 0.5, 3, 7, 20]))
    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @rule(
        index=indexes,
        what=st.one_of(faulty, st.sampled_from([*BAD_HEADS]), st.sampled_from(ENDS + STOPS)),
    )
    def trouble(self, index: int, what: Plan | bytes | str) -> None:
        """A faulty request, a client that leaves, or a server that stops."""
        if isinstance(what, Plan):
            self._add(index, what).send(ALL)
        elif isinstance(what, bytes):
            client = self._open(index)
            client.add_bad(what)
            client.send(ALL)
        elif what in STOPS:
            self.stops = True
            self.tells = self.tells or (what != "leave" and not self.delay)
            self.loop.call_soon(getattr(self.simulation.server, what))
        else:
            client = self._any(index)
            client.ended = min(client.ended, self.loop.time())
            getattr(client.peer, what)()
        self.loop.settle()

    # What must hold.

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "simulation"):
            return
        try:
            self.check_log()
            entries = self.entries()
            for client in self.clients:
                client.check(self.runs, entries)
                self.check_flow(client, entries)
                self.check_loss(client, entries)
            self.check_memory()
        except BaseException:
            self.is_broken = True
            raise

    def entries(self) -> dict[int, list[Entry]]:
        """The access lines of each request that the app has got."""
        found: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.simulation.log:
            match = re.fullmatch(r"[A-Z]+ /([0-9]+) HTTP/1\..", entry.text)
            if match and entry.phase != REFUSED:
                found[int(match[1])].append(entry)
        return found

    def check_log(self) -> None:
        """At most one access line for each exchange, and what it says is true."""
        self.simulation.check()
        for number, entries in self.entries().items():
            assert len(entries) == 1, entries
            entry, run = entries[0], self.runs[number]
            if entry.phase == COMPLETE and run.has_started and entry.status == run.plan.status:
                bodiless = run.plan.method == "HEAD" or run.plan.status in (204, 304)
                assert run.has_ended
                assert entry.sent == (0 if bodiless else len(run.body_out))
            elif entry.phase == COMPLETE:
                assert entry.status == 500 and run.may_fail
            else:
                assert entry.phase == LOST
                assert entry.status in (0, run.plan.status, 400, 408, 413, 500)
                assert entry.sent <= len(run.body_out)
        for record in self.simulation.records:
            if record.levelname == "ERROR":
                assert record.exc_info and not isinstance(record.exc_info[1], AssertionError), (
                    record
                )

    def active(self, client: Client, entries: dict[int, list[Entry]]) -> Run | None:
        """The run whose response is not complete."""
        for request in client.requests:
            if request.number in self.runs and request.number not in entries:
                return self.runs[request.number]
        return None

    def check_flow(self, client: Client, entries: dict[int, list[Entry]]) -> None:
        """Nobody waits for data that is there, or for room that is there."""
        peer, run = client.peer, self.active(client, entries)
        if peer.socket is None or peer.socket.fileno() < 0:
            assert run is None, "the connection is gone, and its exchange is not"
            return
        if peer.sent:
            if run is None:
                assert peer.unread, "nothing is read although no exchange is running"
            else:
                assert run.doing != "receive" or run.has_body, "unread body, and the app waits"
        elif run is not None and run.doing == "receive":
            assert self.loop.time() <= client.ended + NOTICE, "no http.disconnect"
            assert not (self.tells and run.has_started), "a stream is not told of a stop"
            if run.request in client.delivered and not run.request.refusal:
                assert run.has_body, "the body is complete, and the app waits for it"
            if client.sent and not self.stops:
                self._check_continue(client, run)
        if run is not None and run.doing == "send":
            assert len(peer.unread) >= SNDBUF, "the app waits for a client that reads"

    def _check_continue(self, client: Client, run: Run) -> None:
        plan = run.plan
        wanted = plan.expect and plan.version == "1.1" and plan.framing != "none"
        is_first = not (run.body_in or run.has_body or run.has_started)
        if wanted and is_first and client.peer.reads:
            body_sent = len(run.request.data) - len(client.queue) > len(run.request.head)
            if client.requests[-1] is run.request and not body_sent:
                assert b" 100 Continue\r\n" in client.peer.received

    def check_loss(self, client: Client, entries: dict[int, list[Entry]]) -> None:
        """The server resets no connection whose client has still to read."""
        if client.peer.lost and not self.stops:
            slow = [each for each in self.simulation.records if "response" in each.getMessage()]
            cut = any(
                entries[r.number][0].phase == LOST for r in client.requests if r.number in entries
            )
            assert slow or cut, "a response is lost"

    def check_memory(self) -> None:
        for connection in self.simulation.connections:
            unsent = connection._transport.get_write_buffer_size()
            assert unsent <= HIGH_WATER + RCVBUF + LARGE
            held = footprint(connection) - unsent
            assert held <= HIGH_WATER + 2 * RCVBUF + HEADS, held

    def finish(self) -> None:
        """Let everything come to its end: each request is answered, or its connection closed."""
        self.finishes = True
        for run in self.runs.values():
            run.release.set()
        if not self.stops:
            self.check_answered()
            self.loop.advance(LONG)
            self.check()
            self.check_timeouts()
        for client in self.clients:
            client.peer.close()
        self.loop.advance(LONG)
        self.check()
        entries = self.entries()
        for number, run in self.runs.items():
            assert run.over, f"the app of {number} never ends"
            assert number in entries, f"{number} has no access line"
        assert not self.loop.timers, self.loop.timers
        if not self.stops:
            self.check_service()

    def check_answered(self) -> None:
        """With all apps free to go on, complete requests get answers at once."""
        self.loop.settle()
        self.check()
        entries = self.entries()
        for client in self.clients:
            peer = client.peer
            if peer.reads and not (peer.at_end or peer.has_shut or self.active(client, entries)):
                assert client.has_answers, "a request that gets no answer"

    def check_timeouts(self) -> None:
        """Whoever keeps the server waiting is sent away."""
        entries = self.entries()
        for client in self.clients:
            peer, run = client.peer, self.active(client, entries)
            if run is not None and run.doing != "send":
                continue
            assert peer.socket is None or peer.socket.fileno() < 0, "it is never closed"
            if client.is_in_head and peer.reads and client.has_answers and not peer.has_shut:
                *_, last = None, *client.responses()
                assert last and (last.closes or not last.complete), "no 408"

    def check_service(self) -> None:
        """A further client is served, whatever has been before."""
        number = len(self.requests)
        self.requests[number] = Request(number, Plan())
        client = Client(self.simulation.connect())
        client.add(self.requests[number])
        client.send(ALL)
        self.loop.settle()
        assert [response.status for response in client.responses()] == [200]
        self.loop.advance(LONG)


TestHTTP1 = HTTP1Machine.TestCase
TestHTTP1.settings = profile(examples=100, steps=30)
