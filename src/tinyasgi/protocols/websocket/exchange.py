"""WebSocket exchange: the app's `receive` and `send` (ASGI WebSocket specification 2.5)."""

from collections import deque
from collections.abc import Callable, Sized
from typing import Any, Protocol, cast

from ...config.config import Config
from ...errors import ClientDisconnected
from ...http.request import RequestLine
from ...http.response import PLAIN_TEXT
from ...server_log import logger
from ...typing import HeaderPairs, Message, Scope
from ..exchange import MESSAGE_COST, Exchange, is_disconnect
from ..states import COMPLETE, STREAMING, WAITING, Phase
from ..stream import Stream
from .deflate import Deflate
from .frames import BINARY, TEXT
from .handshake import read_handshake

#: Size of the messages that wait for the app, in bytes, at which reading pauses.
HIGH_WATER = 64 * 1024

#: Messages with which an app rejects a handshake by an HTTP response.
DENIALS = frozenset({"websocket.http.response.start", "websocket.http.response.body"})

#: Status of an accepted handshake (RFC 9110 §15.2.2).
SWITCHING_PROTOCOLS = 101


class HandshakeStream(Stream, Protocol):
    """The connection of an exchange until the app accepts the WebSocket."""

    def switch(self, exchange: "WebSocketExchange", headers: HeaderPairs) -> None:
        """Accept the handshake; call `open`. Raises TypeError or ValueError."""


class WebSocketStream(Protocol):
    """The connection of an exchange after the handshake: a WebSocketConnection."""

    paused: bool

    def read(self) -> None:
        """Deliver further messages."""

    def write(self, opcode: int, message: bytes, more: Sized) -> None:
        """Send a message. Raises ClientDisconnected."""

    def close_with(self, code: int, reason: str = "") -> None:
        """Start the closing handshake. Raises ValueError."""


