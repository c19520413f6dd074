"""The types of an ASGI application, as the ASGI specification names them (version 3.0)."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Address", "App", "Fields", "Message", "Pairs", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Response fields as an app gives them.
Pairs: TypeAlias = Iterable[tuple[bytes, bytes]]
#: Of a TCP peer: host and port.
Address: TypeAlias = tuple[str, int]
#: A field section (RFC 9110 §5): names lower-case, in the order received, repeats kept.
Fields: TypeAlias = list[tuple[bytes, bytes]]
