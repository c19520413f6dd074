"""File changes, as an event source for the supervisor (--reload)."""

import fnmatch
import importlib.util
import os
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from ..config.config import Config
from ..server_log import logger

#: Names of directories whose files are never watched.
IGNORED = frozenset((
    ".git", ".hg", ".idea", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".svn", ".tox",
    ".venv", ".vscode", "__pycache__", "node_modules", "site-packages", "venv",
))  # fmt: skip
#: Seconds between two checks of the imported files, where watchfiles can't be used.
INTERVAL = 0.5


def check(config: Config) -> None:
    """Raise OptionError if a directory to watch does not exist."""
    for name in config.reload_dir:
        if not os.path.isdir(name):
            raise config.error("reload_dir", name, "must be an existing directory")


class Changes:
    """Watcher of files. `fileno` is readable when files have changed; `take` returns their names.

    With watchfiles, it watches the directories of the configuration. Otherwise it checks the files
    that the app has imported twice a second; `imported` adds them.
    """

    def __init__(self, config: Config) -> None:
        self._directories = [Path(name).resolve() for name in config.reload_dir]
        self._directories = self._directories or [Path.cwd(), Path(config.app_dir).resolve()]
        self._include = ("*.py", *config.reload_include)
        self._exclude = config.reload_exclude
        self._times: dict[str, float] = {}  # modification times of the imported files
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
        """Return the files that have changed since the last call, each once."""
        self._reader.recv(1 << 16)
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(changed)

    def imported(self, files: Iterable[str]) -> None:
        """Watch files that the app has imported."""
        times = {file: _modified(file) for file in files if self.is_watched(file)}
        with self._lock:
            self._times = times | self._times

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def is_watched(self, file: str) -> bool:
        """Return whether changes of this file are reported."""
        given = Path(file)
        # Resolves links in the directories. The file itself may be a link to another place.
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
        """Return whether this is part of a virtual environment of any name."""
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
        except Exception as error:  # for example a limit of inotify
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
    """Return the modification time, or 0 if the file does not exist (yet)."""
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0
