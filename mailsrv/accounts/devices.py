"""Who submits mail without a password: scanners, alarm systems, local programs.

Devices are known by their addresses alone, so what those may be is narrow: private
networks, or single addresses. Pure.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.settings import TrustedNetwork

HOUR_S = 3600.0
MAX_REMEMBERED = 10_000  # devices

Network = IPv4Network | IPv6Network

# Not `is_private`, which is true of 0.0.0.0/0 in some versions of Python.
_PRIVATE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),  # RFC 1918 section 3
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv6Network("fc00::/7"),  # RFC 4193 section 3.1
    IPv6Network("fe80::/10"),
    IPv6Network("::1/128"),
)
_MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Devices:
    """Those of one ``[[smtp.trusted_networks]]``, and what they may do.

    Or the programs of one user of this machine.
    """

    network: str  # of the one that asks, for the log; "user" and its name
    send_as: tuple[
        str, ...
    ]  # canonical addresses; none: a user whose name is no address
    max_messages_per_hour: int
    any_own_address: bool = False  # root's programs speak for all


def devices_at(peer: str, settings: Iterable[TrustedNetwork]) -> Devices | None:
    """What the device at the address `peer` may do; None: it is none."""
    if not peer:  # a UNIX socket
        return None
    address = ip_address(peer)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    for each in settings:
        for text in each.networks:
            if address in ip_network(text):
                send_as = tuple(parse(sender).canonical for sender in each.send_as)
                return Devices(text, send_as, each.max_messages_per_hour)
    return None


def problems(trusted: TrustedNetwork) -> Iterator[tuple[str, str, str]]:
    """What is wrong in one table: the key, why, and what to do."""
    for key in ("networks", "send_as"):
        if not getattr(trusted, key):
            yield key, "is empty", "at least one"
    for text in trusted.networks:
        try:
            network = ip_network(text)
        except ValueError as error:
            yield "networks", str(error), 'such as "192.168.1.20" or "192.168.1.0/24"'
            continue
        if not _is_narrow(network):
            wrong = f'"{text}" would let strangers send as your people'
            yield "networks", wrong, "private networks, and single public addresses"
    for address in trusted.send_as:
        try:
            parse(address)
        except InvalidAddress as error:
            yield "send_as", str(error), 'such as "scanner@example.com"'


def _is_narrow(network: Network) -> bool:
    if isinstance(network, IPv6Network):
        if network.overlaps(_MAPPED):
            return False
        private = [n for n in _PRIVATE if isinstance(n, IPv6Network)]
        inside = any(network.subnet_of(n) for n in private)
    else:
        inside = any(
            network.subnet_of(n) for n in _PRIVATE if isinstance(n, IPv4Network)
        )
    address = network.network_address
    is_host = network.num_addresses == 1
    return inside or (is_host and not (address.is_unspecified or address.is_multicast))


class HourlyLimit:
    """Counts the messages of each device in the last hour."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` is a clock that does not jump."""
        self._seconds = seconds
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, device: str, most: int) -> bool:
        """Count one more message; False, and not counted, if `most` have come."""
        now = self._seconds()
        times = self._times.setdefault(device, deque())
        self._times.move_to_end(device)
        if len(self._times) > MAX_REMEMBERED:
            self._times.popitem(last=False)
        while times and now - times[0] >= HOUR_S:
            times.popleft()
        if len(times) >= most:
            return False
        times.append(now)
        return True
