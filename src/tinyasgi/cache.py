"""What has been judged of late need not be judged again."""

from collections.abc import Callable, Sized
from typing import TypeVar

__all__ = ["Cache"]

K = TypeVar("K", bound=Sized)
V = TypeVar("V")


class Cache(dict[K, V]):
    """The results of a pure function by its argument: `cache[argument]`.

    It holds no more than `size` of them, none for an argument that is longer than `longest`, and
    starts anew when it is full: `functools.lru_cache` costs as much as some of the functions.
    """

    def __init__(self, function: Callable[[K], V], size: int, longest: int) -> None:
        super().__init__()
        self._function = function
        self._size = size
        self._longest = longest

    def __missing__(self, argument: K) -> V:
        value = self._function(argument)
        if len(argument) <= self._longest:
            if len(self) >= self._size:
                self.clear()
            self[argument] = value
        return value
