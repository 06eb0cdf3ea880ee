"""How long a login has to wait because of wrong passwords before it.

Pure: the time is passed in. What counts is the pair of account and network, so that
a guesser elsewhere does not hold up the owner; an address from which the owner has
logged in lately counts for itself, so that neither does one in its neighbourhood. A
network alone counts once it has failed on many accounts and nobody has logged in from
it lately. Nobody is shut out, all waits have an upper limit, all tables too.
"""

import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MAX_REMEMBERED = 20_000  # pairs, and networks
FORGET_S = 3600.0  # after the last failure
GOOD_S = 24 * 3600.0  # how long a good login speaks for its network
MANY_ACCOUNTS = 10  # failed on from one network
FIRST_DELAY_S = 0.25  # after one wrong password; doubled by each further one
# The same wrong password again is a client that tries another mechanism, or retries:
# Thunderbird makes three refused logins of one mistyped password.
SAME_PASSWORDS = 8

V = TypeVar("V")


def network(peer: str) -> str:
    """The network of an address: /24 of IPv4, /64 of IPv6."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer  # a Unix socket
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.IPv4Network((address, 24), strict=False))


class _Recent(OrderedDict[str, V], Generic[V]):
    """A table that forgets what was not used for the longest time."""

    def keep(self, key: str, value: V) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > MAX_REMEMBERED:
            self.popitem(last=False)


@dataclass(slots=True)
class _Pair:
    """One account as seen from one network, or from an address of its owner."""

    failures: int = 0
    failed_at: float = 0.0
    wrong: deque[bytes] = field(default_factory=lambda: deque(maxlen=SAME_PASSWORDS))


@dataclass(slots=True)
class _Network:
    accounts: set[str] = field(default_factory=set)
    failed_at: float = 0.0
    next_at: float = 0.0


class Guessers:
    """Remembers failures. `account` is any text that stands for the login name."""

    def __init__(self) -> None:
        self._pairs: _Recent[_Pair] = _Recent()
        self._networks: _Recent[_Network] = _Recent()
        # When the last good login was: by network, and by account and address.
        self._good: _Recent[float] = _Recent()

    def is_trusted(self, peer: str, now: float) -> bool:
        """Whether somebody has logged in from the peer's network lately."""
        return self._was_good(network(peer), now)

    def source(self, account: str, peer: str, now: float) -> str:
        """What the peer counts as: logins of an account from it come one by one."""
        return peer if self._was_good(f"{account} {peer}", now) else network(peer)

    def wait_s(self, account: str, peer: str, now: float, max_delay_s: float) -> float:
        """Seconds that a login which comes now has to wait."""
        _, pair = self._pair(account, peer, now)
        ready_at = pair.failed_at + _delay_s(pair.failures, max_delay_s)
        by_network_s = self._network_wait_s(network(peer), now, max_delay_s)
        return max(0.0, ready_at - now, by_network_s)

    def _network_wait_s(self, network: str, now: float, max_delay_s: float) -> float:
        seen = self._networks.get(network)
        if seen is None or now - seen.failed_at > FORGET_S:
            return 0.0
        over = len(seen.accounts) - MANY_ACCOUNTS
        if over <= 0 or self._was_good(network, now):
            return 0.0
        # Each login takes its place behind the last one, on however many connections.
        ready_at = max(now, seen.next_at)
        delay_s = _delay_s(over, max_delay_s)
        seen.next_at = min(ready_at + delay_s, now + max_delay_s)
        return ready_at - now

    def failed(self, account: str, peer: str, digest: bytes, now: float) -> None:
        """Count a wrong password; `digest` stands for it and for the account."""
        key, pair = self._pair(account, peer, now)
        pair.failed_at = now
        if digest not in pair.wrong:
            pair.wrong.append(digest)
            pair.failures += 1
        self._pairs.keep(key, pair)
        self._failed_in(network(peer), account, now)

    def _failed_in(self, network: str, account: str, now: float) -> None:
        seen = self._networks.get(network)
        if seen is None or now - seen.failed_at > FORGET_S:
            seen = _Network()
        seen.failed_at = now
        if len(seen.accounts) < 2 * MANY_ACCOUNTS:
            seen.accounts.add(account)
        self._networks.keep(network, seen)

    def succeeded(self, account: str, peer: str, now: float) -> None:
        """Forgive the pair; address and network are known as good from now on."""
        key, _ = self._pair(account, peer, now)
        self._pairs.pop(key, None)
        self._good.keep(network(peer), now)
        self._good.keep(f"{account} {peer}", now)

    def _was_good(self, key: str, now: float) -> bool:
        good_at = self._good.get(key)
        return good_at is not None and now - good_at < GOOD_S

    def _pair(self, account: str, peer: str, now: float) -> tuple[str, _Pair]:
        key = f"{account} {self.source(account, peer, now)}"
        pair = self._pairs.get(key)
        if pair is None or now - pair.failed_at > FORGET_S:
            return key, _Pair()
        return key, pair


def _delay_s(failures: int, max_delay_s: float) -> float:
    if failures == 0:
        return 0.0
    # The exponent is bounded, as the count is not.
    return min(max_delay_s, FIRST_DELAY_S * 2.0 ** min(failures - 1, 30))
