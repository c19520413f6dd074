"""Which peers are believed what they say of their clients, and the headers in which they say it."""

from functools import cached_property
from typing import Any

from ..config.config import Config
from ..http.client import FORWARDED_HEADERS
from ..http.memo import Memo

__all__ = ["Trust"]


class Trust(Memo[str, bool]):
    """Whether a peer is believed, by its address: `trust["10.0.0.1"]`, `trust["unix"]`."""

    def __init__(self, config: Config) -> None:
        super().__init__(self._judge, 1024, longest=64)
        self._allowed = frozenset(config.forwarded_allow_ips)
        self.everyone = "*" in self._allowed
        #: What each field tells. Where there is none of these, nothing is said.
        self.headers = FORWARDED_HEADERS[config.forwarded_fields] if config.proxy_headers else {}

    def of(self, address: str | None) -> bool:
        """The same for an address that may be unknown (`client.peer_address`): no list has that."""
        return address is not None and self[address]

    def _judge(self, host: str) -> bool:
        if self.everyone or host in self._allowed:
            return True
        if host == "unix":
            return False
        import ipaddress  # not before it is needed: 2 ms at start

        try:
            address: Any = ipaddress.ip_address(host)
        except ValueError:
            return False
        addresses = [address]
        if mapped := getattr(address, "ipv4_mapped", None):
            addresses.append(mapped)  # a socket for both families names IPv4 peers so
        return any(address in network for address in addresses for network in self._networks)

    @cached_property
    def _networks(self) -> list[Any]:
        import ipaddress

        return [ipaddress.ip_network(text) for text in self._allowed - {"unix"}]
