"""A resolver whose records are given: for tests, its own and those of others."""

from collections.abc import Collection, Mapping, Sequence

import dns.rdata
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from zope.interface import implementer

from mailsrv.dns.resolver import (
    DnsUnavailable,
    Found,
    HostAddress,
    IResolver,
    NoSuchName,
    dns_name,
    find_addresses,
)

TTL_S = 300.0
MAX_CNAMES = 8


@implementer(IResolver)
class MemoryResolver:
    """`zones` has texts of records by name and type: ``("a.test", "MX"): ["10 b."]``.

    Names in `failing` cannot be asked; those in `secure` are signed. `zones` and
    `failing` may be changed, and `asked` tells what was looked up.
    """

    def __init__(
        self,
        zones: Mapping[tuple[str, str], Sequence[str]],
        *,
        failing: Collection[str] = (),
        secure: Collection[str] = (),
    ) -> None:
        self.zones = dict(zones)
        self.failing = set(failing)
        self.asked: list[tuple[str, str]] = []
        self._secure = frozenset(secure)

    async def query(self, name: str, type: str) -> Found:
        dns_name(name)
        name, secure = name.lower(), True
        self.asked.append((name, type))
        for _ in range(MAX_CNAMES + 1):
            if name in self.failing:
                raise DnsUnavailable(f"no answer for {name}")
            secure = secure and name in self._secure
            if alias := self.zones.get((name, "CNAME"), ()):
                if type != "CNAME":
                    name = alias[0].rstrip(".").lower()
                    continue
            return self._found(name, type, secure)
        raise DnsUnavailable("too many CNAMEs")

    def _found(self, name: str, type: str, secure: bool) -> Found:
        if texts := self.zones.get((name, type), ()):
            kind = RdataType.from_text(type)
            records = [dns.rdata.from_text(RdataClass.IN, kind, text) for text in texts]
            return Found(tuple(records), secure, name, TTL_S)
        # A name exists with any record, and with any name below it (RFC 8020).
        if not any(
            other == name or other.endswith(f".{name}") for other, _ in self.zones
        ):
            raise NoSuchName(name, secure=secure)
        return Found((), secure, name, TTL_S)

    async def addresses(self, name: str) -> tuple[HostAddress, ...]:
        return await find_addresses(self, name)
