"""Request ids: one for each request, the same for the app, the client and the log."""

import os
import re
from functools import partial
from typing import TYPE_CHECKING

from ..net.accept import Acceptor
from ..protocols.context import Context
from ..protocols.exchange import Exchange
from ..protocols.http1 import HTTP1Connection
from ..typing import HeaderPairs, Headers

if TYPE_CHECKING:
    from ..protocols.websocket import WebSocketExchange

__all__ = ["install"]

_GOOD = re.compile(rb"[!-~]{1,128}")


def install(context: Context, acceptor: Acceptor) -> None:
    """Puts an id into each request before its app starts, and into the response."""
    acceptor.connect = partial(_Connection, context)
    start, wanted = context.start, _name(context)

    def identified(exchange: Exchange) -> None:
        connection = exchange.connection
        assert isinstance(connection, _Connection)
        fields: Headers = exchange.scope["headers"]
        given = [value for name, value in fields if name == wanted]
        if connection.trusted and len(given) == 1 and _GOOD.fullmatch(given[0]):
            (made,) = given
        else:
            made = os.urandom(16).hex().encode()
            others = [field for field in fields if field[0] != wanted]
            exchange.scope["headers"] = [*others, (wanted, made)]
        exchange.scope["state"]["request_id"] = made.decode()
        connection.request_id = made
        start(exchange)

    context.start = identified  # type: ignore[method-assign]


def _name(context: Context) -> bytes:
    return (context.config.request_id_header or "").lower().encode()


class _Connection(HTTP1Connection):
    """A connection whose responses have the id of the request, unless the app sets the field."""

    __slots__ = ("request_id",)

    request_id: bytes
    """Of the exchange that is carried."""

    def write_head(
        self, exchange: Exchange, fields: HeaderPairs, body: bytes, more_body: bool
    ) -> None:
        super().write_head(exchange, self._with_id(fields), body, more_body)

    def switch(self, exchange: "WebSocketExchange", fields: HeaderPairs) -> None:
        super().switch(exchange, self._with_id(fields))

    def _with_id(self, fields: HeaderPairs) -> HeaderPairs:
        fields, wanted = list(fields), _name(self._context)
        if any(isinstance(name, bytes) and name.lower() == wanted for name, _ in fields):
            return fields
        return [*fields, (wanted, self.request_id)]
