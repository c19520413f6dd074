"""A WebSocket as its app sees it (ASGI WebSocket specification 2.5)."""

from collections import deque
from typing import Any

from ...config.config import Config
from ...errors import ClientDisconnected
from ...http.request import RequestLine
from ...http.response import PLAIN_TEXT
from ...typing import Message, Scope
from ..exchange import COMPLETE, MESSAGE, STREAMING, WAITING, Exchange, is_disconnect
from .deflate import Deflate
from .frames import BINARY, TEXT
from .handshake import read_handshake

__all__ = ["WebSocketExchange"]

#: Bytes of messages that may wait for the app before reading pauses.
HIGH_WATER = 64 * 1024

#: What the names of messages begin with by which an app refuses a handshake.
RESPONSE = "websocket.http.response."

#: The status of a handshake that the app has accepted (RFC 9110 §15.2.2).
SWITCHING = 101


class WebSocketExchange(Exchange):
    """A handshake, and the messages that follow it (ASGI WebSocket specification 2.5).

    Until the app accepts, this is an exchange on an HTTP/1.1 connection like any other, and a
    refusal is a response. Raises BadRequest for what is no handshake.
    """

    # fmt: off
    __slots__ = (
        "_closed", "_code", "_handshake", "_held", "_max_queue", "_messages", "_open",
        "_queued", "_reason",
    )
    # fmt: on

    connection: Any  # an HTTP1Connection until the app accepts, then a WebSocketConnection

    def __init__(
        self, connection: Any, scope: Scope, line: RequestLine, persistent: bool, config: Config
    ) -> None:
        super().__init__(connection, scope, line, persistent)
        self._handshake = read_handshake(scope["headers"], config.ws_per_message_deflate)
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"]["spec_version"] = "2.5"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = self._handshake.subprotocols.copy()
        scope["extensions"] = {**scope.get("extensions", {}), "websocket.http.response": {}}
        self._messages: deque[Any] = deque(({"type": "websocket.connect"},))
        self._queued = 0  # bytes in them
        self._max_queue = config.ws_max_queue
        self._held = False  # the connection waits for the app to ask for more
        self._open = False  # between the handshake and the end
        self._closed = False  # by the app
        self._code = 0  # of `websocket.disconnect`, once there is one
        self._reason = ""

    # What the app calls.

    async def receive(self) -> Message:
        """ASGI's `receive`: any number of tasks may call it, at any time."""
        while not self._messages:
            if self._code:
                code, reason = self._code, self._reason
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self._held:
                self._held = False
                self.connection.read()
            else:
                await self._wait()
        message = self._messages.popleft()
        if type(message) is str:
            self._queued -= len(message)
            return {"type": "websocket.receive", "text": message}
        if type(message) is bytes:
            self._queued -= len(message)
            return {"type": "websocket.receive", "bytes": message}
        return message  # type: ignore[no-any-return]  # websocket.connect

    async def send(self, message: Message) -> None:
        """ASGI's `send`. It waits while the client reads more slowly than the app writes.

        Raises ClientDisconnected; RuntimeError for a message out of order; TypeError, ValueError
        or KeyError for one with a wrong value.
        """
        kind = message["type"]
        if self._open and kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if text is None and data is not None:
                opcode, data = BINARY, data if type(data) is bytes else bytes(memoryview(data))
            elif data is None and text is not None:
                opcode, data = TEXT, text.encode()
            else:
                raise ValueError("'websocket.send' has either text or bytes")
            self.connection.write(opcode, data, self._messages)
            size = len(data)
            self.sent += size
            self._credit -= size + MESSAGE
            if self._credit < 0 or self.connection.paused:
                await self._take_turns()
        elif self._open and kind == "websocket.close":
            self.connection.close_with(message.get("code") or 1000, message.get("reason") or "")
            self._closed = True
        elif self.phase == WAITING and kind == "websocket.accept":
            subprotocol, headers = message.get("subprotocol"), message.get("headers", ())
            self.response_headers = answer = self._handshake.answer(subprotocol, headers)
            self.connection.switch(self, answer)
        elif self.phase == WAITING and kind == "websocket.close":
            self._deny()
        elif self.phase < COMPLETE and not self._open and kind.startswith(RESPONSE):
            await super().send({**message, "type": kind.removeprefix("websocket.")})
        elif self.phase >= COMPLETE and not self._closed:
            raise ClientDisconnected("the client has left")
        else:
            raise RuntimeError(f"{kind!r} can't be sent {self._standing()}")

    def _standing(self) -> str:
        if self._closed:
            return "after websocket.close"
        if self.phase == WAITING:
            return "before websocket.accept"
        return f"after websocket.{'accept' if self._open else 'http.response.start'}"

    def _deny(self) -> None:
        self.status = 403
        self.connection.write_head(self, [PLAIN_TEXT], b"Forbidden\n", False)
        self._closed = True

    # What the connection and the context call.

    @property
    def unwritten(self) -> bool:
        """A client that sends nothing more has no use for a WebSocket."""
        return False

    @property
    def deflate(self) -> Deflate | None:
        """How messages are compressed, if they can be."""
        return self._handshake.deflate

    def open(self, connection: Any) -> None:
        """The handshake is done; a WebSocketConnection carries the exchange from here on."""
        self.connection = connection
        self.status = SWITCHING
        self.phase = STREAMING
        self._open = True

    def deliver(self, message: str | bytes) -> bool:
        """Takes a message from the connection; whether there is room for more."""
        if self._code:
            return True
        self._messages.append(message)
        self._queued += len(message)
        if self._waiters:
            self.wake()
        self._held = len(self._messages) >= self._max_queue or self._queued >= HIGH_WATER
        return not self._held

    def hold(self) -> bool:
        """Whether the app has messages to take first; when it has, it asks for what follows."""
        self._held = bool(self._messages)
        return self._held

    def end(self, code: int, reason: str) -> None:
        """No message follows those that are here but `websocket.disconnect`."""
        self._code, self._reason = code, reason
        self.wake()

    def leave(self, phase: int) -> None:
        """COMPLETE or LOST: from here on the exchange does without its connection."""
        self._open = self._held = False
        self._code = self._code or 1006
        super().leave(phase)

    def ended(self, error: BaseException | None) -> BaseException | None:
        """The app returned, or raised `error`: what there is to report of it, if anything."""
        # A framework has 1006 for a `send` that raises ClientDisconnected.
        if self._code and is_disconnect(error, set(), (self._code, 1006)):
            error = None
        if self._open:
            code = 1000 if error is None else 1011
            self.connection.close_with(self._code or code)  # there is one if the server stops
            return error
        if self.phase == WAITING and error is None:
            self._deny()
            return None
        return super().ended(error)
