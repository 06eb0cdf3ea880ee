"""The hosts that take a domain's mail, in the order in which they are tried.

RFC 5321 section 5.1: by preference, those of one preference in random order; the
domain itself where there is no MX; never this server, nor what is behind it.
"""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from itertools import groupby
from typing import cast

from dns.rdtypes.ANY.MX import MX
from twisted.internet.defer import Deferred, DeferredList

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName
from mailsrv.relay.own import Own
from mailsrv.smtp.reply import Reply

MAX_HOSTS = 10  # of a domain that are tried

NO_DOMAIN = Reply(550, "5.1.2", "The domain does not exist")
NO_ANSWER = Reply(451, "4.4.3", "The name servers gave no answer")
NULL_MX = Reply(556, "5.1.10", "The domain takes no mail")  # RFC 7505 section 4.1
NO_HOST = Reply(550, "5.4.4", "The domain has no mail server that can be reached")
PRIVATE = Reply(
    550, "5.4.4", "The domain's mail servers have only addresses of private networks"
)
LOOP = Reply(554, "5.4.6", "This server is named for the domain, and does not have it")


class NoWay(Exception):
    """There is no host to try, for now or at all."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code, reply.text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailHost:
    """A host to try; `secure`: DNSSEC vouches for MX and addresses."""

    name: str
    ips: tuple[str, ...]
    port: int
    secure: bool = False


@dataclass(frozen=True, slots=True)
class _Exchange:
    preference: int
    name: str
    secure: bool


class HostFinder:
    """Asks the DNS; `private` allows MX hosts in private networks."""

    def __init__(
        self, resolver: IResolver, own: Own, *, private: bool, port: int
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._private = private
        self._port = port

    async def of_domain(self, domain: str) -> AsyncIterator[MailHost]:
        """Give the hosts of a domain; ends with `NoWay` if there was none."""
        if domain.startswith("["):
            raise NoWay(Reply(550, "5.1.2", "Mail to addresses of hosts is not sent"))
        exchanges = await self._exchanges(domain)
        given, reply = False, NO_HOST
        for _, group in groupby(exchanges, key=lambda one: one.preference):
            # All of a preference first: if this server is among them, RFC 5321
            # section 5.1 takes them all off the list, and those behind them.
            found = await self._group(tuple(group))
            if any(one is LOOP for one in found):
                # Those before this server may take it, if they are only not found.
                reply = reply if reply is NO_ANSWER else LOOP
                break
            for one in found:
                if isinstance(one, MailHost):
                    given = True
                    yield one
                elif reply is not NO_ANSWER:
                    reply = one
        if not given:
            raise NoWay(reply)

    async def of_name(self, host: str, port: int) -> AsyncIterator[MailHost]:
        """Give the host that a setting names; `NoWay` if it cannot be."""
        found = await self._host(_Exchange(0, host, False), port, of_setting=True)
        if isinstance(found, Reply):
            # Not for ever: an admin will see that the name is wrong.
            raise NoWay(found if found is LOOP else _for_now(found))
        yield found

    async def _exchanges(self, domain: str) -> list[_Exchange]:
        """Return the MX of a domain, by preference. Raises `NoWay`."""
        try:
            found = await self._resolver.query(domain, "MX")
        except NoSuchName as error:
            raise NoWay(NO_DOMAIN) from error
        except DnsUnavailable as error:
            raise NoWay(NO_ANSWER) from error
        exchanges = []
        for record in cast(Sequence[MX], found.records):
            name = record.exchange.to_text(omit_final_dot=True).lower()
            if name not in ("", "."):
                exchanges.append(_Exchange(record.preference, name, found.secure))
        if found.records and not exchanges:
            raise NoWay(NULL_MX)
        if not exchanges:
            return [_Exchange(0, found.canonical, found.secure)]
        random.shuffle(exchanges)
        return sorted(exchanges, key=lambda one: one.preference)[:MAX_HOSTS]

    async def _group(self, exchanges: Sequence[_Exchange]) -> list[MailHost | Reply]:
        asking = [
            Deferred.fromCoroutine(self._host(one, self._port)) for one in exchanges
        ]
        results = await DeferredList(asking, fireOnOneErrback=True)
        return [result for _, result in results]

    async def _host(
        self, exchange: _Exchange, port: int, *, of_setting: bool = False
    ) -> MailHost | Reply:
        """Return where a host is, or why it cannot be used.

        A setting may name an address, and one of a private network.
        """
        private = of_setting or self._private
        if port == self._port and self._own.is_name(exchange.name):
            return LOOP
        try:
            addresses = (_literal(exchange.name) if of_setting else ()) or (
                await self._resolver.addresses(exchange.name)
            )
        except NoSuchName:
            return NO_HOST
        except DnsUnavailable:
            return NO_ANSWER
        if any(self._own.is_here(ip, port) for ip, _ in addresses):
            return LOOP
        allowed = [one for one in addresses if _may_send_to(one[0], private=private)]
        if not allowed:
            return PRIVATE if addresses else NO_HOST
        secure = exchange.secure and all(secure for _, secure in allowed)
        ips = tuple(ip for ip, _ in allowed)
        return MailHost(exchange.name, ips, port, secure)


def _literal(name: str) -> Sequence[tuple[str, bool]]:
    try:
        return ((str(ip_address(name)), False),)
    except ValueError:
        return ()


def _may_send_to(ip: str, *, private: bool) -> bool:
    """Whether an address that strangers may have chosen is one to connect to.

    Their MX could name a printer or a database of the office.
    """
    address = ip_address(ip)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast or address.is_unspecified:
        return False
    return private or address.is_global


def _for_now(reply: Reply) -> Reply:
    return Reply(451, f"4{reply.enhanced_code[1:]}", reply.text)
