"""Request ids: the app, the client and the access log get the same id for a request."""

import os
import re

from .exchange import Exchange

_VALID = re.compile(rb"[!-~]{1,128}")


class RequestIds:
    """Assigns ids to exchanges. name: the header that transports the id."""

    def __init__(self, name: str) -> None:
        self._name = name.lower().encode()

    def assign(self, exchange: Exchange, trusted: bool) -> None:
        """Keep the id of a trusted peer, or generate one; add it to scope and response."""
        headers = exchange.scope["headers"]
        values = [value for name, value in headers if name == self._name]
        if trusted and len(values) == 1 and _VALID.fullmatch(values[0]):
            value = values[0]
        else:
            value = os.urandom(16).hex().encode()
            if values:
                headers[:] = [header for header in headers if header[0] != self._name]
            headers.append((self._name, value))
        exchange.scope["state"]["request_id"] = value.decode()
        exchange.request_id = self._name, value
