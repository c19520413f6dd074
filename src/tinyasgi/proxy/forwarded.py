"""Client information in the headers of trusted proxies.

There are two sets of headers: `X-Forwarded-*`, which most proxies send, and `Forwarded` (RFC 7239).
Only one set is read, because a proxy that writes one of them may forward the other from clients.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..config.kinds import as_root
from ..http import request
from ..http.client import ClientInfo, peer_name
from ..http.memo import Memo
from ..typing import Address, Headers
from .trust import Trust

#: Values that hide an address (RFC 7239 §6.2 and §6.3), and the syntax of a port (§6).
_HIDDEN = re.compile(r"unknown|_[-._0-9A-Za-z]+")
_NODE_PORT = re.compile(r"[0-9]{1,5}|_[-._0-9A-Za-z]+")
#: A parameter of `Forwarded` and the semicolon or end after it (RFC 7239 §4). Unquoted colons and
#: brackets are accepted, because some proxies do not quote. The possessive `++` and `*+` prevent
#: backtracking.
_PARAMETER = re.compile(
    r"[ \t]*+(?:([-!#$%&'*+.^_`|~0-9A-Za-z]++)=(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s\",;\\]++)))?"
    r"[ \t]*+(?:;|\Z)"
)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
#: Maximum length of X-Forwarded-Prefix in bytes.
MAX_PREFIX = 256
#: Maximum number of errors that are remembered, so that each is logged once.
_MAX_LOGGED = 256
#: Maximum number of commas in quotes within an element of `Forwarded`.
_MAX_QUOTED_COMMAS = 20


class _Node(NamedTuple):
    """A node of the proxy chain (RFC 7239 §6)."""

    client: Address | None
    """Address and port. None if a proxy hides the address; the port is 0 if it is unknown."""
    name: str
    """Name for log lines."""


def _parse_node(text: str) -> _Node:
    """Parse an address with optional brackets and port. Raises ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and port[0] != ":"):
            raise ValueError
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
        port = colon + port
    if port and not _NODE_PORT.fullmatch(port, 1):
        raise ValueError
    if _HIDDEN.fullmatch(host):
        return _Node(None, host)
    if "%" in host:
        raise ValueError  # a zone is valid only on the machine of the proxy
    import ipaddress

    six = ":" in host or text.startswith("[")
    address = ipaddress.IPv6Address(host) if six else ipaddress.IPv4Address(host)
    number = int(port[1:]) if port[1:].isdigit() else 0
    if number > 65535:
        raise ValueError
    client = str(address), number
    return _Node(client, peer_name(client))


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
        raise ValueError
    return int(text)


def _parse_host(text: str) -> bytes:
    host = text.encode("latin-1")
    if not request.valid_authorities[host]:
        raise ValueError
    return host


def _parse_prefix(text: str) -> str:
    if (
        len(text) > MAX_PREFIX
        or text[:1] != "/"
        or not request.is_valid_path(text.encode("latin-1"))
    ):
        raise ValueError
    from urllib.parse import unquote  # lazy: the import takes 7 ms

    return as_root(unquote(text))


