"""Requests, apps and clients of the HTTP/1.1 state machine (`test_machine_http1`)."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.network import Peer
from tests.support.responses import Response, read_responses
from tests.support.simulation import Entry

__all__ = ["BAD_BODIES", "BAD_HEADS", "LIMITS", "Client", "Plan", "Request", "Run", "content"]

#: Limits that are small enough for short examples to reach them.
LIMITS = {"limit_head_size": 600, "limit_head_fields": 10, "limit_body_size": 200_000}

#: Heads that are refused, and with which status.
BAD_HEADS = {
    b"GET /\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: here\r\nBad Name: x\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: here\r\nX: a\0b\r\n\r\n": 400,
    b"GET / HTTP/1.1\nHost: here\n\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: here\r\n" + b"X: y\r\n" * 10 + b"\r\n": 431,
    b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"y" * 600 + b"\r\n\r\n": 431,
    b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"y" * 600: 431,
    b"GET /" + b"x" * 600: 414,
    b"GET /" + b"x" * 600 + b" HTTP/1.1\r\nHost: here\r\n\r\n": 414,
    b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 200001\r\n\r\n": 413,
    b"GET / HTTP/1.1\r\nHost: here\r\nExpect: a\r\n\r\n": 417,
    b"GET / HTTP/2.0\r\nHost: here\r\n\r\n": 505,
    b"CONNECT here:1 HTTP/1.1\r\nHost: here\r\n\r\n": 501,
}
#: Chunks that are refused, and with which status.
BAD_BODIES = {
    b"x\r\n": 400,
    b"3\r\nabcd\r\n": 400,
    b"-1\r\n": 400,
    b"30d41\r\n": 413,
    b"3;" + b"e" * 1100: 400,
    b"3\n": 400,
}


def content(number: int, size: int, mark: str) -> bytes:
    """Bytes in which every piece shows the number of its exchange."""
    unit = f"{mark}{number:05}".encode()
    return (unit * (size // len(unit) + 1))[:size]


@dataclass
class Plan:
    """A request, and the way in which the app answers it."""

    method: str = "GET"
    version: str = "1.1"
    framing: str = "none"
    """`none`, `length`, `chunked`, or `bad` for chunks with a fault."""
    size: int = 0
    fault: int = 0
    expect: bool = False
    close: bool = False
    # The app.
    steps: list[Any] = field(default_factory=list)
    status: int = 200
    measured: bool = False
    """The response has a Content-Length."""
    ending: str = "end"
    """`end`, `wrong` (the length is wrong), `return` or `raise`."""


class Request:
    """A request as it is sent."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number, self.plan = number, plan
        self.refusal = 0
        """The status of its refusal; 0 if it is valid."""
        lines = [
            f"{plan.method} /{number} HTTP/{plan.version}",
            "Host: here",
            f"X-Group: {number // 8}",
        ]
        self.body = content(number, plan.size, "(") if plan.framing != "none" else b""
        encoded = self.body
        if plan.framing == "length":
            lines.append(f"Content-Length: {len(self.body)}")
        elif plan.framing != "none":
            lines.append("Transfer-Encoding: chunked")
            encoded = b"".join(_chunks(self.body)) + b"0\r\n\r\n"
            if plan.framing == "bad":
                fault, self.refusal = list(BAD_BODIES.items())[plan.fault % len(BAD_BODIES)]
                encoded = b"".join(_chunks(self.body)) + fault
            if plan.version == "1.0":  # it has no chunks
                self.refusal = 400
        if plan.expect:
            lines.append("Expect: 100-continue")
        if plan.close:
            lines.append("Connection: close")
        elif plan.version == "1.0":
            lines.append("Connection: keep-alive")
        self.head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self.data = self.head + encoded
        pairs = [line.split(": ") for line in lines[1:]]
        self.headers = [(name.lower().encode(), value.encode()) for name, value in pairs]


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 30_000):
        piece = body[start : start + 30_000]
        yield b"%x;a=b\r\n%b\r\n" % (len(piece), piece)


