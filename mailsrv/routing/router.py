"""Where mail for an address goes: recipients to accounts.

Pure look-ups in a directory, but for one look at the database before an address is
called unknown. Aliases, groups, subaddresses, catch-all and postmaster.
"""

from dataclasses import dataclass

from mailsrv.accounts.addresses import parse
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.live import LiveDirectory

POSTMASTER = "postmaster"


@dataclass(frozen=True, slots=True)
class Local:
    """The accounts that receive it; `address` is for Delivered-To."""

    address: str
    accounts: tuple[Account, ...]


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
    entry = directory.find(address)
    if entry is None and address.local.lower() == POSTMASTER:
        return _postmaster(directory, (domain.name,), str(address))
    if entry is None and domain.catch_all is not None:
        entry = directory.entries.get(domain.catch_all)
    if entry is None:
        return Unknown(str(address))
    if enabled := _enabled(directory.members(entry)):
        return Local(str(address), enabled)
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
        if entry is not None and (found := _enabled(directory.members(entry))):
            return Local(address, found)
    everybody = _enabled(tuple(directory.accounts()))
    there = [a for a in everybody if parse(a.name).domain in domains]
    if first := (there or everybody)[:1]:
        return Local(address, tuple(first))
    return Unknown(address)


def _enabled(accounts: tuple[Account, ...]) -> tuple[Account, ...]:
    return tuple(account for account in accounts if account.enabled)


class Router:
    """`resolve` on the directory of the running server."""

    def __init__(self, live: LiveDirectory) -> None:
        self._live = live

    async def resolve(self, forward_path: str) -> Destination:
        """As the function; what was added just now is found as well.

        Raises `InvalidAddress`, and what reading the database raises.
        """
        found = resolve(self._live.current, forward_path)
        if isinstance(found, Local):
            return found
        return resolve(await self._live.refresh(), forward_path)

    def exists(self, account: Account) -> bool:
        """Whether the account is still there, as was known a second ago."""
        return self._live.current.account(account.name) is not None

    async def may_send_as(self, account: Account, address: str) -> bool:
        """Whether the account may use `address` in MAIL FROM and From."""
        if self._live.current.may_send_as(account, address):
            return True
        return (await self._live.refresh()).may_send_as(account, address)
