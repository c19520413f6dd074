"""What has been judged of late need not be judged again."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Cache"]

K = TypeVar("K")
V = TypeVar("V")


class Cache(dict[K, V]):
    """The results of a pure function by its argument: `cache[argument]`.

    It starts anew when it holds `size` of them: in use that costs next to nothing, where a
    `functools.lru_cache` costs as much as some of the functions.
    """

    def __init__(self, function: Callable[[K], V], size: int) -> None:
        super().__init__()
        self._function = function
        self._size = size

    def __missing__(self, argument: K) -> V:
        value = self._function(argument)
        if len(self) >= self._size:
            self.clear()
        self[argument] = value
        return value
