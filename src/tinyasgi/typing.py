"""Types of ASGI applications, with the names of the ASGI specification (version 3.0)."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Address", "App", "HeaderPairs", "Headers", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Response headers as an app sends them.
HeaderPairs: TypeAlias = Iterable[tuple[bytes, bytes]]
#: Host and port of a TCP peer.
Address: TypeAlias = tuple[str, int]
#: A field section (RFC 9110 §5): lower-case names, in the order received, with repetitions.
Headers: TypeAlias = list[tuple[bytes, bytes]]
