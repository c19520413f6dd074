"""The interface between an exchange and its connection."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from ..http.client import ClientInfo
from ..typing import HeaderPairs

if TYPE_CHECKING:
    from .exchange import Exchange

#: Messages of the ASGI extensions.
EARLY_HINT: Final = "http.response.early_hint"
PATHSEND: Final = "http.response.pathsend"
TRAILERS_MESSAGE: Final = "http.response.trailers"
ZEROCOPYSEND: Final = "http.response.zerocopysend"
EXTENSIONS: Final = frozenset({EARLY_HINT, PATHSEND, TRAILERS_MESSAGE, ZEROCOPYSEND})


class FilePart(NamedTuple):
    """A part of an open file."""

    descriptor: int
    offset: int
    """Position of the first byte."""
    size: int
    """Number of bytes."""


FileWriter: TypeAlias = Callable[["Exchange", FilePart], Coroutine[Any, Any, None]]


class Stream(Protocol):
    """The interface that an exchange needs from its connection.

    An HTTP/1.1 connection and a stream of HTTP/2 implement it. They call `feed`, `wake`, `finish`
    and `cancel` of the exchange.

    The exchange validates messages and their order. The stream frames their content.
    """

    client: ClientInfo
    """Source of the request."""

    @property
    def paused(self) -> bool:
        """The write buffer is full: a streaming `send` waits for `Exchange.wake`."""

    @property
    def eof(self) -> bool:
        """The client has closed its sending side; it may still read."""

    @property
    def stopping(self) -> bool:
        """The server is stopping: streaming responses should end."""

    def write_interim(self, exchange: "Exchange", status: int, headers: HeaderPairs) -> None:
        """Write an interim response, before the head. Raises TypeError or ValueError.

        HTTP/1.0 has none (RFC 9110 §15.2), so it is dropped there.
        """

    def write_head(
        self,
        exchange: "Exchange",
        headers: HeaderPairs,
        body: bytes,
        more_body: bool,
        length: int | None = None,
    ) -> None:
        """Write the head and the first piece of the body. Raises TypeError or ValueError.

        more_body: a piece of the body, a file, or trailers follow. length: size of the whole body
        in bytes, if it is known although more follows.
        """

    def write_body(self, exchange: "Exchange", body: bytes, more_body: bool) -> None:
        """Write another piece of the body. more_body: as for `write_head`. Raises ValueError."""

    @property
    def file_writer(self) -> FileWriter | None:
        """Function that writes a part of a file as a piece of the body; more follows.

        It returns when everything is written, or the phase is LOST. It raises ValueError if the
        body becomes too long, and OSError if the file can't be read or is too short. None: the
        exchange has to read the file in blocks and call `write_body`, as over TLS.
        """

    def write_trailers(self, exchange: "Exchange", trailers: HeaderPairs) -> None:
        """Complete the response with trailers (RFC 9110 §6.5), which may be empty.

        They are dropped if the framing of the body has no room for them. Raises ValueError if the
        body is too short.
        """

    def abort(self, exchange: "Exchange") -> None:
        """End an incomplete response: 500 if nothing was written, else close the connection."""

    def want_body(self, exchange: "Exchange") -> None:
        """Read request body, because the app waits for it."""
