"""The first step of an app, for Python 3.11, where a task cannot start eagerly."""

import types
from collections.abc import Generator
from typing import Any

#: Returned by `next(steps, FINISHED)` if the app has not waited.
FINISHED = object()


@types.coroutine
def resume(steps: Generator[Any, Any, Any], awaited: object) -> Generator[Any, Any, None]:
    """Run the rest of a coroutine.

    steps: its iterator, which has yielded `awaited`.
    """
    while True:
        try:
            yield awaited
        except BaseException as thrown:
            error = thrown
        else:
            yield from steps
            return
        try:
            awaited = steps.throw(error)
        except StopIteration:
            return
        finally:
            del error  # its traceback refers to this frame, which would be a reference cycle