class WebSocketExchange(Exchange):
    """A handshake and the messages after it (ASGI WebSocket specification 2.5).

    Until the app accepts, this is an ordinary exchange on an HTTP/1.1 connection, and a rejection
    is an HTTP response. The constructor raises BadRequest for an invalid handshake.
    """

    # fmt: off
    __slots__ = (
        "_closed", "_code", "_handshake", "_held", "_max_queue", "_messages", "_open",
        "_queued", "_reason", "_socket",
    )
    # fmt: on

    stream: HandshakeStream
    _socket: WebSocketStream

    def __init__(
        self,
        stream: HandshakeStream,
        scope: Scope,
        line: RequestLine,
        persistent: bool,
        config: Config,
    ) -> None:
        super().__init__(stream, scope, line, persistent)
        self._handshake = read_handshake(
            scope["headers"], config.ws_per_message_deflate, has_key=line.version != "2"
        )
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"]["spec_version"] = "2.5"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = self._handshake.subprotocols.copy()
        extensions: dict[str, Any] = {"websocket.http.response": {}}
        if "tls" in scope["extensions"]:  # the others are for HTTP
            extensions["tls"] = scope["extensions"]["tls"]
        scope["extensions"] = extensions
        self._messages: deque[Any] = deque(({"type": "websocket.connect"},))
        self._queued = 0  # size of the waiting messages in bytes
        self._max_queue = config.ws_max_queue
        self._held = False  # the connection has stopped reading until the app calls `receive`
        self._open = False  # True between the handshake and the end
        self._closed = False  # the app has sent `websocket.close`
        self._code = 0  # close code for `websocket.disconnect`; 0 until the WebSocket has ended
        self._reason = ""

    # Called by the app.

    async def receive(self) -> Message:
        """Implement ASGI's `receive`. Several tasks may call it at the same time."""
        while not self._messages:
            if self._code:
                code, reason = self._code, self._reason
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self._held:
                self._held = False
                self._socket.read()
            else:
                await self.wait()
        message = self._messages.popleft()
        if type(message) is str:
            self._queued -= len(message)
            return {"type": "websocket.receive", "text": message}
        if type(message) is bytes:
            self._queued -= len(message)
            return {"type": "websocket.receive", "bytes": message}
        return message  # type: ignore[no-any-return]  # websocket.connect

    async def send(self, message: Message) -> None:
        """Implement ASGI's `send`. It waits while the write buffer is full.

        Raises ClientDisconnected after a disconnect, RuntimeError for a message in the wrong order,
        and TypeError, ValueError or KeyError for a wrong value.
        """
        kind = message["type"]
        if self._open and kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if text is None and data is not None:
                opcode, data = BINARY, data if type(data) is bytes else bytes(memoryview(data))
            elif data is None and text is not None:
                opcode, data = TEXT, text.encode()
            else:
                raise ValueError("'websocket.send' needs exactly one of text and bytes")
            self._socket.write(opcode, data, self._messages)
            size = len(data)
            self.sent += size
            self.credit -= size + MESSAGE_COST
            if self.credit < 0 or self._socket.paused:
                await self.take_turns()
        elif self._open and kind == "websocket.close":
            self._socket.close_with(message.get("code") or 1000, message.get("reason") or "")
            self._closed = True
        elif self.phase is WAITING and kind == "websocket.accept":
            subprotocol, headers = message.get("subprotocol"), message.get("headers", ())
            response_headers = self._handshake.response_headers(subprotocol, headers)
            self.response_headers = response_headers
            self.stream.switch(self, response_headers)
        elif self.phase is WAITING and kind == "websocket.close":
            self._reject()
        elif self.phase < COMPLETE and not self._open and kind in DENIALS:
            await super().send({**message, "type": kind.removeprefix("websocket.")})
        elif self.phase >= COMPLETE and not self._closed:
            raise ClientDisconnected("the client has disconnected")
        else:
            raise RuntimeError(f"{kind!r} was sent {self._progress()}")

    def _progress(self) -> str:
        if self._closed:
            return "after websocket.close"
        if self.phase is WAITING:
            return "before websocket.accept"
        return f"after websocket.{'accept' if self._open else 'http.response.start'}"

    def _reject(self) -> None:
        self.status = 403
        self.stream.write_head(self, [PLAIN_TEXT], b"Forbidden\n", False)
        self._closed = True

    # Called by the connection and the context.

    @property
    def unwritten(self) -> bool:
        """False: a client that has closed its sending side can't use a WebSocket."""
        return False

    @property
    def deflate(self) -> Deflate | None:
        """Negotiated compression, or None."""
        return self._handshake.deflate

    def is_health_check(self, path: str | None) -> bool:
        return False

    def open(self, socket: WebSocketStream) -> None:
        """Continue on a WebSocketConnection after the handshake."""
        self._socket = socket
        self.stream = cast("HandshakeStream", socket)  # no HTTP message can follow
        self.status = SWITCHING_PROTOCOLS
        self.phase = STREAMING
        self._open = True
        logger.debug('%s "%s" WebSocket open', self.stream.client.name, self.line.text)

    def deliver(self, message: str | bytes) -> bool:
        """Queue a message from the connection; return whether more messages are wanted."""
        if self._code:
            return True
        self._messages.append(message)
        self._queued += len(message)
        if self._waiters:
            self.wake()
        self._held = len(self._messages) >= self._max_queue or self._queued >= HIGH_WATER
        return not self._held

    def hold(self) -> bool:
        """Return whether messages wait for the app.

        If so, `receive` calls `read` of the connection after the last one.
        """
        self._held = bool(self._messages)
        return self._held

    def end(self, code: int, reason: str) -> None:
        """Queue `websocket.disconnect` after the messages that wait for the app."""
        self._code, self._reason = code, reason
        self.wake()

    def finish(self, phase: Phase, on_finish: Callable[[Exchange], None] | None) -> None:
        """Enter the phase COMPLETE or LOST, drop stream and socket, and call `on_finish`."""
        if self._open:
            del self._socket
        self._open = self._held = False
        self._code = self._code or 1006
        super().finish(phase, on_finish)

    def ended(self, error: BaseException | None) -> BaseException | None:
        """Handle the end of the app, which has raised `error` or returned.

        Return the exception to log, or None.
        """
        # Frameworks use 1006 if `send` has raised ClientDisconnected.
        if self._code and is_disconnect(error, set(), (self._code, 1006)):
            error = None
        if self._open:
            code = 1000 if error is None else 1011
            self._socket.close_with(self._code or code)  # set if the server stops
            return error
        if self.phase is WAITING and error is None:
            self._reject()
            return None
        return super().ended(error)
