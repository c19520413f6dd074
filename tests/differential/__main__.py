"""Send random streams to several servers, and compare what their apps see.

    python -m tests.differential --peers build/peers [--count 1000] [--seed 1]

Differences are listed by kind. Those in differences.txt are explained; any other is a failure.
"""

import argparse
import asyncio
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.conformance.test_conformance import SEEDS, SPICES

from .peers import OURS, PROXIES, SERVERS, running

#: Seconds of silence after which a server waits for more.
SILENCE = 0.5
#: Streams at once.
CONCURRENCY = 16
#: What ends each stream. A server that is at a request head closes after it.
END = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n(?=([^\r\n]*))")
_ECHO = re.compile(rb"^x-echo: *(\S+)\r$", re.MULTILINE | re.IGNORECASE)


class Outcome(NamedTuple):
    seen: tuple[bytes, ...]
    """The requests that the app has answered."""
    end: str
    """`refused`, `closed` or `waits`."""
    reason: str = ""
    """The first line of the refusal."""


class Rule(NamedTuple):
    """An explanation of differences, from differences.txt."""

    peers: re.Pattern[str]
    kind: str
    pattern: re.Pattern[bytes]
    """What the stream contains."""
    text: str


def streams(count: int, seed: int) -> Iterator[bytes]:
    """Requests of the conformance table, with bytes inserted, replaced or removed."""
    chance = random.Random(seed)
    for _ in range(count):
        data = b"".join(chance.choices(SEEDS, k=chance.randint(1, 2)))
        for _ in range(chance.randint(0, 2)):
            begin = chance.randint(0, len(data))
            end = begin + chance.randint(0, 3)
            data = data[:begin] + chance.choice(SPICES) + data[end:]
        yield data.replace(b"HEAD ", b"GET ") + END  # the body of a refusal says why


async def exchange(port: int, data: bytes) -> Outcome:
    """Send a stream, and read until the server closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, end = b"", "closed"
    try:
        writer.write(data)
        while piece := await asyncio.wait_for(reader.read(1 << 16), SILENCE):
            received += piece
    except TimeoutError:
        end = "waits"
    except OSError:
        pass
    finally:
        writer.close()
    seen, reason = [], ""
    for match in _HEAD.finditer(received):
        if echo := _ECHO.search(match[2]):
            seen.append(bytes.fromhex(echo[1].decode()))
        elif int(match[1]) >= 400:
            end, reason = "refused", match[3].decode("latin-1")
    return Outcome(tuple(seen), end, reason)


def kind(ours: Outcome, peer: Outcome) -> str:
    """Return what differs: which server sees more of the same requests, or `differs`."""
    if ours.seen == peer.seen:
        return "same"
    if ours.seen == peer.seen[: len(ours.seen)]:
        return "stricter"
    if peer.seen == ours.seen[: len(peer.seen)]:
        return "laxer"
    return "differs"


def rules() -> list[Rule]:
    lines = Path(__file__).with_name("differences.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split(" | ") for line in lines if line.count(" | ") == 3]
    return [
        Rule(re.compile(peers), kind, re.compile(pattern.encode(), re.DOTALL | re.IGNORECASE), text)
        for peers, kind, pattern, text in found
    ]


async def compare(ports: dict[str, int], sent: Sequence[bytes]) -> int:
    """Print the differences; return the number of those that no rule explains."""
    known, explained = rules(), defaultdict[str, int](int)
    unknown: defaultdict[str, list[str]] = defaultdict(list)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask_all(data: bytes) -> dict[str, Outcome]:
        async with slots:
            results = await asyncio.gather(*(exchange(port, data) for port in ports.values()))
        return dict(zip(ports, results, strict=True))

    for data, found in zip(sent, await asyncio.gather(*map(ask_all, sent)), strict=True):
        ours = found[OURS[0]]
        for name, outcome in found.items():
            what = kind(ours, outcome)
            if what == "same":
                continue
            subject = data + b" <" + ours.reason.encode("latin-1") + b">"
            for rule in known:
                fits = rule.peers.fullmatch(name) and re.fullmatch(rule.kind, what)
                if fits and rule.pattern.search(subject):
                    explained[f"{rule.kind}: {rule.text}"] += 1
                    break
            else:
                unknown[f"{name}, {what}: {ours.reason[:60]}"].append(
                    f"  {data[: -len(END)]!r}\n    ours {ours}\n    peer {outcome}"
                )
    for text, count in sorted(explained.items(), key=lambda item: -item[1]):
        print(f"{count:6} {text}")
    for title, examples in sorted(unknown.items(), key=lambda item: -len(item[1])):
        print(f"{len(examples):6} NOT EXPLAINED {title}", *examples[:3], sep="\n")
    return sum(map(len, unknown.values()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--peers", type=Path, required=True, help="environment of the servers")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = [*OURS, *SERVERS, *(name for name in PROXIES if shutil.which(name))]
    with TemporaryDirectory() as folder:
        python = options.peers.resolve() / "bin" / "python"
        with running(names, python, Path(folder)) as ports:
            asyncio.run(wait_for_all(ports))
            left = asyncio.run(compare(ports, list(streams(options.count, options.seed))))
    print(f"{options.count} streams, {len(names)} servers, {left} differences not explained")
    return left > 0


async def wait_for_all(ports: dict[str, int]) -> None:
    """Wait until all servers answer."""
    async with asyncio.timeout(60):
        for port in ports.values():
            while True:
                try:
                    if (await exchange(port, END)).seen:
                        break
                except OSError:
                    pass
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
