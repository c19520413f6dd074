"""HTTP/2 connections as a state machine: streams, windows, resets, time and shutdown in any order.

`make property` tries more, at random.
"""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.properties import profile
from tests.support.simulation import simulated
from tinyasgi.protocols.http2.frames import INITIAL_WINDOW, ErrorCode
from tinyasgi.protocols.states import COMPLETE

from .client import Client

#: Size of the response to `/large` in bytes, more than all windows at the beginning.
LARGE = 150_000
#: Increment of a window at the end, with room for everything.
ALL = 1 << 24


@dataclass
class Stream:
    """A stream as the client knows it."""

    path: str
    window: int
    credit: int = INITIAL_WINDOW
    sent: bytes = b""
    has_ended: bool = False
    is_reset: bool = False

    @property
    def is_open(self) -> bool:
        """The client may send body."""
        return self.path == "/echo" and not self.has_ended and not self.is_reset


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.release = asyncio.Event()
        self.simulation = self.stack.enter_context(
            simulated(self.app, timeout_keep_alive=1e6, timeout_write=0, timeout_body=0)
        )
        self.client = Client(self.simulation)
        self.initial = self.window = INITIAL_WINDOW
        self.streams: dict[int, Stream] = {}
        self.read = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/wait":
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200})
        more_body = path == "/echo"
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more_body = message["more_body"]
            if more_body:
                body = {"body": message["body"], "more_body": True}
                await send({"type": "http.response.body", **body})
        body = b"x" * (LARGE if path == "/large" else 10) if path != "/echo" else message["body"]
        await send({"type": "http.response.body", "body": body})

    # What the client does.

    @rule(path=st.sampled_from(["/", "/large", "/echo", "/wait"]))
    @precondition(lambda self: len(self.streams) < 60)
    def open(self, path: str) -> None:
        stream_id = 2 * len(self.streams) + 1
        self.streams[stream_id] = Stream(path, self.initial)
        if path == "/echo":
            self.client.post(stream_id, path=path)
        else:
            self.client.get(stream_id, path=path)

    @rule(data=st.data(), size=st.sampled_from([1, 100, 16_000]), ends=st.booleans())
    @precondition(lambda self: any(stream.is_open for stream in self.streams.values()))
    def send(self, data: Any, size: int, ends: bool) -> None:
        uploads = [number for number, stream in self.streams.items() if stream.is_open]
        stream_id = data.draw(st.sampled_from(uploads))
        stream = self.streams[stream_id]
        if stream.credit < size:
            return
        piece = bytes((stream_id & 255,)) * size
        stream.credit -= size
        stream.sent += piece
        stream.has_ended = ends
        self.client.data(stream_id, piece, *["END_STREAM"] * ends)

    @rule(increment=st.sampled_from([1, 1000, 20_000, 100_000]), data=st.data())
    def enlarge(self, increment: int, data: Any) -> None:
        stream_id = data.draw(st.sampled_from([0, *self.streams]))
        if stream_id:
            self.streams[stream_id].window += increment
        else:
            self.window += increment
        self.client.enlarge(stream_id, increment)

    @rule(size=st.sampled_from([0, 1, 30_000, INITIAL_WINDOW]))
    def resize(self, size: int) -> None:
        for stream in self.streams.values():
            stream.window += size - self.initial
        self.initial = size
        settings = {SettingsFrame.INITIAL_WINDOW_SIZE: size}
        self.client.send(SettingsFrame(0, settings=settings))

    @rule(data=st.data())
    @precondition(lambda self: self.streams)
    def reset(self, data: Any) -> None:
        stream_id = data.draw(st.sampled_from(sorted(self.streams)))
        self.streams[stream_id].is_reset = True
        self.client.send(RstStreamFrame(stream_id, ErrorCode.CANCEL))

    @rule(reads=st.booleans())
    def set_reading(self, reads: bool) -> None:
        self.client.peer.set_reading(reads)
        self.client.settle()

    @rule()
    def finish_waiting(self) -> None:
        self.release.set()
        self.client.settle()
        self.release.clear()

    @rule(seconds=st.sampled_from([1, 5]))
    def advance(self, seconds: int) -> None:
        self.simulation.loop.advance(seconds)
        self.client.settle()

    # What must be true.

    @invariant()
    def windows_are_respected(self) -> None:
        frames, self.read = self.client.frames[self.read :], len(self.client.frames)
        for frame in frames:
            if isinstance(frame, DataFrame) and frame.data:
                stream = self.streams[frame.stream_id]
                stream.window -= len(frame.data)
                self.window -= len(frame.data)
                assert stream.window >= min(0, self.initial - INITIAL_WINDOW)
                assert self.window >= 0
            elif type(frame).__name__ == "WindowUpdateFrame" and frame.stream_id:
                self.streams[frame.stream_id].credit += frame.window_increment
        assert not self.client.goaway
        self.simulation.check()

    def teardown(self) -> None:
        try:
            self.complete()
        finally:
            self.release.set()
            self.stack.close()

    def complete(self) -> None:
        """Let everything end: each stream that was not reset has its whole response."""
        client = self.client
        client.peer.set_reading(True)
        client.enlarge(0, ALL)
        self.release.set()
        for stream_id, stream in self.streams.items():
            if not stream.is_reset:
                if stream.is_open:
                    client.data(stream_id, b"", "END_STREAM")
                client.enlarge(stream_id, ALL)
        for stream_id, stream in self.streams.items():
            if not stream.is_reset:
                expected = {"/large": b"x" * LARGE, "/echo": stream.sent}
                assert client.body(stream_id) == expected.get(stream.path, b"x" * 10)
                assert client.ended(stream_id)
                assert client.reset(stream_id) is None
        complete = sum(entry.phase == COMPLETE for entry in self.simulation.log)
        assert len(self.simulation.log) == len(self.streams)
        assert complete >= sum(not stream.is_reset for stream in self.streams.values())
        assert client.ping()


TestMachine = Machine.TestCase
TestMachine.settings = profile(examples=60, steps=30)
