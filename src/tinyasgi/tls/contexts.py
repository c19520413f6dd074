"""TLS contexts of a server, and their reload when files change."""

import os
import re
import ssl
import time
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from .. import importer
from ..config.config import Config
from ..config.kinds import OptionError
from ..server_log import logger
from . import certificate

#: Minimum seconds between two checks of the files.
CHECK_INTERVAL = 1.0

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(?:.*?-----END CERTIFICATE-----)?", re.S)


class _Pair(NamedTuple):
    """Files of a certificate and its key, and the certificate itself in PEM."""

    certfile: str
    keyfile: str | None
    pem: str


class TLSContext(ssl.SSLContext):
    """A context that stores its own certificate."""

    certificate: str | None = None
    """In PEM; None if the context has several certificates, among which OpenSSL chooses."""


class TLSContexts:
    """The contexts of a server.

    The next handshake after a change of the files reloads them. An idle server checks nothing. A
    session ticket is valid only for its context, so a session can't be resumed after a reload. The
    constructor raises OptionError for unusable files. If a later reload fails, the contexts stay in
    use, and the error is logged.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files = [*config.ssl_certfile, *config.ssl_keyfile]
        if config.ssl_ca_certs is not None:
            self._files.append(config.ssl_ca_certs)
        self._stamps = self._read_stamps()
        self._check_at = time.monotonic() + CHECK_INTERVAL
        self._context = _create_contexts(config)

    def current(self) -> ssl.SSLContext:
        """Return the context for a new handshake."""
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_INTERVAL
            stamps = self._read_stamps()
            if stamps != self._stamps:
                # Stored even if the reload fails: the next change, such as a new key, is a new try.
                self._stamps = stamps
                self._reload()
        return self._context

    def _read_stamps(self) -> list[object]:
        return [_file_stamp(file) for file in self._files]

    def _reload(self) -> None:
        try:
            self._context = _create_contexts(self._config)
        except OptionError as error:
            text = "can't reload the TLS files, the old certificate stays in use: %s"
            logger.error(text, error, exc_info=error.__cause__)
        else:
            logger.info("reloaded the TLS files; new connections use them")


def _file_stamp(file: str) -> object:
    """Return a value that changes with the content, the owner or the mode of a file."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _create_contexts(config: Config) -> ssl.SSLContext:
    """Create all contexts, and return the first one. Its SNI callback selects the others.

    Certificates with the same host names share a context. OpenSSL chooses the type of key that the
    client prefers.
    """
    groups: dict[frozenset[str], list[_Pair]] = {}
    for certfile, keyfile in zip_longest(config.ssl_certfile, config.ssl_keyfile):
        pem, hosts = _read_certificate(config, certfile)
        if groups and not hosts and hosts not in groups:
            text = "names no host, so it would never be used"
            raise config.error("ssl_certfile", certfile, text)
        groups.setdefault(hosts, []).append(_Pair(certfile, keyfile, pem))
    first, *others = [_create_context(config, pairs) for pairs in groups.values() or [[]]]
    if others and first.sni_callback is None:
        by_host: dict[str, ssl.SSLContext | None] = {}  # None: the first context, already in use
        for hosts, context in zip(groups, [None, *others], strict=True):
            for host in hosts:
                by_host.setdefault(host, context)
        first.sni_callback = partial(_choose_context, by_host)
    return first


def _choose_context(
    by_host: dict[str, ssl.SSLContext | None],
    tls: ssl.SSLObject,
    name: str | None,
    _: ssl.SSLContext,
) -> None:
    """Select the context by SNI (RFC 6066 §3). A wildcard matches one label (RFC 9525 §6.3)."""
    if name is not None:
        name = name.lower()
        wildcard = "*." + name.partition(".")[2]
        context = by_host[name] if name in by_host else by_host.get(wildcard)
        if context is not None:
            tls.context = context


def _read_certificate(config: Config, file: str) -> tuple[str, frozenset[str]]:
    """Return the first certificate of a file in PEM, and its host names. Raises OptionError.

    The other certificates of the chain must be well-formed, too.
    """
    try:
        with open(file, "rb") as opened:
            found = _CERTIFICATE.findall(opened.read().decode("latin-1"))
    except OSError as error:
        raise config.error("ssl_certfile", file, f"can't be read: {_error_text(error)}") from None
    if not found:
        raise config.error("ssl_certfile", file, "contains no certificate")
    try:
        first, *_ = [ssl.PEM_cert_to_DER_cert(text) for text in found]
        hosts = frozenset(certificate.host_names(first))
        if certificate.has_expired(first):
            logger.warning(
                "%s: the certificate has expired", config.spelling("ssl_certfile").given(file)
            )
    except ValueError:
        raise config.error("ssl_certfile", file, "contains an invalid certificate") from None
    return ssl.DER_cert_to_PEM_cert(first), hosts


