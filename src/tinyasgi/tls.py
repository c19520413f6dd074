"""`Config` → the TLS context of a server."""

import ssl

from .config import Config
from .options import OptionError

__all__ = ["make_context"]


def make_context(config: Config) -> ssl.SSLContext | None:
    """The TLS side of a configuration, None without a certificate.

    Raises OptionError for files that can't be used.
    """
    if config.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[config.ssl_min_version]
    context.set_alpn_protocols(["http/1.1"])
    name, value = "ssl_certfile", config.ssl_certfile
    try:
        # A password is always given: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(
            config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password or ""
        )
        if config.ssl_ca_certs is not None:
            name, value = "ssl_ca_certs", config.ssl_ca_certs
            context.load_verify_locations(config.ssl_ca_certs)
        if config.ssl_ciphers is not None:
            name, value = "ssl_ciphers", config.ssl_ciphers
            context.set_ciphers(config.ssl_ciphers)
    except OSError as error:
        raise OptionError(name, value, f"usable: {error.strerror or error}") from None
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[config.ssl_cert_reqs]
    return context
