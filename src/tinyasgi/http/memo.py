"""Bounded memory of the results of pure functions."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Memo"]

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """The results of a pure function by its argument: `cache[argument]`.

    It holds at most `size` results and none for an argument of more than `longest` bytes, so its
    arguments take at most `size * longest` bytes. It is emptied when it is full:
    `functools.lru_cache` costs as much as some of the functions.

    measure: the size of an argument in bytes.
    """

    def __init__(
        self,
        function: Callable[[K], V],
        size: int,
        longest: int,
        measure: Callable[[K], int] = len,  # type: ignore[assignment]  # texts and bytes have one
    ) -> None:
        super().__init__()
        self._function = function
        self._size = size
        self._longest = longest
        self._measure = measure

    def __missing__(self, argument: K) -> V:
        value = self._function(argument)
        if self._measure(argument) <= self._longest:
            if len(self) >= self._size:
                self.clear()
            self[argument] = value
        return value
