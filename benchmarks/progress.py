"""Progress of a run: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import sys
import time

WIDTH = 24


class Progress:
    """Progress of a number of steps that take about the same time."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._bar = sys.stderr.isatty()

    def step(self, text: str, count: int = 1) -> None:
        """Show the next step. count: number of steps that it completes."""
        share = self._done / self._steps
        filled = "█" * round(share * WIDTH)
        spent = time.monotonic() - self._began
        left = f"{spent / share * (1 - share) / 60:.0f} min left" if share > 0.02 else ""
        self._show(f"{filled:░<{WIDTH}} {share:4.0%} {left:12} {text}")
        self._done += count

    def note(self, text: str) -> None:
        """Print a permanent line."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        self._clear()

    def _show(self, text: str) -> None:
        if self._bar:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
