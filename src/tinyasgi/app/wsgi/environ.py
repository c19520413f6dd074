"""The environ of a WSGI request (PEP 3333)."""

import logging
import re
from collections.abc import Iterable
from typing import Any, TypeAlias
from wsgiref.util import FileWrapper

from ..._version import __version__
from ...http.memo import Memo
from ...server_log import logger
from ...typing import Scope

Environ: TypeAlias = dict[str, Any]

#: Minimum block size of `wsgi.file_wrapper`, in bytes.
MIN_BLOCK_SIZE = 64 * 1024


def environ(scope: Scope, multithread: bool) -> Environ:
    """Return the environ of a request, without `wsgi.input`.

    A string in the environ has one character per byte of the request (latin-1, PEP 3333).
    """
    raw_path, query = scope["raw_path"], scope["query_string"].decode("latin-1")
    target = path = raw_path.decode("latin-1")
    if "%" in path:
        from urllib.parse import unquote_to_bytes  # takes 7 ms at startup

        path = unquote_to_bytes(raw_path).decode("latin-1")
    mount = scope["root_path"].encode().decode("latin-1")
    if mount and (path == mount or path.startswith(mount + "/")):
        path = path[len(mount) :]
    host, port = scope["server"]
    if port is None:  # a unix socket
        host, port = "localhost", 443 if scope["scheme"] == "https" else 80
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": f"{target}?{query}" if query else target,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "SERVER_SOFTWARE": f"tinyasgi/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": _Errors(),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,  # there may be other workers
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": _file_wrapper,
        "asgi.scope": scope,
    }
    # A client on a unix socket has no address, but apps expect the key (RFC 3875 §4.1.8).
    environ["REMOTE_ADDR"], port = scope["client"] or ("", 0)
    if port:  # a proxy need not pass the port of the client
        environ["REMOTE_PORT"] = str(port)
    for name, value in scope["headers"]:
        if key := _keys[name]:
            text = value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if name == b'cookie' else ', '}{text}"
            environ[key] = text
    return environ


def _key(name: bytes) -> str:
    """Return the key of a header, or an empty text for a name with an underscore.

    `X_Forwarded_For` would have the same key as `X-Forwarded-For`, which a proxy sets.
    """
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key


_keys = Memo(_key, 256, longest=64)


#: The level that a line of a log names, as in `[2026-11-30 08:00:00,000] WARNING in views: …`.
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")


class _Errors:
    """`wsgi.errors`: logs each write with the logger `tinyasgi.server`.

    Flask and others write their log here. A message keeps its level. Other text is an error.
    """

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> None:
        self._text += text
        if text.endswith("\n"):
            self.flush()

    def writelines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        text, self._text = self._text.rstrip("\n"), ""
        if text:
            found = _LEVEL.search(text.partition("\n")[0])
            logger.relay(getattr(logging, found[1]) if found else logging.ERROR, text)


def _file_wrapper(file: Any, block_size: int = MIN_BLOCK_SIZE) -> FileWrapper:
    return FileWrapper(file, max(block_size, MIN_BLOCK_SIZE))
