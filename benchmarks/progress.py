"""A progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

WIDTH = 24


class Progress:
    """Of so many steps of about the same length, as they are done."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._bar = sys.stderr.isatty()

    def step(self, text: str, count: int = 1) -> None:
        """Says what is done next; count: the steps that it takes, or that are left out."""
        share = self._done / self._steps
        filled = "█" * round(share * WIDTH)
        spent = time.monotonic() - self._began
        left = f"{spent / share * (1 - share) / 60:.0f} min left" if share > 0.02 else ""
        self._show(f"{filled:░<{WIDTH}} {share:4.0%} {left:12} {text}")
        self._done += count

    def note(self, text: str) -> None:
        """Says what is worth a line that stays."""
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
