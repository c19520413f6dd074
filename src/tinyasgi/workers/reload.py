"""Files that change, as one more thing that a supervisor waits for."""

import fnmatch
import importlib.util
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from ..config.config import Config
from ..server_log import logger

#: Directories whose files are never watched, wherever they are.
IGNORED = frozenset((
    ".git", ".hg", ".idea", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".svn", ".tox",
    ".venv", ".vscode", "__pycache__", "node_modules", "site-packages", "venv",
))  # fmt: skip
#: Seconds between two looks at the files that an app has imported, where watchfiles can't be used.
INTERVAL = 0.5


def check(config: Config) -> None:
    """Raises OptionError for a directory to watch that is not there."""
    for name in config.reload_dir:
        if not os.path.isdir(name):
            raise config.error("reload_dir", name, "must be an existing directory")


class Changes:
    """Can be read, as a socket can, when watched files have changed; `take` tells which.

    With watchfiles, the directories of the configuration are watched. Without it, the files that
    the app has imported are looked at twice a second; `imported` says which they are.
    """

    def __init__(self, config: Config) -> None:
        self._directories = [Path(name).resolve() for name in config.reload_dir]
        self._directories = self._directories or [Path.cwd(), Path(config.app_dir).resolve()]
        self._include = ("*.py", *config.reload_include)
        self._exclude = config.reload_exclude
        self._times: dict[str, float] = {}  # when the imported files were last modified
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._reader, self._writer = socket.socketpair()
        has_watchfiles = importlib.util.find_spec("watchfiles")
        work = self._watch if has_watchfiles else self._look
        self._thread = threading.Thread(target=work, name="reload", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[str]:
        """The files that have changed since, each once."""
        self._reader.recv(1 << 16)
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(changed)

    def imported(self, files: Iterable[str]) -> None:
        """Files that an app has imported."""
        times = {file: _modified(file) for file in files if self.is_watched(file)}
        with self._lock:
            self._times = times | self._times

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def is_watched(self, file: str) -> bool:
        """Whether a change of this file matters."""
        given = Path(file)
        # Where it is without links in its directories. It may itself be one that leads elsewhere.
        resolved = given.parent.resolve() / given.name
        return self._is_watched(given) or self._is_watched(resolved)

    def _is_watched(self, path: Path) -> bool:
        for directory in self._directories:
            if path.is_relative_to(directory):
                inner = path.relative_to(directory)
                if not IGNORED.isdisjoint(inner.parts) or self._in_environment(directory, inner):
                    continue
                names = [*map(str, inner.parents), str(inner), *inner.parts, str(path)]
                if any(fnmatch.filter(names, pattern) for pattern in self._exclude):
                    continue
                last = (inner.name, str(inner), str(path))
                if any(fnmatch.filter(last, pattern) for pattern in self._include):
                    return True
        return False

    @staticmethod
    def _in_environment(directory: Path, inner: Path) -> bool:
        """Whether this is part of a virtual environment, whatever its name is."""
        return any((directory / parent / "pyvenv.cfg").exists() for parent in inner.parents)

    def _report(self, files: Iterable[str]) -> None:
        with self._lock:
            self._changed.update(files)
        self._writer.send(b"\0")

    # In the thread.

    def _watch(self) -> None:
        import watchfiles

        try:
            for changes in watchfiles.watch(
                *[directory for directory in self._directories if directory.is_dir()],
                watch_filter=lambda _, path: self.is_watched(path),
                stop_event=self._end,
                debounce=200,
                raise_interrupt=False,
            ):
                self._report(path for _, path in changes)
        except Exception as error:  # limits of inotify are reached, for one
            logger.warning(
                "watchfiles has failed: %s; only files that the app has imported are watched", error
            )
            self._look()

    def _look(self) -> None:
        while not self._end.wait(INTERVAL):
            with self._lock:
                times = self._times.copy()
            now = {file: _modified(file) for file in times}
            changed = {file: time for file, time in now.items() if time not in (times[file], 0.0)}
            if changed:
                with self._lock:
                    self._times |= changed
                self._report(changed)


def _modified(file: str) -> float:
    """When a file was last modified, 0 if it is not there: it may just be written."""
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0
