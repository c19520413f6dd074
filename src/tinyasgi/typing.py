"""The types of an ASGI application, as the ASGI specification names them (version 3.0)."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Address", "App", "HeaderPairs", "Headers", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Response headers as an app gives them.
HeaderPairs: TypeAlias = Iterable[tuple[bytes, bytes]]
#: Of a TCP peer: host and port.
Address: TypeAlias = tuple[str, int]
#: A field section (RFC 9110 §5): names lower-case, in the order received, repeats kept.
Headers: TypeAlias = list[tuple[bytes, bytes]]
