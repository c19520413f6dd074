"""Messages of the ASGI extensions for HTTP responses.

Specification: https://asgi.readthedocs.io/en/latest/extensions.html
"""

from ...http.response import check_header
from ...typing import HeaderPairs, Message
from ..exchange import MESSAGE_COST, Exchange, misplaced
from ..states import COMPLETE, STARTED, STREAMING, TRAILERS
from ..stream import EARLY_HINT, PATHSEND, TRAILERS_MESSAGE
from .files import open_path, requested_part, send_file

#: Headers that are not allowed as trailers (RFC 9110 §6.5.1): framing, routing, authentication,
#: request modifiers, control data, and headers that are needed to process the content.
FORBIDDEN_TRAILERS = frozenset(
    b"age authorization cache-control connection content-encoding content-length content-range "
    b"content-type cookie date expect expires host if-match if-modified-since if-none-match "
    b"if-range if-unmodified-since keep-alive location max-forwards pragma "
    b"proxy-authenticate proxy-authorization proxy-connection range retry-after set-cookie te "
    b"trailer transfer-encoding upgrade vary warning www-authenticate".split()
)


async def send(exchange: Exchange, message: Message) -> None:
    """Send a message of an extension in an exchange that is not complete.

    Raises RuntimeError for a message in the wrong order, TypeError, ValueError or KeyError for a
    wrong value, and OSError for a file that can't be read.
    """
    kind, phase = message["type"], exchange.phase
    if kind == EARLY_HINT:
        _send_hint(exchange, message)
    elif kind == TRAILERS_MESSAGE and phase is TRAILERS:
        _send_trailers(exchange, message)
    elif kind == PATHSEND and phase in (STARTED, STREAMING) and not exchange.sent:
        with open_path(message["path"]) as part:
            await send_file(exchange, part, more_body=False)
    elif kind not in (PATHSEND, TRAILERS_MESSAGE) and phase in (STARTED, STREAMING):
        with requested_part(message) as part:
            await send_file(exchange, part, bool(message.get("more_body", False)))
    else:
        raise RuntimeError(misplaced(kind, phase))
    exchange.credit -= MESSAGE_COST
    if exchange.phase < COMPLETE and (exchange.credit < 0 or exchange.stream.paused):
        await exchange.take_turns()


def _send_hint(exchange: Exchange, message: Message) -> None:
    """Send 103 (Early Hints; RFC 8297), unless it is too late because the head is written."""
    links = [(b"link", link) for link in message["links"]]
    if links and exchange.phase <= STARTED:
        exchange.stream.write_interim(exchange, 103, links)


def _send_trailers(exchange: Exchange, message: Message) -> None:
    """Collect trailers, and send them with the last message."""
    trailers = [(name, value) for name, value in message.get("headers", ())]
    for name, value in trailers:
        if check_header(name, value) in FORBIDDEN_TRAILERS:
            raise ValueError(f"{name!r} is not allowed as a trailer (RFC 9110 §6.5.1)")
    assert exchange.trailers is not None
    exchange.trailers += trailers
    if not message.get("more_trailers", False):
        wanted = exchange.trailers if _accepts_trailers(exchange.scope["headers"]) else ()
        exchange.stream.write_trailers(exchange, wanted)


def _accepts_trailers(headers: HeaderPairs) -> bool:
    """Return whether the request contains `TE: trailers` (RFC 9110 §10.1.4)."""
    values = b",".join(value for name, value in headers if name == b"te")
    return any(each.strip().lower() == b"trailers" for each in values.split(b","))
