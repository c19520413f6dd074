"""The documentation as its reader uses it: files are written, commands run, output compared."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.support.helpers import PATIENCE, Command

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

#: Where the pages serve.
ADDRESS = "127.0.0.1:8000"

#: A fenced block: its language and its text.
FENCE = re.compile(r"^( *)```([^`\n]*)\n(.*?)^ *```$", re.M | re.S)
#: The first line of a block that is a file.
NAMED = re.compile(r"# ([\w./-]+\.\w+)\n")
#: The beginning of a block that shows the log of the server.
LOG_LINE = re.compile(r"(INFO|WARNING|ERROR) |127\.0\.0\.1:\d+ \"")
#: Commands that install something, or take long. The tests run in an environment that has it all.
SKIPPED = ("pip install", "python3 -m venv", ". .venv", "python manage.py")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of each fenced block of a page."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(language, textwrap.dedent(text)) for _, language, text in found]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output that the page shows."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.replace("\\\n", " ").partition("\n")
        yield command, output.rstrip()


def without_figures(text: str) -> str:
    """Replace numbers, and what depends on the environment, in the text of a log."""
    return re.sub(r"\d+(\.\d+)*", "0", re.sub(r"\(.*?\)", "()", text))


class Reader:
    """Someone who follows a page in an empty folder.

    A server starts when the next command asks it something, and stops when another one starts or
    the block ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = ExitStack()
        self.server: Command | None = None
        self._shown: list[str] = []  # lines that the log of the server must contain
        self._next: tuple[Sequence[str], str] | None = None
        self.done: list[str] = []
        """Commands that were run."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self.servers:
            if kind is None:
                self._stop()

    def follow(self, page: Path) -> None:
        """Write each file of the page, run each command, and compare its output."""
        for language, text in blocks(page):
            named = NAMED.match(text)
            if language == "console":
                for command, output in commands(text):
                    self._run(command, output)
            elif LOG_LINE.match(text):
                self._shown += text.splitlines()
            elif named:
                path = self.folder / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    def _run(self, command: str, output: str) -> None:
        if command.startswith(SKIPPED):
            return
        self.done.append(command)
        words = shlex.split(command, comments=True)
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "tinyasgi":
            self._stop()
            self._next = words[1:], ""
        elif words[0] == "python" and "tinyasgi.run(" in (self.folder / words[1]).read_text():
            self._next = [], words[1]
        else:
            if self._next is not None:
                self._serve(*self._next)
            shown = self._ask(command)
            assert shown.rstrip() == output, command

    def _serve(self, words: Sequence[str], script: str) -> None:
        self._stop()
        self._next = None
        if script:  # which would listen on the default port
            path = self.folder / script
            path.write_text(re.sub(r"(tinyasgi\.run\(.*)\)", r"\1, port=0)", path.read_text()))
        self.server = self.servers.enter_context(
            Command(
                *words, script=script, cwd=self.folder, TINYASGI_PORT="0", PYTHONWARNINGS="default"
            )
        )
        assert self.server.port

    def _stop(self) -> None:
        if self.server is not None:
            assert self.server.stop() == 0, self.server.log
            assert "ERROR" not in self.server.log
            log = without_figures(self.server.log + self.server.output)
            for line in self._shown:
                assert without_figures(line) in log, line
            self._shown.clear()
            self.server = None

    def _ask(self, command: str) -> str:
        """Run another command, of a client for instance, and return its output."""
        if self.server is not None:
            command = command.replace(ADDRESS, f"127.0.0.1:{self.server.port}")
            for name in self.folder.glob("client.py"):
                name.write_text(name.read_text().replace(ADDRESS, f"127.0.0.1:{self.server.port}"))
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
