"""What trusted peers say of their clients in the headers of a request.

There are two families of such headers: `X-Forwarded-*`, as most proxies send them, and `Forwarded`
(RFC 7239). One of them is read, never both.
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

__all__ = ["Forwarded"]

#: Names that hide an address (RFC 7239 §6.2 and §6.3), and what a port may look like (§6).
_HIDDEN = re.compile(r"unknown|_[-._0-9A-Za-z]+")
_NODE_PORT = re.compile(r"[0-9]{1,5}|_[-._0-9A-Za-z]+")
#: A parameter of `Forwarded`, and what ends it (RFC 7239 §4). Unquoted colons and brackets are
#: taken, too: not all proxies quote. `++` and `*+` look once at what they have taken.
_PARAMETER = re.compile(
    r"[ \t]*+(?:([-!#$%&'*+.^_`|~0-9A-Za-z]++)=(?:\"((?:[^\"\\]|\\.)*+)\"|([^\s\",;\\]++)))?"
    r"[ \t]*+(?:;|\Z)"
)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
#: Most bytes of a prefix.
MAX_PREFIX = 256
#: Most faults that are remembered not to be told again.
_FAULTS = 256
#: Most commas within an element of `Forwarded`.
_COMMAS = 20


class _Node(NamedTuple):
    """One end of a hop (RFC 7239 §6)."""

    client: Address | None
    """None when a proxy hides it; the port is 0 when it does not say one."""
    name: str


def _read_node(text: str) -> _Node:
    """Reads an address, in brackets or not, with a port or not; raises ValueError."""
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
        raise ValueError  # an interface of another machine
    import ipaddress

    six = ":" in host or text.startswith("[")
    address = ipaddress.IPv6Address(host) if six else ipaddress.IPv4Address(host)
    number = int(port[1:]) if port[1:].isdigit() else 0
    if number > 65535:
        raise ValueError
    client = str(address), number
    return _Node(client, peer_name(client))


def _read_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16):
        raise ValueError
    return int(text)


def _read_scheme(text: str) -> str:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise ValueError
    return scheme


def _read_host(text: str) -> bytes:
    host = text.encode("latin-1")
    if not request.valid_authorities[host]:
        raise ValueError
    return host


def _read_prefix(text: str) -> str:
    if (
        len(text) > MAX_PREFIX
        or text[:1] != "/"
        or not request.is_valid_path(text.encode("latin-1"))
    ):
        raise ValueError
    from urllib.parse import unquote  # not before it is needed: 7 ms at start

    return as_root(unquote(text))


class Forwarded:
    """Reads the headers of one family: `forwarded(peer, headers)`.

    note: called with a peer's name and what is wrong with a field, once for each host and field.
    """

    def __init__(self, trust: Trust, note: Callable[[str, str], None]) -> None:
        self._trust = trust
        self._note = note
        self._noted: set[tuple[str, str]] = set()
        self._nodes = Memo(_read_node, 1024, longest=64)
        #: How a value is read; a ValueError says that it is malformed.
        self._readers: dict[str, Callable[[str], Any]] = {
            "for": self._nodes.__getitem__,
            "proto": _read_scheme,
            "host": _read_host,
        }
        self._is_standard = "forwarded" in trust.headers.values()
        if not self._is_standard:
            self._readers |= {"port": _read_port, "prefix": _read_prefix}

    def __call__(self, peer: ClientInfo, headers: Headers) -> ClientInfo:
        """Where a request comes from, by its headers. Values that are malformed are ignored."""
        values: dict[str, str] = {}
        for name, value in headers:
            if what := self._trust.headers.get(name):  # repeated ones combine (RFC 9110 §5.3)
                text = value.decode("latin-1")
                values[what] = f"{values[what]},{text}" if what in values else text
        said: dict[str, Any] = {}
        choose = self._choose_element if self._is_standard else self._choose_items
        for what, text in choose(peer, values).items():
            if what in self._readers:
                try:
                    said[what] = self._readers[what](text)
                except ValueError:
                    self._tell(peer, what, text)
        return _replace(peer, said, headers)

    # Which of the hops counts.

    def _choose_items(self, peer: ClientInfo, values: dict[str, str]) -> dict[str, str]:
        """Of each list of `X-Forwarded-*` the item that counts.

        It stands where the client stands in the list of clients, if there are as many. Else it is
        the last, which the nearest proxy has added.
        """
        lists = {
            name: [item for part in text.split(",") if (item := part.strip())]
            for name, text in values.items()
        }
        hops = lists.get("for", [])
        place = self._place(hops)
        return {
            name: items[place] if len(items) == len(hops) else items[-1]
            for name, items in lists.items()
            if items
        }

    def _choose_element(self, peer: ClientInfo, values: dict[str, str]) -> dict[str, str]:
        """The parameters of the element of `Forwarded` that counts."""
        text = values.get("forwarded", "")
        element: dict[str, str] = {}
        try:
            for element in _elements(text):
                if not self._is_proxy(element.get("for", "unknown")):
                    break
        except ValueError:
            self._tell(peer, "", text)
            return {}
        return element

    def _place(self, hops: list[str]) -> int:
        """Where the client stands among the hops.

        Each proxy has added whom it was asked by. So the last that is not trusted is the client,
        and what stands before it is hearsay; the first, when all are trusted.
        """
        for place in range(len(hops) - 1, 0, -1):
            if not self._is_proxy(hops[place]):
                return place
        return 0

    def _is_proxy(self, hop: str) -> bool:
        """Whether this is a proxy, too, whose own word counts."""
        if self._trust.everyone:
            return True
        try:
            client = self._nodes[hop].client
        except ValueError:
            return False
        return client is not None and self._trust[client[0]]

    def _tell(self, peer: ClientInfo, what: str, text: str) -> None:
        name = "Forwarded" if self._is_standard else f"X-Forwarded-{what.title()}"
        client = peer.scope["client"]
        key = client[0] if client else "", name
        if key not in self._noted:
            if len(self._noted) >= _FAULTS:
                self._noted.clear()
            self._noted.add(key)
            self._note(peer.name, f"a malformed {name} is ignored: {text[:80]!r}")


def _elements(text: str) -> Iterator[dict[str, str]]:
    """The elements of `Forwarded`, the last one first, each with its parameters (RFC 7239 §4).

    What a client has sent stands at the beginning, and can't disturb the elements of proxies
    behind it. Raises ValueError where there is no element.
    """
    end = len(text)
    while end >= 0:
        start = end
        for _ in range(_COMMAS):
            start = text.rfind(",", 0, start)
            element = _read_element(text[start + 1 : end])
            if element is not None:
                break
            if start < 0:  # else the comma may be one within quotes
                raise ValueError
        else:
            raise ValueError
        if element:
            yield element
        end = start


def _read_element(text: str) -> dict[str, str] | None:
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


def _replace(peer: ClientInfo, said: dict[str, Any], headers: Headers) -> ClientInfo:
    """What a transport knows, with what was said put in its place."""
    scope, name, host = peer.scope.copy(), peer.name, said.get("host")
    if "for" in said:
        scope["client"], name = said["for"]
    if "proto" in said:
        scope["scheme"] = said["proto"]
    port = said.get("port")
    if port is not None:
        if scope["server"][1] is not None:  # a unix socket stays one
            scope["server"] = (scope["server"][0], port)
        if host is None:
            host = next((value for name, value in headers if name == b"host"), None)
        default = 443 if scope["scheme"] == "https" else 80
        if host and port != default and b":" not in host.rpartition(b"]")[2]:
            host = b"%b:%d" % (host, port)
    return ClientInfo(scope, name, None, host, said.get("prefix"))
