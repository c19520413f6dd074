"""Peers that may describe their clients, and the headers in which they do so."""

from functools import cached_property
from typing import Any

from ..config.config import Config
from ..http.client import FORWARDED_HEADERS
from ..http.memo import Memo


class Trust(Memo[str, bool]):
    """Decisions by address: `trust["10.0.0.1"]` and `trust["unix"]` are True for trusted peers."""

    def __init__(self, config: Config) -> None:
        super().__init__(self._is_trusted, 1024, longest=64)
        self._allowed = frozenset(config.forwarded_allow_ips)
        self.trusts_all = "*" in self._allowed
        #: Names of the headers to read, and the kind of value in each.
        self.headers = FORWARDED_HEADERS[config.forwarded_fields] if config.proxy_headers else {}

    def trusts(self, address: str | None) -> bool:
        """Return whether a peer is trusted. An unknown address (None) never is."""
        return address is not None and self[address]

    def _is_trusted(self, host: str) -> bool:
        if self.trusts_all or host in self._allowed:
            return True
        if host == "unix":
            return False
        import ipaddress  # lazy: the import takes 2 ms

        try:
            address: Any = ipaddress.ip_address(host)
        except ValueError:
            return False
        addresses = [address]
        if mapped := getattr(address, "ipv4_mapped", None):
            addresses.append(mapped)  # the form of IPv4 peers on a dual-stack socket
        return any(address in network for address in addresses for network in self._networks)

    @cached_property
    def _networks(self) -> list[Any]:
        import ipaddress

        return [ipaddress.ip_network(text) for text in self._allowed - {"unix"}]
