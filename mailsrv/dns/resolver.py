"""What all parts ask the DNS through, and what it can say.

Names are A-labels without the last dot. A name that cannot be in the DNS does not
exist. `secure` is DNSSEC's judgement, made by a resolver that we may believe: see the
settings `[dns]`.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NamedTuple, cast

import dns.exception
import dns.name
from dns.rdata import Rdata
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from twisted.internet.defer import Deferred, DeferredList
from zope.interface import Interface

MAX_ADDRESSES = 8  # of one host and kind that are used


@dataclass(frozen=True, slots=True)
class Found:
    """The name exists. Without records it has none of that type (NODATA)."""

    records: tuple[Rdata, ...]
    secure: bool
    canonical: str  # where the chain of CNAMEs ends
    ttl_s: float


class NoSuchName(Exception):
    """The name does not exist (NXDOMAIN)."""

    def __init__(self, name: str, *, secure: bool = False) -> None:
        super().__init__(name)
        self.name = name
        self.secure = secure


class DnsUnavailable(Exception):
    """Nothing is known for now: no answer, SERVFAIL, or DNSSEC found a forgery."""


class HostAddress(NamedTuple):
    """An IPv4 or IPv6 address of a host."""

    ip: str
    secure: bool


class IResolver(Interface):
    """Asks the DNS. Both methods raise `NoSuchName` and `DnsUnavailable`."""

    def query(name: str, type: str) -> Awaitable[Found]:
        """Look up the records of a type, as ``"MX"``; CNAMEs are followed."""

    def addresses(name: str) -> Awaitable[tuple[HostAddress, ...]]:
        """Look up AAAA and A at the same time: IPv6 first, none if there are none."""


def dns_name(text: str) -> dns.name.Name:
    """Return the absolute name. Raises `NoSuchName` for what can be none."""
    try:
        # dnspython would apply the rules of IDNA 2003.
        return dns.name.from_text(text.encode("ascii"), dns.name.root)
    except (dns.exception.DNSException, UnicodeEncodeError) as error:
        raise NoSuchName(text) from error


async def find_addresses(resolver: IResolver, name: str) -> tuple[HostAddress, ...]:
    """Do what `IResolver.addresses` promises, by two queries.

    Some servers deny the whole name when only its AAAA is missing, or fail: what the
    other query brings counts.
    """
    queries = [
        Deferred.fromCoroutine(_query(resolver, name, type)) for type in ("AAAA", "A")
    ]
    found: list[HostAddress] = []
    missing: NoSuchName | None = None
    failed: DnsUnavailable | None = None
    denials = 0
    for _, answer in await DeferredList(queries):
        match answer:
            case Found(records, secure):
                found += [
                    HostAddress(str(cast(A | AAAA, record).address), secure)
                    for record in records[:MAX_ADDRESSES]
                ]
            case NoSuchName():
                missing, denials = answer, denials + 1
            case DnsUnavailable():
                failed = answer
    if found:
        return tuple(found)
    if failed is not None:
        raise failed
    if missing is not None and denials == len(queries):
        raise missing
    return ()


async def _query(
    resolver: IResolver, name: str, type: str
) -> Found | NoSuchName | DnsUnavailable:
    try:
        return await resolver.query(name, type)
    except (NoSuchName, DnsUnavailable) as error:
        return error
