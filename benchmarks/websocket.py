"""WebSocket under load, by a client that does less than any server (RFC 6455).

It sends one prepared frame over and over and counts the bytes of what comes back. What they are
was checked before.
"""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import quantiles

from .process import HOST, Process
from .samples import PERCENTILES, Launch, Sample, Workload
from .servers import Failure

__all__ = ["broadcast", "echo", "frame"]

KEY = base64.b64encode(bytes(16))
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
)
MASK = b"\x37\xfa\x21\x3d"
BINARY = b"\x82"
PATIENCE = 10.0  # seconds without a byte until a server has failed


def frame(message: bytes, mask: bytes = b"") -> bytes:
    """A binary message in one frame."""
    length, bit = len(message), 0x80 if mask else 0
    if length < 126:
        head = bytes([bit | length])
    elif length < 65536:
        head = bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([bit | 127]) + length.to_bytes(8, "big")
    if mask:
        pad = (mask * (length // 4 + 1))[:length]
        whole = int.from_bytes(message, "big") ^ int.from_bytes(pad, "big")
        message = whole.to_bytes(length, "big")
    return BINARY + head + mask + message


def echo(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Messages per second that go there and back, one at a time on each connection."""
    ping, reply = frame(workload.body, MASK), frame(workload.answer)
    with launch() as process, switched(process, workload.connections) as sockets:
        for connection in sockets:
            connection.sendall(ping)
            expect(connection, reply)
        play(sockets, ping, len(reply), 1)
        before, began = process.cpu_seconds(), time.perf_counter()
        times = play(sockets, ping, len(reply), seconds)
        cpu, elapsed = process.cpu_seconds() - before, time.perf_counter() - began
        return sample(times, len(times), cpu, elapsed)


def play(sockets: list[socket.socket], ping: bytes, size: int, seconds: int) -> list[float]:
    """Ping-pong; the seconds that each reply took. size: of a reply, in bytes."""
    by_number = {connection.fileno(): connection for connection in sockets}
    missing = dict.fromkeys(by_number, size)
    epoll, buffer, clock = select.epoll(), bytearray(65536), time.perf_counter
    sent: dict[int, float] = {}
    times: list[float] = []
    for number, connection in by_number.items():
        epoll.register(number, select.EPOLLIN)
        sent[number] = clock()
        connection.send(ping)
    end = clock() + seconds
    playing = len(sockets)
    with epoll:
        while playing:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise Failure(f"no reply in {PATIENCE:g} s")
            for number, _ in ready:
                connection = by_number[number]
                count = connection.recv_into(buffer)
                if not count:
                    raise Failure("closed a connection under load")
                missing[number] -= count
                if missing[number] <= 0:
                    now = clock()
                    times.append(now - sent[number])
                    if now > end:
                        playing -= 1
                    else:
                        missing[number] = size
                        sent[number] = now
                        connection.sendall(ping)
    return times


def broadcast(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Messages per second to all connections, each sent by one when all have the one before."""
    ping, message = frame(workload.body, MASK), frame(workload.answer)
    with launch() as process, switched(process, workload.connections) as sockets:
        sockets[0].sendall(ping)
        for connection in sockets:
            expect(connection, message)
        epoll, by_number = select.epoll(), {sock.fileno(): sock for sock in sockets}
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        times: list[float] = []
        before, began = process.cpu_seconds(), time.perf_counter()
        now = began
        with epoll:
            while now < began + seconds:
                sockets[0].sendall(ping)
                missing = len(message) * len(sockets)
                while missing > 0:
                    ready = epoll.poll(PATIENCE)
                    if not ready:
                        raise Failure(f"{missing} bytes of a broadcast did not arrive")
                    missing -= sum(len(by_number[number].recv(65536)) for number, _ in ready)
                times.append(time.perf_counter() - now)
                now += times[-1]
        cpu, elapsed = process.cpu_seconds() - before, time.perf_counter() - began
        return sample(times, len(times) * len(sockets), cpu, elapsed)


def sample(times: list[float], messages: int, cpu: float, elapsed: float) -> Sample:
    """Of the seconds that each round took, and how many messages were received in all."""
    cuts = quantiles(times, n=10_000, method="inclusive")
    return {
        "value": messages / elapsed,
        "CPU µs/message": cpu / messages * 1e6,
        "CPU %": cpu / elapsed * 100,
        **{f"p{p:g} ms": cuts[round(p * 100) - 1] * 1000 for p in PERCENTILES},
    }


@contextmanager
def switched(process: Process, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have switched to WebSocket."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            connection = socket.create_connection((HOST, process.port), timeout=PATIENCE)
            sockets.append(stack.enter_context(connection))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(HANDSHAKE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                byte = connection.recv(1)  # what follows the head is a frame
                if not byte:
                    raise Failure("closed a connection instead of a handshake")
                head += byte
            if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
                raise Failure(f"refused a handshake: {head[:40].decode('latin-1')!r}")
        yield sockets


def expect(connection: socket.socket, expected: bytes) -> None:
    """Fails unless these are the next bytes."""
    received = b""
    while len(received) < len(expected):
        data = connection.recv(len(expected) - len(received))
        if not data:
            raise Failure("closed a connection instead of a reply")
        received += data
    if received != expected:
        raise Failure(f"wrong reply: {received[:40]!r}")
