"""`Config` → the TLS contexts of a server, which are made anew when their files change."""

import os
import re
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from .. import importer
from ..config.config import Config
from ..config.kinds import OptionError
from ..server_log import logger
from . import certificate as tls_certificate

__all__ = ["TLSContext", "TLSContexts", "explain"]

#: Seconds between two looks at the files.
INTERVAL = 1.0

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERT_REQS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(?:.*?-----END CERTIFICATE-----)?", re.S)


class _Pair(NamedTuple):
    """The files of a certificate and of its key, and the certificate itself, PEM."""

    certfile: str
    keyfile: str | None
    certificate: str


class TLSContext(ssl.SSLContext):
    """A context that knows which certificate it shows."""

    certificate: str | None = None
    """PEM; None when there are several, and the client decides."""


class TLSContexts:
    """What handshakes begin with.

    A change of the files is seen by the next handshake, and costs an idle server nothing. Tickets
    of sessions are bound to a context, so none outlives the certificate that it was given with.
    Raises OptionError for what can't be used; later on it stays as it was, and the log says why.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files = [*config.ssl_certfile, *config.ssl_keyfile]
        if config.ssl_ca_certs is not None:
            self._files.append(config.ssl_ca_certs)
        self._state = self._look()
        self._look_at = time.monotonic() + INTERVAL
        self._context = _make(config)

    def current(self) -> ssl.SSLContext:
        """The context of a handshake that begins now."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + INTERVAL
            state = self._look()
            if state != self._state:
                # Remembered also when it is no good: perhaps a key is still to follow.
                self._state = state
                self._renew()
        return self._context

    def _look(self) -> list[object]:
        return [_state(file) for file in self._files]

    def _renew(self) -> None:
        try:
            self._context = _make(self._config)
        except OptionError as error:
            logger.error("TLS goes on as it was: %s", error, exc_info=error.__cause__)
        else:
            logger.info("TLS files have changed; new connections use them")


def _state(file: str) -> object:
    try:
        found = os.stat(file)
    except OSError:
        return None
    # Also when it has last been given to others: perhaps it can be read by now.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _make(config: Config) -> ssl.SSLContext:
    """The context of the first certificate, which leads to the others by their names.

    Those with the same names share a context: clients get the kind of key that they prefer.
    """
    groups: dict[frozenset[str], list[_Pair]] = {}
    for certfile, keyfile in zip_longest(config.ssl_certfile, config.ssl_keyfile):
        certificate, hosts = _read(config, certfile)
        if groups and not hosts and hosts not in groups:
            text = "names no host, so it would never be used"
            raise config.error("ssl_certfile", certfile, text)
        groups.setdefault(hosts, []).append(_Pair(certfile, keyfile, certificate))
    contexts = [_customised(config, partial(_default, config, pairs)) for pairs in groups.values()]
    first, *others = contexts or [_customised(config, partial(_default, config, []))]
    if others and first.sni_callback is None:
        known: dict[str, ssl.SSLContext | None] = {}  # None: the one that the client has already
        for hosts, context in zip(groups, [None, *others], strict=True):
            for host in hosts:
                known.setdefault(host, context)
        first.sni_callback = partial(_choose, known)
    return first


def _choose(
    known: dict[str, ssl.SSLContext | None],
    tls: ssl.SSLObject,
    name: str | None,
    _: ssl.SSLContext,
) -> None:
    """Server Name Indication (RFC 6066 §3): a wildcard stands for one label (RFC 9525 §6.3)."""
    if name is not None:
        name = name.lower()
        wildcard = "*." + name.partition(".")[2]
        context = known[name] if name in known else known.get(wildcard)
        if context is not None:
            tls.context = context


def _read(config: Config, file: str) -> tuple[str, frozenset[str]]:
    """The certificate of a file, PEM, and the hosts that it names; those that follow are whole."""
    try:
        with open(file, "rb") as opened:
            found = _CERTIFICATE.findall(opened.read().decode("latin-1"))
    except OSError as error:
        raise config.error("ssl_certfile", file, f"can't be read: {_words(error)}") from None
    if not found:
        raise config.error("ssl_certfile", file, "contains no certificate")
    try:
        first, *_ = [ssl.PEM_cert_to_DER_cert(text) for text in found]
        hosts = frozenset(tls_certificate.hosts(first))
        if tls_certificate.has_expired(first):
            name = config.spelling("ssl_certfile")
            logger.warning("%s: the certificate in %r has expired", name, file)
    except ValueError:
        raise config.error("ssl_certfile", file, "contains an invalid certificate") from None
    return ssl.DER_cert_to_PEM_cert(first), hosts