def _create_context(config: Config, pairs: Sequence[_Pair]) -> ssl.SSLContext:
    """Create a context with `--ssl-context-factory` or from the options. Raises OptionError."""
    function = given = config.ssl_context_factory
    if function is None:
        return _default_context(config, pairs)
    try:
        if isinstance(function, str):
            function = importer.load(function, config.app_dir)
        context = function(config, partial(_default_context, config, pairs))
    except OptionError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, importer.LoadError) else error
        raise config.error("ssl_context_factory", given, f"failed: {error}") from cause
    if not isinstance(context, ssl.SSLContext):
        raise config.error("ssl_context_factory", given, "must return an ssl.SSLContext")
    return context


def _default_context(config: Config, pairs: Sequence[_Pair]) -> TLSContext:
    """Create a context from the options. Raises OptionError.

    All other settings are Python's defaults for servers, without compression and without insecure
    TLS versions and ciphers. `ssl.create_default_context` is not used, because since Python 3.13
    it rejects the client certificates of some authorities.
    """
    if not pairs:
        raise OptionError(f"the default TLS context needs {config.spelling('ssl_certfile')}")
    context = TLSContext(ssl.PROTOCOL_TLS_SERVER)
    context.certificate = pairs[0].pem if len(pairs) == 1 else None
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.minimum_version = ssl.TLSVersion["TLSv" + config.ssl_min_version.replace(".", "_")]
    context.set_alpn_protocols(["h2", "http/1.1"] if config.http2 else ["http/1.1"])
    for pair in reversed(pairs):  # OpenSSL uses the last one of each key type
        _load_pair(context, pair, config)
    name, value = "ssl_ca_certs", config.ssl_ca_certs
    try:
        if value is not None:
            context.load_verify_locations(value)
        if config.ssl_ciphers is not None:
            name, value = "ssl_ciphers", config.ssl_ciphers
            context.set_ciphers(value)
    except OSError as error:
        raise config.error(name, value, f"can't be used: {_error_text(error)}") from None
    context.verify_mode = ssl.VerifyMode["CERT_" + config.ssl_cert_reqs.upper()]
    return context


def _load_pair(context: ssl.SSLContext, pair: _Pair, config: Config) -> None:
    """Load a certificate and its key into a context. Raises OptionError."""
    certfile, keyfile, _ = pair
    encrypted = False

    def password() -> str:  # always passed, so that OpenSSL does not ask on the terminal
        nonlocal encrypted
        encrypted = True
        return config.ssl_keyfile_password or ""

    name, file = ("ssl_certfile", certfile) if keyfile is None else ("ssl_keyfile", keyfile)
    try:
        context.load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as error:
        if encrypted:
            text = _undecipherable(config)
        elif error.reason == "KEY_VALUES_MISMATCH":
            text = f"does not belong to the certificate in {certfile!r}"
        elif error.reason is not None:
            text = f"can't be used with {certfile!r}: {_error_text(error)}"
        elif keyfile is None:
            text = f"contains no private key; add {config.spelling('ssl_keyfile')}"
        else:
            text = "contains no private key"
        raise config.error(name, file, text) from None
    except OSError as error:
        raise config.error(name, file, f"can't be read: {_error_text(error)}") from None
    except ValueError:  # the password is too long (1024 bytes) or not UTF-8
        raise config.error(name, file, _undecipherable(config)) from None


def _undecipherable(config: Config) -> str:
    """Return the end of a message about a key that can't be decrypted."""
    option = config.spelling("ssl_keyfile_password")
    if config.ssl_keyfile_password is None:
        return f"has an encrypted private key; set {option}"
    return f"has a private key that can't be decrypted: wrong {option}"


_HANDSHAKE_ERRORS = {
    "HTTP_REQUEST": "the client sent a request without TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client sent no certificate",
    "CALLBACK_FAILED": "the server name is not ASCII, or the SNI callback failed",
}


def handshake_error(error: ssl.SSLError) -> str:
    """Return the reason of a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the client was rejected: {error.verify_message}"
    return _HANDSHAKE_ERRORS.get(error.reason) or _error_text(error)


def _error_text(error: OSError) -> str:
    """Return the text of an OSError. The reason of an SSLError is shown as `no shared cipher`."""
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error.strerror or error.args[0])
