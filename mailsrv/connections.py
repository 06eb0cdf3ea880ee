"""How many connections a protocol takes, in all and from one address.

An address is an IPv4 address or the /64 that one IPv6 customer usually holds: with
whole IPv6 addresses one host could open any number.
"""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address


@dataclass(slots=True)
class ConnectionLimits:
    """Counts what is open; the limits may be changed at any time.

    A lowered limit closes nothing: it holds for new connections. A peer without
    an address (a UNIX socket: the text is empty) counts in all only.
    """

    max_all: int
    max_per_address: int
    _open: int = 0
    _by_network: Counter[str] = field(default_factory=Counter)

    def acquire(self, address: str) -> bool:
        """Count one more connection from `address`; False if that is too many.

        Call `release` once when a connection that got True ends.
        """
        network = network_of(address)
        if self._open >= self.max_all:
            return False
        if network and self._by_network[network] >= self.max_per_address:
            return False
        self._open += 1
        self._by_network[network] += 1
        return True

    def release(self, address: str) -> None:
        """Forget one connection from `address`."""
        network = network_of(address)
        self._open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]


def network_of(address: str) -> str:
    """Name what counts as one peer."""
    if ":" not in address:
        return address
    ip = IPv6Address(address)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    # Link-local addresses have a zone; their /64 is that link.
    return f"{int(ip) >> 64:x}::%{ip.scope_id or ''}"