class Run:
    """The app's part of an exchange."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.plan = request.plan
        #: `receive`, `send` or `wait` while the app waits for that.
        self.doing = ""
        self.release = asyncio.Event()
        self.body_in = b""
        self.has_body = False
        self.body_out = b""
        self.has_started = self.has_ended = False
        self.got_disconnect = False
        self.error: BaseException | None = None
        self.over = False

    async def __call__(self, receive: Any, send: Any) -> None:
        listener: asyncio.Task[None] | None = None
        try:
            for step in self.plan.steps:
                if step == "listen" and listener is None and self.has_body:
                    listener = asyncio.create_task(self._listen(receive))
                elif step != "listen":
                    await self._take(step, receive, send)
            await self._finish(send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.doing = ""
            self.over = True
            if listener is not None:
                listener.cancel()

    async def _take(self, step: Any, receive: Any, send: Any) -> None:
        if step == "receive":
            await self._receive(receive)
        elif step == "read":
            while not (self.has_body or self.got_disconnect):
                await self._receive(receive)
        elif step == "wait":
            self.doing = "wait"
            await self.release.wait()
        elif step[0] == "sleep":
            self.doing = "sleep"
            await asyncio.sleep(step[1])
        else:
            await self._send(send, step[1], True)

    async def _receive(self, receive: Any) -> None:
        self.doing = "receive"
        message = await receive()
        self.doing = ""
        if message["type"] == "http.disconnect":
            self.got_disconnect = True
            return
        assert not self.has_body, "a message after the end of the body"
        self.body_in += message["body"]
        assert self.request.body.startswith(self.body_in), "not the body of this request"
        self.has_body = not message["more_body"]
        if self.has_body:
            assert self.plan.framing != "bad"
            assert self.body_in == self.request.body

    async def _listen(self, receive: Any) -> None:
        message = await receive()
        assert message == {"type": "http.disconnect"}
        self.got_disconnect = True

    async def _finish(self, send: Any) -> None:
        if self.plan.ending == "raise":
            raise ValueError("planned")
        if self.plan.ending != "return":
            await self._send(send, 100, False)

    async def _send(self, send: Any, size: int, more_body: bool) -> None:
        self.doing = "send"
        if not self.has_started:
            headers = [(b"x-answer", b"%d" % self.request.number)]
            if self.plan.measured:
                sizes = [step[1] for step in self.plan.steps if step[0] == "send"]
                wrong = self.plan.ending == "wrong"
                headers.append((b"content-length", b"%d" % (sum(sizes) + 100 + wrong)))
            await send(
                {"type": "http.response.start", "status": self.plan.status, "headers": headers}
            )
            self.has_started = True
        piece = content(self.request.number, len(self.body_out) + size, "[")[len(self.body_out) :]
        self.body_out += piece
        self.has_ended = not more_body
        await send({"type": "http.response.body", "body": piece, "more_body": more_body})
        self.doing = ""

    @property
    def may_fail(self) -> bool:
        """The app may end without a response of its own."""
        wrong = self.plan.ending == "wrong" and self.plan.measured
        return wrong or self.plan.ending in ("return", "raise") or self.error is not None


class Client:
    """A client, the requests that it sends, and what is left of them to send."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.requests: list[Request] = []
        self.queue = b""
        self.sent = 0
        """How many bytes it has sent before the server closed the connection."""
        self.ended = math.inf
        """When it has sent its FIN or RST."""
        self.is_bad = False
        """What it sends ends in something that is no request."""
        self.refusal = 0
        """The status of the refusal of that, unless it belongs to a request."""
        self.busy: set[int] = set()
        """Statuses with which the server may refuse any request."""
        self._offsets: list[int] = []
        self._end = 0

    @property
    def is_able(self) -> bool:
        """It can send another request."""
        return not (self.is_bad or self.peer.has_shut or self.peer.at_end)

    def add(self, request: Request) -> None:
        self.requests.append(request)
        self.is_bad = self.is_bad or request.plan.framing == "bad"
        self.add_bytes(request.data)
        self._offsets.append(self._end)

    def add_bad(self, head: bytes) -> None:
        """Send something that is no request, after which nothing follows."""
        self.is_bad, self.refusal = True, BAD_HEADS[head]
        self.add_bytes(head)

    def add_bytes(self, data: bytes) -> None:
        self.queue += data
        self._end += len(data)

    def send(self, size: int) -> None:
        data, self.queue = self.queue[:size], self.queue[size:]
        if not (self.peer.is_reset or self.peer.has_fin):
            self.sent += len(data)
        self.peer.send(data)

    @property
    def begun(self) -> list[Request]:
        """The requests whose head is sent."""
        pairs = zip(self.requests, self._offsets, strict=True)
        return [
            request
            for request, end in pairs
            if end - len(request.data) + len(request.head) <= self.sent
        ]

    @property
    def delivered(self) -> list[Request]:
        """The requests that are sent to their end."""
        pairs = zip(self.requests, self._offsets, strict=True)
        return [request for request, end in pairs if end <= self.sent]

    def responses(self) -> list[Response]:
        """What has been answered, without 100 (Continue)."""
        return [response for response in self._read() if response.status != 100]

    def _read(self) -> list[Response]:
        methods = [request.plan.method for request in self.requests if request in self.begun]
        ended = self.peer.at_end and not (self.peer.is_reset or self.peer.has_reset)
        return read_responses(bytes(self.peer.received), [*methods, "GET"], ended)

    @property
    def has_answers(self) -> bool:
        """All requests that are sent to their end have an answer."""
        return len(self.responses()) >= len(self.delivered)

    @property
    def is_in_head(self) -> bool:
        """It has sent the beginning of a head, after complete requests."""
        delivered = len(self.delivered)
        start = self._offsets[delivered - 1] if delivered else 0
        is_known = len(self.begun) == delivered and len(self.requests) > delivered
        return is_known and self.sent > start

    def check(self, runs: dict[int, Run], entries: dict[int, list[Entry]]) -> None:
        """Check all that was answered against requests and runs."""
        number, last_continue = 0, -1
        for response in self._read():
            request = self.requests[number] if number < len(self.requests) else None
            if response.status == 100:
                assert request is not None and request.plan.expect
                assert request.plan.version == "1.1" and last_continue != number
                last_continue = number
                continue
            number += 1
            if b"x-answer" not in response.headers:
                self._check_own(response, request, runs)
                continue
            assert request is not None
            assert int(response.headers[b"x-answer"]) == request.number, "of another exchange"
            run = runs[request.number]
            assert response.status == run.plan.status
            if response.body or run.plan.method != "HEAD":
                assert run.body_out.startswith(response.body), "not the body of this exchange"
            for entry in entries.get(request.number, []):
                assert entry.sent >= len(response.body)
            if response.complete and response.body:
                assert response.body == run.body_out or run.may_fail
            if not response.complete:
                break

    def _check_own(self, response: Response, request: Request | None, runs: dict[int, Run]) -> None:
        """Check a response by the server itself."""
        if response.status == 500:
            assert request is not None
            run = runs[request.number]
            assert run.may_fail or run.got_disconnect
        else:
            refusal = self.refusal if request is None else request.refusal
            expected = {refusal, *self.busy} - {0}
            if self.sent < self._end if request is None else request not in self.delivered:
                expected.add(408)
            assert response.status in expected, "a valid request is refused"
            assert response.closes
