"""Bounded cache of a pure function."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """Dict that calls a pure function for a missing key: `memo[argument]`.

    It keeps at most `size` results, and none for an argument longer than `longest` bytes. So the
    arguments use at most `size * longest` bytes. A full cache is cleared. An order of use, as in
    `functools.lru_cache`, would cost as much as some of the cached functions.

    measure: returns the size of an argument in bytes.
    """

    def __init__(
        self,
        function: Callable[[K], V],
        size: int,
        longest: int,
        measure: Callable[[K], int] = len,  # type: ignore[assignment]  # for str and bytes
    ) -> None:
        super().__init__()
        self._function = function
        self._size = size
        self._longest = longest
        self._measure = measure

    def check(self, argument: K) -> None:
        """Raise the exception of the function for this argument, if the function raises one."""
        self[argument]

    def __missing__(self, argument: K) -> V:
        value = self._function(argument)
        if self._measure(argument) <= self._longest:
            if len(self) >= self._size:
                self.clear()
            self[argument] = value
        return value
