"""The ASGI extension `tls`: details of the TLS connection in the scope.

Specification: https://asgi.readthedocs.io/en/latest/specs/tls.html
"""

import functools
import ssl
import sys
from collections.abc import Awaitable
from typing import Any

from ..typing import App, Receive, Scope, Send
from .certificate import subject

#: The extension without any information.
UNKNOWN: dict[str, Any] = {
    "server_cert": None,
    "client_cert_chain": (),
    "client_cert_name": None,
    "client_cert_error": None,
    "tls_version": None,
    "cipher_suite": None,
}


class TLSExtension:
    """The extension of one connection.

    tls: TLS object of the connection; read when the first copy is made. values: known values, by
    the keys of the specification.
    """

    __slots__ = ("_tls", "_values")

    def __init__(self, tls: ssl.SSLObject | None = None, **values: Any) -> None:
        self._tls = tls
        self._values = UNKNOWN | values if values else UNKNOWN

    def copy(self) -> dict[str, Any]:
        """Return a copy for one scope."""
        if self._tls is not None:
            self._values = _read(self._tls)
            self._tls = None
        return self._values.copy()


def with_extension(app: App) -> App:
    """Wrap an app: each scope gets a copy of the extension of its connection."""

    def call(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        extensions = scope.get("extensions")
        if extensions is not None and "tls" in extensions:
            scope["extensions"] = extensions | {"tls": extensions["tls"].copy()}
        return app(scope, receive, send)

    return call


def _read(tls: ssl.SSLObject) -> dict[str, Any]:
    cipher, *_ = tls.cipher() or [""]
    values = _connection_values(
        getattr(tls.context, "certificate", None), tls.version() or "", cipher
    )
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        return values
    return values | {
        "client_cert_name": subject(certificate),
        # A resumed session contains only the first certificate.
        "client_cert_chain": _chain(tls) or (ssl.DER_cert_to_PEM_cert(certificate),),
    }


@functools.lru_cache(maxsize=64)
def _connection_values(server_cert: str | None, protocol: str, cipher: str) -> dict[str, Any]:
    """Return the values that most connections share, to save memory."""
    numbers = {"tls_version": version(protocol), "cipher_suite": cipher_suite(cipher)}
    return UNKNOWN | numbers | {"server_cert": server_cert}


def _chain(tls: ssl.SSLObject) -> tuple[str, ...]:
    """Return the certificates that the client has sent, in PEM."""
    if sys.version_info >= (3, 13):
        return tuple(map(ssl.DER_cert_to_PEM_cert, tls.get_unverified_chain()))
    found = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(each.public_bytes() for each in found or ())


def version(name: str) -> int | None:
    """Return the number of a TLS version: `TLSv1.3` is 0x0304."""
    try:
        return ssl.TLSVersion[name.replace(".", "_")].value
    except KeyError:
        return None


def cipher_suite(name: str) -> int | None:
    """Return the number of a cipher suite: `TLS_AES_128_GCM_SHA256` (OpenSSL's name) is 0x1301."""
    return _cipher_suites().get(name)


@functools.cache
def _cipher_suites() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
