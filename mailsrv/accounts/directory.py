"""The directory: who has mail here, as one immutable snapshot held in memory.

Pure and fast, for the reactor thread. Every name in it is canonical (see
`mailsrv.accounts.addresses`). Changes are made in `edits`, kept by `database` and
followed by `live`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mailsrv.accounts.addresses import (
    Address,
    InvalidAddress,
    fold,
    parse,
)


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain whose mail is ours."""

    name: str
    separators: str = "+"  # each character of it begins a subaddress (RFC 5233)
    catch_all: str | None = None  # account, alias or group for unknown local parts


AppScope = Literal["all", "send"]


class AppPassword(NamedTuple):
    """A further password of an account, for one device or program."""

    label: str
    digest: str  # of a random password: nobody can guess what it is made of
    scope: AppScope  # send: it may submit mail, and read none
    max_messages_per_hour: int
    ends_at_utc: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """A person's mailboxes and password."""

    name: str
    folder: str  # the directory's name; never changes, even if `name` should
    password_hash: str = field(repr=False)
    quota_octets: int | None = None
    enabled: bool = True  # a disabled account neither logs in nor receives
    # Words of IMAP's CAPABILITY that are not offered to its clients, upper case.
    disabled_extensions: tuple[str, ...] = ()
    # For SCRAM; None until the password is set or verified.
    scram_keys: str | None = field(default=None, repr=False)
    files_sent: bool = False  # what it submits is filed in its Sent mailbox
    app_passwords: tuple[AppPassword, ...] = field(default=(), repr=False)
    # By which app password this log-in came; empty: by the account's own.
    app: str = field(default="", compare=False)

    def app_password(self, label: str) -> AppPassword | None:
        """The app password of this label."""
        return next((app for app in self.app_passwords if app.label == label), None)


@dataclass(frozen=True, slots=True)
class Alias:
    """A further address of its targets, who may also send as it."""

    name: str
    targets: tuple[str, ...]  # entries, or addresses elsewhere


@dataclass(frozen=True, slots=True)
class Group:
    """An address whose mail goes to all members; only `send_as` may send as it."""

    name: str
    members: tuple[str, ...]  # entries, or addresses elsewhere
    send_as: tuple[str, ...] = ()


Posting = Literal["members", "moderated", "announce", "anyone"]
Joining = Literal["closed", "open"]
ReplyTo = Literal["author", "list"]


@dataclass(frozen=True, slots=True)
class MailingList:
    """An address whose mail goes to subscribers, who may be anywhere.

    They may be thousands and are kept apart (`mailsrv.lists`), not in the snapshot.
    """

    name: str
    owners: tuple[str, ...]  # entries: they moderate and hear of what goes wrong
    title: str = ""  # for people
    posting: Posting = "members"  # who may post; what others send is refused
    posters: tuple[str, ...] = ()  # addresses that may always post
    subject_tag: str = ""  # put before the subject, as in "[Staff]"
    reply_to: ReplyTo = "author"
    joining: Joining = "closed"  # open: anybody may subscribe by mail


Entry = Account | Alias | Group | MailingList


@dataclass(frozen=True, slots=True)
class Directory:
    """All domains and addresses, in the order in which they were made."""

    domains: Mapping[str, Domain] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    # Secret, and the same as long as the database lives: what strangers are told of
    # an unknown name is drawn from it, so that they learn nothing by asking again.
    probe_key: bytes = field(default=b"", repr=False, compare=False)
    # By folded local part, for bare log-in names.
    _locals: dict[str, list[Account]] = field(init=False, repr=False, compare=False)
    # Whether SCRAM is of use to everybody who may log in.
    all_have_scram_keys: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_local: dict[str, list[Account]] = {}
        for account in self.accounts():
            by_local.setdefault(parse(account.name).local, []).append(account)
        object.__setattr__(self, "_locals", by_local)
        keys = [a.scram_keys is not None for a in self.accounts() if a.enabled]
        object.__setattr__(self, "all_have_scram_keys", bool(keys) and all(keys))

    def accounts(self) -> Iterator[Account]:
        """All accounts, oldest first."""
        return (e for e in self.entries.values() if isinstance(e, Account))

    def account(self, name: str) -> Account | None:
        """The account of this canonical name."""
        entry = self.entries.get(name)
        return entry if isinstance(entry, Account) else None

    def admits(self, account: Account) -> bool:
        """Whether what has logged in may go on."""
        today = self.account(account.name)
        if today is None or not today.enabled:
            return False
        return not account.app or today.app_password(account.app) is not None

    def login(self, text: str) -> Account | None:
        """The account of a log-in name, also a disabled one.

        A name without a domain counts if only one domain has it.
        """
        if "@" not in text:
            found = self._locals.get(fold(text), [])
            return found[0] if len(found) == 1 else None
        try:
            return self.account(parse(text).canonical)
        except InvalidAddress:
            return None

    def find(self, address: Address) -> Entry | None:
        """The entry of an address or, for ``user+detail``, that of ``user``.

        The whole local part comes first, then the longest one that ends before a
        separator, so that ``mary-ann`` may exist beside a separator ``-``.
        """
        if (entry := self.entries.get(address.canonical)) is not None:
            return entry
        domain = self.domains.get(address.domain)
        if domain is None:
            return None
        for end in range(len(address.local) - 1, 0, -1):
            if address.local[end] in domain.separators:
                user = Address(address.local[:end], address.domain)
                if (entry := self.entries.get(user.canonical)) is not None:
                    return entry
        return None

    def members(self, start: Entry) -> tuple[Account, ...]:
        """All accounts behind an entry, each once; aliases and groups may nest."""
        found: dict[str, Account] = {}
        for entry in self.walk(start):
            if isinstance(entry, Account):
                found[entry.name] = entry
        return tuple(found.values())

    def outside(self, start: Entry) -> tuple[str, ...]:
        """All addresses elsewhere that an entry leads to, each once."""
        found: dict[str, None] = {}
        for entry in self.walk(start):
            for name in _names(entry):
                if name.rpartition("@")[2] not in self.domains:
                    found[name] = None
        return tuple(found)

    def may_send_as(self, account: Account, address: str) -> bool:
        """Whether an account may use `address` as sender.

        Its own address, an alias that leads to it, a group whose `send_as` names it,
        and subaddresses of these. An account that was disabled since is nobody.
        """
        now = self.account(account.name)
        if now is None or not now.enabled:
            return False
        try:
            start = self.find(parse(address))
        except InvalidAddress:
            return False
        if start is None:
            return False
        return any(
            account.name in entry.send_as
            if isinstance(entry, Group)
            else entry.name == account.name
            for entry in self.walk(start, into_groups=False)
        )

    def walk(self, start: Entry, *, into_groups: bool = True) -> Iterator[Entry]:
        """`start` and what it leads to, in order, each once: loops end there."""
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            entry = waiting.pop()
            if entry.name in seen:
                continue
            seen.add(entry.name)
            yield entry
            names = _names(entry)
            if isinstance(entry, Group) and not into_groups:
                names = ()
            found = [self.entries[name] for name in names if name in self.entries]
            waiting.extend(reversed(found))


def _names(entry: Entry) -> tuple[str, ...]:
    match entry:
        case Alias(targets=names) | Group(members=names):
            return names
    return ()
