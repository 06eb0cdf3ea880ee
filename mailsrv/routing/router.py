"""Where mail for an address goes: to accounts, to lists, to addresses elsewhere.

Look-ups in a directory, but for one look at the database before an address is called
unknown. Aliases, groups, subaddresses, catch-all and postmaster. Resolvers of plugins
are asked first, and what they answer is looked up in the directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.directory import Account, Directory, Entry, MailingList
from mailsrv.accounts.live import LiveDirectory
from mailsrv.doors.guest import Asked, PluginFailed
from mailsrv.routing import list_addresses
from mailsrv.routing.srs import Srs, is_srs

log = Logger()

POSTMASTER = "postmaster"
MAX_RESOLVED = 1000  # addresses in a plugin's answer: 0.1 s of the reactor


@dataclass(frozen=True, slots=True)
class Local:
    """An address of ours, and whom its mail goes to; `address` is for Delivered-To."""

    address: str
    accounts: tuple[Account, ...] = ()
    outside: tuple[str, ...] = ()  # addresses elsewhere
    lists: tuple[str, ...] = ()  # addresses of mailing lists (see `list_addresses`)

    def __bool__(self) -> bool:
        return bool(self.accounts or self.outside or self.lists)

    @property
    def is_several(self) -> bool:
        return len(self.accounts) + len(self.outside) + len(self.lists) > 1


@dataclass(frozen=True, slots=True)
class Outside:
    """The domain is not ours."""

    address: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody has this address in a domain of ours: 550 5.1.1."""

    address: str


@dataclass(frozen=True, slots=True)
class Disabled:
    """All who have this address are disabled: 550 5.2.1."""

    address: str


Destination = Local | Outside | Unknown | Disabled


def resolve(directory: Directory, forward_path: str) -> Destination:
    """Find who receives mail for `forward_path`, without angle brackets.

    Raises `InvalidAddress` (501 5.1.3).
    """
    if forward_path.lower() == POSTMASTER:  # RFC 5321 section 4.5.1: without domain
        return _postmaster(directory, tuple(directory.domains), POSTMASTER)
    address = parse(forward_path)
    domain = directory.domains.get(address.domain)
    if domain is None:
        return Outside(str(address))
    if list_addresses.find(directory, address) is not None:
        return Local(str(address), lists=(str(address),))
    entry = directory.find(address)
    if entry is None and address.local.lower() == POSTMASTER:
        return _postmaster(directory, (domain.name,), str(address))
    if entry is None and domain.catch_all is not None:
        entry = directory.entries.get(domain.catch_all)
    if entry is None:
        return Unknown(str(address))
    if found := _reached(directory, entry, str(address)):
        return found
    if address.local.lower() == POSTMASTER:
        return _postmaster(directory, (domain.name,), str(address))
    return Disabled(str(address))


def _postmaster(
    directory: Directory, domains: tuple[str, ...], address: str
) -> Destination:
    """RFC 5321 section 4.5.1: mail for the postmaster always arrives somewhere.

    At postmaster@ of the domains in turn, else at the oldest enabled account of
    these domains, else at the oldest of all.
    """
    for domain in domains:
        entry = directory.entries.get(f"{POSTMASTER}@{domain}")
        if entry is not None and (found := _reached(directory, entry, address)):
            return found
    everybody = _enabled(tuple(directory.accounts()))
    there = [a for a in everybody if parse(a.name).domain in domains]
    if first := (there or everybody)[:1]:
        return Local(address, tuple(first))
    return Unknown(address)


def _reached(directory: Directory, entry: Entry, address: str) -> Local:
    """Return all whom mail for an entry goes to; false if there is nobody."""
    reached = [e.name for e in directory.walk(entry) if isinstance(e, MailingList)]
    return Local(
        address,
        _enabled(directory.members(entry)),
        directory.outside(entry),
        tuple(reached),
    )


