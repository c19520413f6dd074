"""Blocking work outside the event loop: in a thread, or in another process.

    tinyasgi examples.sync_work:app

Start work in the background (``&``). Meanwhile, a light request gets its response at once:

    curl "http://127.0.0.1:8000/process?n=5000000" &
    curl "http://127.0.0.1:8000/thread" &
    curl "http://127.0.0.1:8000/"

All requests share one event loop. A function that computes for a second delays all of them for a
second, unless it runs elsewhere:

* in a thread, if it waits (``time.sleep``, a file, a database driver without ``async``) or releases
  the GIL while it works (``hashlib``, ``zlib``);
* in a process, if it computes in Python, because each process has its own GIL.
"""

import asyncio
import hashlib
import itertools
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ProcessPoolExecutor
from math import isqrt
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_N = 10_000_000  # limits the CPU time of a request


def hash_password() -> str:
    """Hash a password. This blocks but releases the GIL, so it runs in a thread."""
    return hashlib.pbkdf2_hmac("sha256", b"open sesame", b"salt", 1_000_000).hex()


def count_primes(n: int) -> int:
    """Count the primes up to n. This holds the GIL, so it runs in a process."""
    sieve = bytearray(2) + bytearray(b"\1") * (n - 1)
    for number in range(2, isqrt(n) + 1):
        if sieve[number]:
            for multiple in range(number * number, n + 1, number):
                sieve[multiple] = 0
    return sum(sieve)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Run each kind of work in the right place."""
    if scope["type"] == "lifespan":
        await lifespan(scope["state"], receive, send)
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])

    state = scope["state"]  # set by lifespan()
    match scope["path"]:
        case "/":
            await answer(send, 200, f"This is answer number {next(state['numbers'])}.")
        case "/thread":
            await answer(send, 200, await asyncio.to_thread(hash_password))
        case "/process":
            n = parse_qs(scope["query_string"].decode("latin-1")).get("n", [""])[0]
            if not (n.isdecimal() and len(n) < 10 and 2 <= int(n) <= MAX_N):
                await answer(send, 400, f"Give me an n from 2 to {MAX_N}.")
                return
            loop = asyncio.get_running_loop()
            primes = await loop.run_in_executor(state["pool"], count_primes, int(n))
            await answer(send, 200, f"There are {primes} primes up to {n}.")
        case _:
            await answer(send, 404, "Nothing here.")


async def lifespan(state: Message, receive: Receive, send: Send) -> None:
    """Create a process pool for all requests; shut it down at the end."""
    await receive()  # lifespan.startup
    pool = ProcessPoolExecutor(
        # Not "fork", which would copy the server with its open sockets.
        mp_context=multiprocessing.get_context("spawn"),
        # Ctrl-C reaches the whole process group. The server stops the pool.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    state.update(pool=pool, numbers=itertools.count(1))
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown: all requests have finished
    await asyncio.to_thread(pool.shutdown)
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Send, status: int, text: str) -> None:
    """Send a response of one line."""
    body = text.encode() + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
