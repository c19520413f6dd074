"""WebSockets as a state machine: clients, apps, time and shutdown in any order.

`make property` tries more of it, at random.
"""

import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from tests.support.network import RCVBUF, SNDBUF
from tests.support.properties import SimulationMachine, profile
from tests.support.simulation import Entry, footprint, simulated
from tinyasgi.protocols.states import COMPLETE, LOST, REFUSED

from .model import FAULTS, MAX_SIZE, Client, Talk

#: Longer than all timeouts together.
LONG = 60
#: More than what a client has to send.
ALL = 1 << 30
#: Seconds in which a disconnect is noticed, even while nothing is read.
NOTICE = 2
#: Bytes of messages that may wait for the app before reading pauses.
HIGH_WATER = 64 * 1024
#: What a connection holds besides messages: heads, and what is written together.
REST = 40_000

OPTIONS = {
    "ws_max_size": MAX_SIZE,
    "ws_ping_interval": 6,
    "ws_ping_timeout": 4,
    "timeout_write": 8,
    "timeout_graceful_shutdown": 7,
}
#: How clients leave, and how servers stop.
ENDS, STOPS = ["half_close", "close", "reset"], ["stop", "leave", "quit"]

indexes = st.integers(0, 3)
commands = st.one_of(
    st.sampled_from(["accept", "receive", "drain"]),
    st.tuples(st.sampled_from(["text", "bytes"]), st.sampled_from([5, 0, 200, 40_000])),
    st.sampled_from(["accept", "receive", "close", "return", "raise"]),
)


