"""Latency at a fixed rate of requests, which does not depend on how fast the server responds.

A client that waits for a response before it sends the next request sends less while the server is
slow, so it measures few long latencies. Here each request has a time at which it is due. Its
latency begins at that time, even if all connections are still busy then.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque

from .load import run_wrk
from .process import Process
from .resting import REQUEST, connected
from .samples import Launch, Sample, Workload, percentiles
from .servers import Failure

SATURATION_SECONDS = 2
TIMEOUT = 10.0  # seconds without a response after which a server has failed


def half_load(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the latency at 50 % of the requests per second that the server can handle."""
    return steady(launch, workload, seconds, 0.5)


def high_load(launch: Launch, workload: Workload, seconds: int) -> Sample:
    """Measure the latency at 80 % of the requests per second that the server can handle."""
    return steady(launch, workload, seconds, 0.8)


def steady(launch: Launch, workload: Workload, seconds: int, share: float) -> Sample:
    """Measure the latency at a share of the saturation, which wrk measures before."""
    with launch() as process, connected(process, workload) as connections:
        run_wrk(process, workload, 1)
        rate = run_wrk(process, workload, SATURATION_SECONDS)["value"] * share
        connections.open(workload.connections)
        size = response_size(connections.sockets[0], workload.answer)
        return pace(process, connections.sockets, size, rate, int(rate * seconds))


def response_size(connection: socket.socket, answer: bytes) -> int:
    """Return the length of a response in bytes, with its head."""
    connection.sendall(REQUEST)
    received = b""
    while not received.endswith(answer):
        data = connection.recv(65536)
        if not data:
            raise Failure("closed a connection that should be kept alive")
        received += data
    return len(received)


def pace(
    process: Process, sockets: list[socket.socket], size: int, rate: float, count: int
) -> Sample:
    """Send `count` requests, `rate` per second. size: length of each response in bytes.

    The loop polls without waiting, because a timeout of epoll is a whole number of milliseconds.
    """
    idle, missing, due = deque(sockets), {}, {}
    by_number = {connection.fileno(): connection for connection in sockets}
    times: list[float] = []
    sent, clock, buffer = 0, time.perf_counter, bytearray(65536)
    gc.disable()  # a collection here would look like a slow server
    try:
        with select.epoll() as epoll:
            for number in by_number:
                epoll.register(number, select.EPOLLIN)
            before, began = process.cpu_seconds(), clock()
            heard = began  # time of the last response
            while len(times) < count:
                now = clock()
                while idle and sent < count and began + sent / rate <= now:
                    connection = idle.popleft()
                    number = connection.fileno()
                    due[number], missing[number] = began + sent / rate, size
                    connection.send(REQUEST)
                    sent += 1
                if not idle and now - heard > TIMEOUT:
                    raise Failure(f"no response in {TIMEOUT:g} s")
                for number, _ in epoll.poll(0):
                    got = by_number[number].recv_into(buffer)
                    if not got:
                        raise Failure("closed a connection under load")
                    missing[number] -= got
                    if missing[number] <= 0:
                        heard = clock()
                        times.append(heard - due[number])
                        idle.append(by_number[number])
            cpu, elapsed = process.cpu_seconds() - before, clock() - began
    finally:
        gc.enable()
    found = percentiles(times)
    return {
        "value": found["p99.9 ms"],
        "requests/s": count / elapsed,
        "CPU µs/request": cpu / count * 1e6,
        "CPU %": cpu / elapsed * 100,
        **found,
    }