def _customised(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """What the user's own function makes of the default, if there is one."""
    function = given = config.ssl_context_factory
    if function is None:
        return default()
    try:
        if isinstance(function, str):
            function = importer.load(function, config.app_dir)
        context = function(config, default)
    except OptionError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, importer.LoadError) else error
        raise config.error("ssl_context_factory", given, f"failed: {error}") from cause
    if not isinstance(context, ssl.SSLContext):
        raise config.error("ssl_context_factory", given, "must return an ssl.SSLContext")
    return context


def _default(config: Config, pairs: Sequence[_Pair]) -> TLSContext:
    """A context as the options say it.

    The rest are Python's defaults for servers: no compression, no versions and ciphers that are
    broken. What `ssl.create_default_context` adds is a stricter look at the certificates of
    clients, from Python 3.13 on, which not all authorities are ready for.
    """
    if not pairs:
        raise OptionError(f"the default TLS context needs {config.spelling('ssl_certfile')}")
    context = TLSContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificate = pairs[0].certificate if len(pairs) == 1 else None
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.minimum_version = _VERSIONS[config.ssl_min_version]
    context.set_alpn_protocols(["http/1.1"])
    for pair in reversed(pairs):  # of one kind of key the first comes last, and stays
        _load_pair(context, pair, config)
    name, value = "ssl_ca_certs", config.ssl_ca_certs
    try:
        if value is not None:
            context.load_verify_locations(value)
        if config.ssl_ciphers is not None:
            name, value = "ssl_ciphers", config.ssl_ciphers
            context.set_ciphers(value)
    except OSError as error:
        raise config.error(name, value, f"can't be used: {_words(error)}") from None
    context.verify_mode = _CERT_REQS[config.ssl_cert_reqs]
    return context


def _load_pair(context: ssl.SSLContext, pair: _Pair, config: Config) -> None:
    certfile, keyfile, _ = pair
    asked = False

    def answer() -> str:  # always given: OpenSSL would ask for it on the terminal
        nonlocal asked
        asked = True
        return config.ssl_keyfile_password or ""

    name, file = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    try:
        context.load_cert_chain(certfile, keyfile, answer)
    except ssl.SSLError as error:
        if asked:
            text = _undecipherable(config)
        elif error.reason == "KEY_VALUES_MISMATCH":
            text = f"does not belong to the certificate in {certfile!r}"
        elif error.reason is not None:
            text = f"can't be used with {certfile!r}: {_words(error)}"
        elif keyfile is None:
            text = f"contains no private key; add {config.spelling('ssl_keyfile')}"
        else:
            text = "contains no private key"
        raise config.error(name, file, text) from None
    except OSError as error:
        raise config.error(name, file, f"can't be read: {_words(error)}") from None
    except ValueError:  # the password is too long (1024 bytes) or not UTF-8
        raise config.error(name, file, _undecipherable(config)) from None


def _undecipherable(config: Config) -> str:
    option = config.spelling("ssl_keyfile_password")
    if config.ssl_keyfile_password is None:
        return f"has an encrypted private key; set {option}"
    return f"has a private key that can't be decrypted: wrong {option}"


# Handshakes that fail.


def explain(error: ssl.SSLError) -> str:
    """Why a handshake has failed, in words."""
    if error.reason == "HTTP_REQUEST":
        return "a request without TLS on a port with TLS"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client shows no certificate"
    if error.reason == "CALLBACK_FAILED":
        return "the server name is not ASCII, or the choice by it has failed"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is refused: {error.verify_message}"
    return _words(error)


def _words(error: OSError) -> str:
    """What the system says, or OpenSSL: of `NO_SHARED_CIPHER` the words."""
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error.strerror or error.args[0])
