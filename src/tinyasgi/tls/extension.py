"""The ASGI extension `tls`: what an app is told of the TLS that its requests come by.

The specification: https://asgi.readthedocs.io/en/latest/specs/tls.html
"""

import functools
import ssl
import sys
from collections.abc import Awaitable
from typing import Any

from ..typing import App, Receive, Scope, Send
from .certificate import subject

__all__ = ["TLSExtension", "cipher_suite", "told", "version"]


UNKNOWN: dict[str, Any] = {
    "server_cert": None,
    "client_cert_chain": (),
    "client_cert_name": None,
    "client_cert_error": None,
    "tls_version": None,
    "cipher_suite": None,
}


class TLSExtension:
    """Of one connection: `copy()` is for one scope. What is not known is None.

    tls: the TLS of the connection, which the first copy asks. facts: what else is known of it, by
    the names of the specification.
    """

    __slots__ = ("_facts", "_tls")

    def __init__(self, tls: ssl.SSLObject | None = None, **facts: Any) -> None:
        self._tls = tls
        self._facts = UNKNOWN | facts if facts else UNKNOWN

    def copy(self) -> dict[str, Any]:
        if self._tls is not None:
            self._facts = _read(self._tls)
            self._tls = None
        return self._facts.copy()


def told(app: App) -> App:
    """The app, which finds in each scope the extension of its connection, if that has one."""

    def call(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        extensions = scope.get("extensions")
        if extensions is not None and "tls" in extensions:
            scope["extensions"] = extensions | {"tls": extensions["tls"].copy()}
        return app(scope, receive, send)

    return call


def _read(tls: ssl.SSLObject) -> dict[str, Any]:
    cipher, *_ = tls.cipher() or [""]
    facts = _common(getattr(tls.context, "certificate", None), tls.version() or "", cipher)
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        return facts
    return facts | {
        "client_cert_name": subject(certificate),
        # Of a session that was resumed nothing more is known than its beginning.
        "client_cert_chain": _chain(tls) or (ssl.DER_cert_to_PEM_cert(certificate),),
    }


@functools.lru_cache(maxsize=64)
def _common(server_cert: str | None, protocol: str, cipher: str) -> dict[str, Any]:
    """What connections have in common; each has no more than a reference to it."""
    numbers = {"tls_version": version(protocol), "cipher_suite": cipher_suite(cipher)}
    return UNKNOWN | numbers | {"server_cert": server_cert}


def _chain(tls: ssl.SSLObject) -> tuple[str, ...]:
    """What the client has shown, PEM."""
    if sys.version_info >= (3, 13):
        return tuple(map(ssl.DER_cert_to_PEM_cert, tls.get_unverified_chain()))
    found = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(each.public_bytes() for each in found or ())


def version(name: str) -> int | None:
    """`TLSv1.3` → 0x0304."""
    try:
        return ssl.TLSVersion[name.replace(".", "_")].value
    except KeyError:
        return None


def cipher_suite(name: str) -> int | None:
    """`TLS_AES_128_GCM_SHA256` → 0x1301; names as OpenSSL has them."""
    return _cipher_suites().get(name)


@functools.cache
def _cipher_suites() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
