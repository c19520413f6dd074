"""The Python API of uvicorn 0.54: programs that embed uvicorn run with tinyasgi.

    from tinyasgi.integrations import uvicorn

The modules and names are those that programs use. The loggers are `uvicorn.error` and
`uvicorn.access`. Options have the names, defaults and meanings of uvicorn. Options without a
counterpart are logged as a warning and ignored.
"""

import contextlib
import importlib.util
import sys

from ...errors import ClientDisconnected
from . import importer
from .config import Config
from .main import main, run
from .server import Server

__all__ = ["Config", "Server", "importer", "install", "main", "run"]

#: The version of uvicorn with this API.
__version__ = "0.54.0"


def install() -> None:
    """Make `import uvicorn` import this package, for programs that can't be changed.

    Call it before anything imports uvicorn. Other modules, such as `uvicorn.middleware`, come from
    the installed uvicorn, if there is one.
    """
    if "uvicorn" not in sys.modules and (spec := importlib.util.find_spec("uvicorn")) is not None:
        __path__.extend(spec.submodule_search_locations or [])
    for name, module in list(sys.modules.items()):
        if name == __name__ or name.startswith(__name__ + "."):
            sys.modules["uvicorn" + name.removeprefix(__name__)] = module
    with contextlib.suppress(ImportError):
        from uvicorn.protocols import utils

        utils.ClientDisconnected = ClientDisconnected  # type: ignore[assignment,misc]
