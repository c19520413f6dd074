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
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.conformance.test_conformance import SEEDS, SPICES

from .peers import OURS, PROXIES, SERVERS, running

#: Seconds of silence after which a server waits for more.
SILENCE = 0.5
#: The same for a second attempt, because a busy machine may be slow.
LONG_SILENCE = 5.0
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

    def explains(self, name: str, what: str, subject: bytes) -> bool:
        fits = self.peers.fullmatch(name) and re.fullmatch(self.kind, what)
        return fits is not None and self.pattern.search(subject) is not None


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


async def exchange(port: int, data: bytes, silence: float = SILENCE) -> Outcome:
    """Send a stream, and read until the server closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, end = b"", "closed"
    try:
        writer.write(data)
        while piece := await asyncio.wait_for(reader.read(1 << 16), silence):
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


async def ask_all(ports: dict[str, int], data: bytes, silence: float) -> dict[str, Outcome]:
    """Send a stream to all servers."""
    results = await asyncio.gather(*(exchange(port, data, silence) for port in ports.values()))
    return dict(zip(ports, results, strict=True))


def explain(data: bytes, found: dict[str, Outcome], known: list[Rule]) -> Iterator[tuple[str, str]]:
    """Yield each server that differs from ours, and the explanation, or an empty text."""
    ours = found[OURS[0]]
    subject = data + b" <" + ours.reason.encode("latin-1") + b">"
    for name, outcome in found.items():
        if (what := kind(ours, outcome)) != "same":
            texts = (rule.text for rule in known if rule.explains(name, what, subject))
            yield name, next(texts, "")


async def compare(ports: dict[str, int], sent: Sequence[bytes]) -> int:
    """Print the differences; return the number of those that no rule explains."""
    known, explained = rules(), Counter[str]()
    unknown: defaultdict[str, list[str]] = defaultdict(list)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def ask(data: bytes) -> dict[str, Outcome]:
        async with slots:
            return await ask_all(ports, data, SILENCE)

    for data, first in zip(sent, await asyncio.gather(*map(ask, sent)), strict=True):
        found, differences = first, list(explain(data, first, known))
        if not all(text for _, text in differences):
            found = await ask_all(ports, data, LONG_SILENCE)
            differences = list(explain(data, found, known))
        ours = found[OURS[0]]
        for name, text in differences:
            if text:
                explained[text] += 1
            else:
                title = f"{name}, {kind(ours, found[name])}: {ours.reason[:60]}"
                unknown[title].append(f"  {data!r}\n    ours {ours}\n    peer {found[name]}")
    for text, count in explained.most_common():
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
