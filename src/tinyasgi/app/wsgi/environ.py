"""What a WSGI app is told of a request (PEP 3333): the environ, and `wsgi.errors` in it."""

from collections.abc import Iterable
from typing import Any, TypeAlias
from wsgiref.util import FileWrapper

from ..._version import __version__
from ...http.memo import Memo
from ...server_log import logger
from ...typing import Scope

__all__ = ["Environ", "environ"]

Environ: TypeAlias = dict[str, Any]

#: Least bytes of a file that are read at once.
BLOCK = 64 * 1024


def environ(scope: Scope, multithread: bool) -> Environ:
    """All but `wsgi.input`. Texts are bytes as latin-1, as PEP 3333 has it."""
    raw_path, query = scope["raw_path"], scope["query_string"].decode("latin-1")
    target = path = raw_path.decode("latin-1")
    if "%" in path:
        from urllib.parse import unquote_to_bytes  # not before it is needed: 7 ms at start

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
        "wsgi.multiprocess": True,  # as far as the app can know
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": _file_wrapper,
        "asgi.scope": scope,
    }
    # A peer on a unix socket has no address, but apps look for one (RFC 3875 §4.1.8).
    environ["REMOTE_ADDR"], port = scope["client"] or ("", 0)
    if port:  # else a proxy has not said it
        environ["REMOTE_PORT"] = str(port)
    for name, value in scope["headers"]:
        if key := _keys[name]:
            text = value.decode("latin-1")
            if key in environ:
                text = f"{environ[key]}{'; ' if name == b'cookie' else ', '}{text}"
            environ[key] = text
    return environ


def _key(name: bytes) -> str:
    """The key of a field's value; none for a name that could pass for another one in WSGI.

    `X_Forwarded_For` would have the key of `X-Forwarded-For`, which a proxy answers for.
    """
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key


_keys = Memo(_key, 256, longest=64)


class _Errors:
    """`wsgi.errors`: what is written to it becomes records of the server's log, at line ends."""

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
            logger.error("%s", text)


def _file_wrapper(file: Any, block_size: int = BLOCK) -> FileWrapper:
    return FileWrapper(file, max(block_size, BLOCK))