class Forwarded:
    """Callable that reads one set of headers and returns the client of a request.

    log_error: called with the name of a peer and a message, once for each peer and header.
    """

    def __init__(self, trust: Trust, log_error: Callable[[str, str], None]) -> None:
        self._trust = trust
        self._log_error = log_error
        #: Peers and headers whose errors were logged.
        self._logged: set[tuple[str, str]] = set()
        self._nodes = Memo(_parse_node, 1024, longest=64)
        #: Functions that parse the values; they raise ValueError or KeyError.
        self._parsers: dict[str, Callable[[str], Any]] = {
            "for": self._nodes.__getitem__,
            "proto": lambda text: _SCHEMES[text.lower()],
            "host": _parse_host,
        }
        self._is_standard = "forwarded" in trust.headers.values()
        if not self._is_standard:
            self._parsers |= {"port": _parse_port, "prefix": _parse_prefix}

    def __call__(self, peer: ClientInfo, headers: Headers) -> ClientInfo:
        """Return the client of a request. Malformed values are ignored and logged."""
        texts: dict[str, str] = {}
        for name, value in headers:
            if key := self._trust.headers.get(name):  # repeated ones are combined (RFC 9110 §5.3)
                text = value.decode("latin-1")
                texts[key] = f"{texts[key]},{text}" if key in texts else text
        values: dict[str, Any] = {}
        choose = self._choose_element if self._is_standard else self._choose_items
        for key, text in choose(peer, texts).items():
            if key in self._parsers:
                try:
                    values[key] = self._parsers[key](text)
                except (ValueError, KeyError):
                    self._log_malformed(peer, key, text)
        return _replace(peer, values, headers)

    # Choice of the client among the nodes.

    def _choose_items(self, peer: ClientInfo, texts: dict[str, str]) -> dict[str, str]:
        """Return the item of each `X-Forwarded-*` list that belongs to the client.

        If a list is as long as X-Forwarded-For, this is the item at the position of the client.
        Otherwise it is the last item, which the nearest proxy has added.
        """
        lists = {
            name: [item for part in text.split(",") if (item := part.strip())]
            for name, text in texts.items()
        }
        hops = lists.get("for", [])
        index = self._client_index(hops)
        return {
            name: items[index] if len(items) == len(hops) else items[-1]
            for name, items in lists.items()
            if items
        }

    def _choose_element(self, peer: ClientInfo, texts: dict[str, str]) -> dict[str, str]:
        """Return the parameters of the element of `Forwarded` that belongs to the client."""
        text = texts.get("forwarded", "")
        element: dict[str, str] = {}
        try:
            for element in _elements(text):
                if not self._is_proxy(element.get("for", "unknown")):
                    break
        except ValueError:
            self._log_malformed(peer, "", text)
            return {}
        return element

    def _client_index(self, hops: list[str]) -> int:
        """Return the index of the client in X-Forwarded-For.

        Each proxy has appended the address of its own client. So the client is the last address
        that is not trusted. The addresses before it may be forged. If all addresses are trusted,
        the client is the first one.
        """
        for index in range(len(hops) - 1, 0, -1):
            if not self._is_proxy(hops[index]):
                return index
        return 0

    def _is_proxy(self, hop: str) -> bool:
        """Return whether an address belongs to a trusted proxy."""
        if self._trust.trusts_all:
            return True
        try:
            client = self._nodes[hop].client
        except ValueError:
            return False
        return client is not None and self._trust[client[0]]

    def _log_malformed(self, peer: ClientInfo, key: str, text: str) -> None:
        name = "Forwarded" if self._is_standard else f"X-Forwarded-{key.title()}"
        address = peer.scope["client"]
        error = address[0] if address else "", name
        if error not in self._logged:
            if len(self._logged) >= _MAX_LOGGED:
                self._logged.clear()
            self._logged.add(error)
            self._log_error(peer.name, f"ignoring malformed {name}: {text[:80]!r}")


def _elements(text: str) -> Iterator[dict[str, str]]:
    """Yield the parameters of each element of `Forwarded`, the last one first (RFC 7239 §4).

    Proxies append their elements. So malformed elements from a client do not affect those of
    proxies. Raises ValueError for a malformed element.
    """
    end = len(text)
    while end >= 0:
        start = end
        for _ in range(_MAX_QUOTED_COMMAS):
            start = text.rfind(",", 0, start)
            element = _parse_element(text[start + 1 : end])
            if element is not None:
                break
            if start < 0:  # otherwise the comma may be in quotes
                raise ValueError
        else:
            raise ValueError
        if element:
            yield element
        end = start


def _parse_element(text: str) -> dict[str, str] | None:
    """Return the parameters of an element, or None if it is malformed."""
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            return None
        name, quoted, token = match.groups()
        if name is not None:
            name = name.lower()
            if name in parameters:
                return None  # "MUST NOT occur more than once"
            parameters[name] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
    return parameters


def _replace(peer: ClientInfo, values: dict[str, Any], headers: Headers) -> ClientInfo:
    """Return the client: the peer with the values of its headers."""
    scope, name, host = peer.scope.copy(), peer.name, values.get("host")
    if "for" in values:
        scope["client"], name = values["for"]
    if "proto" in values:
        scope["scheme"] = values["proto"]
    port = values.get("port")
    if port is not None:
        if scope["server"][1] is not None:  # a unix socket has no port
            scope["server"] = (scope["server"][0], port)
        if host is None:
            host = next((value for name, value in headers if name == b"host"), None)
        default = 443 if scope["scheme"] == "https" else 80
        if host and port != default and b":" not in host.rpartition(b"]")[2]:
            host = b"%b:%d" % (host, port)
    return ClientInfo(scope, name, None, host, values.get("prefix"))
