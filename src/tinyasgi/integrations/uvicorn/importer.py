"""Import an object by its name, as uvicorn does."""

import sys
from typing import Any

from ... import importer
from ...importer import LoadError as ImportFromStringError

__all__ = ["ImportFromStringError", "import_from_string"]


def import_from_string(import_str: Any) -> Any:
    """Import the callable that `"module:attribute"` names; return another object unchanged.

    Raises ImportFromStringError.
    """
    return importer.load(import_str, sys.path[0]) if isinstance(import_str, str) else import_str