def _enabled(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
    return tuple(account for account in accounts if account.enabled)


def _together(address: str, destinations: Sequence[Destination]) -> Local:
    accounts: dict[str, Account] = {}
    outside: dict[str, None] = {}
    lists: dict[str, None] = {}
    for destination in destinations:
        match destination:
            case Outside(other):
                outside[other] = None
            case Local():
                accounts |= {a.name: a for a in destination.accounts}
                outside |= dict.fromkeys(destination.outside)
                lists |= dict.fromkeys(destination.lists)
    return Local(address, tuple(accounts.values()), tuple(outside), tuple(lists))


class Router:
    """`resolve` on the directory of the running server, after the resolvers."""

    def __init__(
        self,
        live: LiveDirectory,
        resolvers: Sequence[Asked] = (),
        srs: Srs | None = None,
    ) -> None:
        """`srs`: None leaves the reverse-paths of what goes elsewhere as they are."""
        self._live = live
        self._resolvers = resolvers
        self._srs = srs

    async def resolve(self, forward_path: str) -> Destination:
        """As the function; what was added just now is found as well.

        Raises `InvalidAddress`, `PluginFailed`, and what reading the database raises.
        """
        local, _, domain = forward_path.rpartition("@")
        if self._srs and is_srs(local) and self.is_own_domain(domain):
            original = self._srs.back(local)
            return (
                Local(forward_path, outside=(original,))
                if original
                else (Unknown(forward_path))
            )
        if self._resolvers and forward_path.lower() != POSTMASTER:
            address = parse(forward_path).canonical
            for resolver in self._resolvers:
                found = await resolver.ask(
                    partial(_resolved, address=address), list, tuple, type(None)
                )
                if found is not None:
                    return await self._instead(address, found, resolver.name)
        return await self._resolve(forward_path)

    async def _resolve(self, forward_path: str) -> Destination:
        known = self._live.current
        found = resolve(known, forward_path)
        if isinstance(found, Local):
            return found
        now = await self._live.refresh()
        return found if now is known else resolve(now, forward_path)

    async def _instead(
        self, address: str, addresses: Sequence[str], resolver: str
    ) -> Destination:
        """Where mail goes for which a resolver gave other addresses."""
        if len(addresses) > MAX_RESOLVED:
            log.error(
                "{plugin} gives {count} addresses for one, at most {most} are taken",
                plugin=resolver,
                count=len(addresses),
                most=MAX_RESOLVED,
            )
            raise PluginFailed(resolver)
        found = _look_up(self._live.current, addresses, resolver)
        if not all(isinstance(one, Local) for one in found):
            found = _look_up(await self._live.refresh(), addresses, resolver)
        reached = _together(address, found)
        nobody = [d for d in found if isinstance(d, Unknown | Disabled)]
        if not reached:
            return (nobody or [Unknown(address)])[0]
        if nobody:
            log.warn(
                "{plugin} sends mail for {address} to nobody as well",
                plugin=resolver,
                address=address,
            )
        return reached

    def account(self, name: str) -> Account | None:
        """The account of this name, as was known a second ago."""
        return self._live.current.account(name)

    def is_own_domain(self, domain: str) -> bool:
        """Whether a domain is ours, as was known a second ago."""
        return domain.lower() in self._live.current.domains

    def forwarder(self, reverse_path: str, address: str) -> str | None:
        """Return the reverse-path of what an address of ours leads to elsewhere.

        None: it stays as it is.
        """
        sender_domain = reverse_path.rpartition("@")[2]
        if self._srs is None or self.is_own_domain(sender_domain):
            return None
        domain = address.rpartition("@")[2].lower()
        domains = self._live.current.domains
        return self._srs.forward(
            reverse_path, domain if domain in domains else next(iter(domains), domain)
        )

    def exists(self, account: Account) -> bool:
        """Whether the account is still there, as was known a second ago."""
        return self._live.current.account(account.name) is not None

    async def may_send_as(self, account: Account, address: str) -> bool:
        """Whether the account may use `address` in MAIL FROM and From."""
        if self._live.current.may_send_as(account, address):
            return True
        return (await self._live.refresh()).may_send_as(account, address)


def _look_up(
    directory: Directory, addresses: Sequence[str], resolver: str
) -> list[Destination]:
    try:
        return [resolve(directory, address) for address in dict.fromkeys(addresses)]
    except (InvalidAddress, AttributeError, TypeError) as error:
        log.error("{plugin} gives what is no address", plugin=resolver)
        raise PluginFailed(resolver) from error


def _resolved(provider: Any, address: str) -> Any:
    # Any: what a plugin is and answers.
    return provider.resolve(address)