class WebSocketMachine(SimulationMachine):
    """A server with several clients. Rules act; `check` looks at what has come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.talks: dict[int, Talk] = {}
        self.stops = False

    @initialize(
        http=st.sampled_from(["httptools", "h11"]),
        cancel=st.booleans(),
        deflate=st.sampled_from([True, True, False]),
        queue=st.sampled_from([4, 32]),
    )
    def start(self, http: str, cancel: bool, deflate: bool, queue: int) -> None:
        self.deflate, self.queue = deflate, queue
        options: dict[str, Any] = {"http": http, "cancel_on_disconnect": cancel}
        options |= {"ws_per_message_deflate": deflate, "ws_max_queue": queue}
        self.simulation = self.stack.enter_context(simulated(self.app, **options, **OPTIONS))
        self.loop = self.simulation.loop

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        assert number not in self.talks, "the app is called twice"
        self.talks[number] = talk = Talk(self.clients[number])
        await talk(receive, send)

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        self.loop.settle()
        while sum(client.answer_pings() for client in self.clients):
            self.loop.settle()

    # What clients do.

    def _connect(self, compress: bool, is_alive: bool) -> Client:
        compress = compress and self.deflate
        peer = self.simulation.connect()
        client = Client(len(self.clients), peer, compress, is_alive)
        self.clients.append(client)
        return client

    def _able(self, index: int) -> Client:
        able = [client for client in self.clients if client.is_able]
        return able[index % len(able)] if able else self._connect(index == 1, index != 2)

    def _any(self, index: int) -> Client | None:
        latest = self.clients[-3:]
        return latest[index % len(latest)] if latest else None

    @rule(compress=st.booleans(), is_alive=st.booleans(), accept=st.booleans())
    def open(self, compress: bool, is_alive: bool, accept: bool) -> None:
        if len([client for client in self.clients if client.is_able]) < 3:
            client = self._connect(compress, is_alive)
            client.send(ALL)
            self.settle()
            if accept and client.number in self.talks:
                self.talks[client.number].tell("accept")
                self.settle()

    @rule(
        index=indexes,
        size=st.sampled_from([5, 0, 300, 20_000, MAX_SIZE]),
        is_text=st.booleans(),
        pieces=st.sampled_from([1, 1, 2, 4]),
        compress=st.booleans(),
        deliver=st.sampled_from([ALL, ALL, 0, 1, 30]),
        count=st.sampled_from([1, 1, 1, 8]),
    )
    def message(
        self,
        index: int,
        size: int,
        is_text: bool,
        pieces: int,
        compress: bool,
        deliver: int,
        count: int,
    ) -> None:
        client = self._able(index)
        for _ in range(count):
            client.add_message(size, is_text, pieces, compress)
            client.send(deliver)
        self.settle()

    @rule(index=indexes)
    def ping(self, index: int) -> None:
        client = self._able(index)
        client.add_ping()
        client.send(ALL)
        self.settle()

    @rule(index=indexes, size=st.sampled_from([ALL, 1, 20, 5000]))
    def send(self, index: int, size: int) -> None:
        pending = [each for each in self.clients if each.queue and not each.peer.has_shut]
        if pending:
            pending[index % len(pending)].send(size)
            self.settle()

    @rule(index=indexes, size=st.sampled_from([ALL, 0, 3000, SNDBUF]))
    def read(self, index: int, size: int) -> None:
        """Let a client stop reading, or go on."""
        if client := self._any(index):
            client.peer.set_reading(size == ALL)
            client.peer.read(size)
            self.settle()

    # What else happens.

    @rule(index=indexes, command=commands)
    def tell(self, index: int, command: Any) -> None:
        """Tell an app what to do."""
        talks = [talk for talk in self.talks.values() if not talk.over]
        if talks:
            talks[index % len(talks)].tell(command)
            self.settle()

    @rule(seconds=st.sampled_from([1, 0.5, 3, 7, 20]))
    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds) or 1):
            self.loop.advance(min(seconds, 1))
            self.settle()

    @rule(
        index=indexes,
        what=st.sampled_from([*FAULTS, *[1000, 1001, 1005, 3000] * 2, *ENDS * 2, *STOPS]),
    )
    def trouble(self, index: int, what: int | str) -> None:
        """A fault or the end of a client, or a server that stops."""
        if what in STOPS:
            self.stops = True
            self.loop.call_soon(getattr(self.simulation.server, str(what)))
        elif what in ENDS:
            if client := self._any(index):
                client.ended = min(client.ended, self.loop.time())
                getattr(client.peer, str(what))()
        else:
            client = self._able(index)
            if isinstance(what, int):
                client.add_close(what)
            else:
                client.add_fault(what)
            client.send(ALL)
        self.settle()

    # What must hold.

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "simulation"):
            return
        try:
            self.simulation.check()
            entries = self.entries()
            for client in self.clients:
                talk = self.talks.get(client.number)
                client.check(talk)
                if talk is not None:
                    self.check_talk(client, talk, entries.get(client.number))
            self.check_memory()
        except BaseException:
            self.is_broken = True
            raise

    def entries(self) -> dict[int, Entry]:
        """The access line of each handshake that the app has got."""
        found: dict[int, Entry] = {}
        for entry in self.simulation.log:
            match = re.match(r"GET /([0-9]+)\?", entry.text)
            if match and entry.phase != REFUSED:
                assert int(match[1]) not in found, "two access lines"
                found[int(match[1])] = entry
        return found

    def check_talk(self, client: Client, talk: Talk, entry: Entry | None) -> None:
        peer = client.peer
        assert talk.error is None or not isinstance(talk.error, AssertionError), talk.error
        if entry is not None:
            assert entry.phase in (COMPLETE, LOST)
            expected = 101 if talk.has_accepted else 403 if talk.has_closed or talk.over else 0
            assert entry.status in (expected, 500, 0, 101), entry
            assert entry.sent in (0, sum(map(len, talk.sent)), *self._cut(talk), 10, 21), entry
        if talk.doing == "receive" and not talk.has_accepted:
            assert self.loop.time() <= client.ended + NOTICE, "no websocket.disconnect"
        elif talk.doing == "receive" and entry is None:
            assert not peer.sent, "the app waits for messages that are there"
            assert len(talk.received) == client.delivered, "a message does not reach the app"
            assert self.loop.time() <= client.ended + NOTICE, "no websocket.disconnect"
        elif talk.doing == "receive":
            raise AssertionError("the app waits after the end")
        elif talk.doing == "send":
            assert len(peer.unread) >= SNDBUF, "the app waits for a client that reads"
        if talk.code and not self.stops:
            self.check_code(client, talk.code)
        if peer.socket is not None and peer.socket.fileno() < 0:
            assert entry is not None, "the connection is gone, and its exchange is not"

    def _cut(self, talk: Talk) -> list[int]:
        """Bytes that the app has sent, if the last message found the connection broken."""
        return [sum(map(len, talk.sent[:-1]))]

    def check_code(self, client: Client, code: int) -> None:
        """The app gets the code of whoever has ended the connection."""
        if code == 1011:
            assert client.was_silent
        elif code == client.last and code != 1000:
            pass
        elif code != 1006:
            own = {4000, 1000, 1011} if self.talks[client.number].has_closed else set()
            assert code in own | {client.last}, code

    def check_memory(self) -> None:
        for connection in self.simulation.connections:
            assert len(getattr(connection._exchange, "_messages", ())) <= self.queue
            unsent = connection._transport.get_write_buffer_size()
            assert unsent <= HIGH_WATER + RCVBUF + MAX_SIZE
            held = footprint(connection) - unsent
            assert held <= HIGH_WATER + 3 * MAX_SIZE + 2 * RCVBUF + REST, held

    def finish(self) -> None:
        """Let everything come to its end."""
        if not self.stops:
            self.advance(LONG)
            self.check()
            self.check_silent()
        for client in self.clients:
            client.peer.close()
        for talk in self.talks.values():
            talk.tell("drain")
            talk.tell("return")
        self.advance(LONG)
        self.check()
        entries = self.entries()
        for number, talk in self.talks.items():
            assert talk.over, f"the app of {number} never ends"
            assert number in entries, f"{number} has no access line"
        assert not self.loop.timers, self.loop.timers

    def check_silent(self) -> None:
        """Connections are closed whose client is silent, does not read, or has closed."""
        for client in self.clients:
            talk, peer = self.talks.get(client.number), client.peer
            if peer.socket is None or peer.socket.fileno() < 0:
                continue
            if talk is None:
                raise AssertionError("an incomplete handshake stays open")
            if not talk.has_accepted:
                continue
            if peer.sent or (talk.doing != "receive" and client.messages):
                continue  # what the client has to say is not read, as the app does not want it
            assert client.is_alive and peer.reads, "a silent client stays connected"
            assert not (client.last and not client.queue), "it stays open after a Close frame"


TestWebSocket = WebSocketMachine.TestCase
TestWebSocket.settings = profile(examples=60, steps=30)
