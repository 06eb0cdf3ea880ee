"""Changes to the directory: each takes a `Directory` and returns the changed one.

Pure; what would leave it unsound raises `EditRefused`, whose text is for the admin
and says what to do. A database applies them (``IAccountDatabase.edit``):
``database.edit(lambda d: add_domain(d, "example.test"))``.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from mailsrv.accounts.addresses import (
    Address,
    InvalidAddress,
    canonical_domain,
    parse,
    quote,
    shown,
)
from mailsrv.accounts.directory import (
    Account,
    Alias,
    AppPassword,
    AppScope,
    Directory,
    Domain,
    Entry,
    Group,
    Joining,
    MailingList,
    Posting,
    ReplyTo,
)

# What RFC 5321 allows in a Dot-string and no writing of addresses is upset by.
# Before "-unsubscribe+" and a signed token, within the 64 octets of a local part.
MAX_LIST_LOCAL = 26
MAX_LABEL = 60  # characters, of an app password
MAX_LIST_TEXT = 100  # characters of a title or a subject tag
_LIST_LOCAL = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
SEPARATORS = "!#$%&'*+-./=?^_`{|}~"


class EditRefused(Exception):
    """The change is not possible; the text says why and what to do."""


def add_domain(directory: Directory, name: str, separators: str = "+") -> Directory:
    """Make a domain ours."""
    domain = _own_name(name)
    if domain in directory.domains:
        raise EditRefused(f"the domain {shown(domain)} exists already")
    added = Domain(domain, _separators(separators))
    return replace(directory, domains={**directory.domains, domain: added})


def set_separators(directory: Directory, name: str, separators: str) -> Directory:
    """Choose the characters that begin a subaddress; none: no subaddresses."""
    domain = replace(
        existing_domain(directory, name), separators=_separators(separators)
    )
    return replace(directory, domains={**directory.domains, domain.name: domain})


def set_catch_all(directory: Directory, name: str, target: str | None) -> Directory:
    """Send mail for unknown local parts of a domain to `target`; None: refuse it."""
    if target is not None:
        target = existing(directory, target).name
    domain = replace(existing_domain(directory, name), catch_all=target)
    return replace(directory, domains={**directory.domains, domain.name: domain})


def delete_domain(directory: Directory, name: str) -> Directory:
    """Give up a domain that has no addresses left."""
    domain = existing_domain(directory, name).name
    left = [n for n in directory.entries if n.rpartition("@")[2] == domain]
    if left:
        raise EditRefused(
            f"{shown(domain)} still has {_listed(left)}: delete these first"
        )
    domains = {n: d for n, d in directory.domains.items() if n != domain}
    return replace(directory, domains=domains)


def add_account(
    directory: Directory,
    name: str,
    password_hash: str,
    quota_octets: int | None = None,
    scram_keys: str | None = None,
) -> Directory:
    """Make an account. Its folder gets the name of its canonical address."""
    address = _new_address(directory, name)
    folder = address.canonical
    if "/" in folder or folder.startswith(".") or quote(address.local)[0] == '"':
        raise EditRefused(
            f"{shown(folder)} cannot be an account, since its mail is kept in a folder"
            " of that name: choose a plainer address and add this one as an alias"
        )
    if any(account.folder == folder for account in directory.accounts()):
        raise EditRefused(f"the mail folder {folder} belongs to another account")
    account = Account(
        folder, folder, password_hash, quota_octets, scram_keys=scram_keys
    )
    return _with(directory, account)


def set_password_hash(
    directory: Directory, name: str, password_hash: str, scram_keys: str | None = None
) -> Directory:
    """Change the password: both are made of it, and no keys of an old one stay."""
    account = existing_account(directory, name)
    changed = replace(account, password_hash=password_hash, scram_keys=scram_keys)
    return _with(directory, changed)


def set_enabled(directory: Directory, name: str, enabled: bool) -> Directory:
    """Let an account log in and receive, or not."""
    account = existing_account(directory, name)
    return _with(directory, replace(account, enabled=enabled))


def set_quota(directory: Directory, name: str, octets: int | None) -> Directory:
    """Limit the mail of an account; None: no limit."""
    account = existing_account(directory, name)
    return _with(directory, replace(account, quota_octets=octets))


def set_disabled_extensions(
    directory: Directory, name: str, words: Iterable[str]
) -> Directory:
    """Choose the extensions of IMAP that an account's clients are not offered."""
    account = existing_account(directory, name)
    disabled = tuple(sorted(set(words)))
    return _with(directory, replace(account, disabled_extensions=disabled))


def set_files_sent(directory: Directory, name: str, files: bool) -> Directory:
    """Choose whether the server files what an account submits."""
    account = existing_account(directory, name)
    return _with(directory, replace(account, files_sent=files))


def add_app_password(
    directory: Directory,
    name: str,
    label: str,
    digest: str,
    *,
    scope: AppScope,
    max_messages_per_hour: int,
    ends_at_utc: float | None,
) -> Directory:
    """Give an account a further password, whose label is new."""
    account = existing_account(directory, name)
    label = label.strip()
    if not label or len(label) > MAX_LABEL or not label.isprintable():
        raise EditRefused(f"{label!r}: a label of at most {MAX_LABEL} characters")
    if account.app_password(label) is not None:
        raise EditRefused(f"{shown(account.name)} has an app password {label!r}")
    app = AppPassword(label, digest, scope, max_messages_per_hour, ends_at_utc)
    return _with(
        directory, replace(account, app_passwords=(*account.app_passwords, app))
    )


def remove_app_password(directory: Directory, name: str, label: str) -> Directory:
    """Take an app password away; its sessions end."""
    account = existing_account(directory, name)
    kept = tuple(app for app in account.app_passwords if app.label != label)
    if kept == account.app_passwords:
        raise EditRefused(f"{shown(account.name)} has no app password {label!r}")
    return _with(directory, replace(account, app_passwords=kept))


def add_alias(directory: Directory, name: str, targets: Iterable[str]) -> Directory:
    """Make an alias, or give an existing one further targets."""
    alias = _new_or(directory, name, Alias)
    before = alias.targets if isinstance(alias, Alias) else ()
    after = _members(directory, _name(alias), (*before, *targets))
    return _with(directory, Alias(_name(alias), after))


def add_group(
    directory: Directory,
    name: str,
    members: Iterable[str],
    send_as: Iterable[str] = (),
) -> Directory:
    """Make a group, or give an existing one further members and senders."""
    group = _new_or(directory, name, Group)
    before = group if isinstance(group, Group) else Group(_name(group), ())
    senders = (existing_account(directory, sender).name for sender in send_as)
    return _with(
        directory,
        Group(
            before.name,
            _members(directory, before.name, (*before.members, *members)),
            tuple(dict.fromkeys((*before.send_as, *senders))),
        ),
    )


def add_list(directory: Directory, name: str, owners: Iterable[str]) -> Directory:
    """Make a mailing list. A group of that name becomes it, without its members."""
    entry = _new_or(directory, name, Group)
    local = parse(_name(entry)).local
    if len(local) > MAX_LIST_LOCAL or not _LIST_LOCAL.fullmatch(local):
        raise EditRefused(
            f"{local!r} cannot name a list: use up to {MAX_LIST_LOCAL} letters and"
            " digits, with single dots, hyphens and underscores between them"
        )
    new = MailingList(_name(entry), _owners(directory, _name(entry), owners))
    return _with(directory, new)


def set_list(
    directory: Directory,
    name: str,
    *,
    owners: Iterable[str] | None = None,
    title: str | None = None,
    posting: Posting | None = None,
    posters: Iterable[str] | None = None,
    subject_tag: str | None = None,
    reply_to: ReplyTo | None = None,
    joining: Joining | None = None,
) -> Directory:
    """Change what is not None."""
    found = existing_list(directory, name)
    if owners is not None:
        found = replace(found, owners=_owners(directory, found.name, owners))
    if title is not None:
        found = replace(found, title=_list_text(title))
    if posting is not None:
        found = replace(found, posting=posting)
    if posters is not None:
        names = tuple(dict.fromkeys(_address(p).canonical for p in posters))
        found = replace(found, posters=names)
    if subject_tag is not None:
        found = replace(found, subject_tag=_list_text(subject_tag))
    if reply_to is not None:
        found = replace(found, reply_to=reply_to)
    if joining is not None:
        found = replace(found, joining=joining)
    return _with(directory, found)


def remove_from(directory: Directory, name: str, members: Iterable[str]) -> Directory:
    """Take targets from an alias, or members and senders from a group."""
    entry = existing(directory, name)
    for member in members:
        kept = _without(entry, _named(directory, member))
        if kept == entry:
            raise EditRefused(f"{member} does not belong to {name}")
        entry = kept
    if _is_empty(entry):
        raise EditRefused(f"nobody would be left in {name}: delete it as a whole")
    return _with(directory, entry)


def delete(directory: Directory, name: str, kind: type[Entry]) -> Directory:
    """Delete an account, alias or group, also from what names it.

    Refused where an alias or group would be left with nobody behind it, since its
    mail would then be refused without anybody having said so.
    """
    gone = existing(directory, name, kind).name
    lonely: list[str] = []
    entries: dict[str, Entry] = {}
    for entry in directory.entries.values():
        entries[entry.name] = kept = _without(entry, gone)
        if _is_empty(kept):
            lonely.append(kept.name)
    lonely += [d.name for d in directory.domains.values() if d.catch_all == gone]
    if lonely := [name for name in lonely if name != gone]:
        raise EditRefused(
            f"{shown(gone)} alone receives the mail of {_listed(lonely)}:"
            " give these another target or delete them first"
        )
    del entries[gone]
    return replace(directory, entries=entries)


def existing_domain(directory: Directory, name: str) -> Domain:
    """The domain of this name; raises `EditRefused`."""
    domain = directory.domains.get(_own_name(name))
    if domain is None:
        raise EditRefused(
            f"{name} is none of this server's domains:"
            f" `mailsrv domain add {name}` makes it one"
        )
    return domain


def existing(directory: Directory, name: str, kind: type[Entry] | None = None) -> Entry:
    """The entry of this address; raises `EditRefused`."""
    entry = directory.entries.get(_address(name).canonical)
    if entry is None or (kind is not None and not isinstance(entry, kind)):
        what = "address" if kind is None else kind.__name__.lower()
        raise EditRefused(f"there is no {what} {name}")
    return entry


def _named(directory: Directory, name: str) -> str:
    """How an alias or a group names an entry, or an address elsewhere."""
    address = _address(name)
    if address.domain not in directory.domains:
        return str(address)
    return existing(directory, name).name


def existing_list(directory: Directory, name: str) -> MailingList:
    """The mailing list of this address; raises `EditRefused`."""
    entry = directory.entries.get(_address(name).canonical)
    if not isinstance(entry, MailingList):
        raise EditRefused(f"there is no list {name}")
    return entry


def existing_account(directory: Directory, name: str) -> Account:
    """The account of this name; raises `EditRefused`."""
    account = directory.login(name)
    if account is None:
        raise EditRefused(f"there is no account {name}")
    return account


def _with(directory: Directory, entry: Entry) -> Directory:
    return replace(directory, entries={**directory.entries, entry.name: entry})


def _without(entry: Entry, name: str) -> Entry:
    match entry:
        case Alias(targets=targets):
            return replace(entry, targets=tuple(t for t in targets if t != name))
        case Group(members=members, send_as=send_as):
            return replace(
                entry,
                members=tuple(m for m in members if m != name),
                send_as=tuple(s for s in send_as if s != name),
            )
        case MailingList(owners=owners):
            return replace(entry, owners=tuple(o for o in owners if o != name))
        case Account():
            return entry


def _address(text: str) -> Address:
    try:
        return parse(text)
    except InvalidAddress as error:
        raise EditRefused(f"{text!r} is no address: {error}") from error


def _own_name(text: str) -> str:
    try:
        domain = canonical_domain(text)
    except InvalidAddress as error:
        raise EditRefused(str(error)) from error
    if domain.startswith("[") or "_" in domain:
        raise EditRefused(f"{text!r} is no domain name")
    return domain


def _separators(text: str) -> str:
    if wrong := [c for c in text if c not in SEPARATORS]:
        raise EditRefused(f"{wrong[0]!r} cannot separate: use one of {SEPARATORS}")
    return "".join(dict.fromkeys(text))


def _new_address(directory: Directory, text: str) -> Address:
    """An address in an own domain that is still free."""
    address = _address(text)
    existing_domain(directory, address.domain)
    if (taken := directory.entries.get(address.canonical)) is not None:
        kind = type(taken).__name__.lower()
        raise EditRefused(f"{shown(taken.name)} exists already, as {kind}")
    return address


def _new_or(directory: Directory, text: str, kind: type[Entry]) -> Entry | Address:
    """The existing entry of this kind, or an address that is still free."""
    entry = directory.entries.get(_address(text).canonical)
    return entry if isinstance(entry, kind) else _new_address(directory, text)


def _name(entry: Entry | Address) -> str:
    return entry.canonical if isinstance(entry, Address) else entry.name


def _is_empty(entry: Entry) -> bool:
    match entry:
        case Alias(targets=()) | Group(members=()) | MailingList(owners=()):
            return True
        case _:
            return False


def _members(directory: Directory, owner: str, names: Iterable[str]) -> tuple[str, ...]:
    """Check the targets of an alias or the members of a group."""
    found: dict[str, None] = {}
    for name in names:
        address = _address(name)
        if address.domain not in directory.domains:
            found[str(address)] = None
            continue
        entry = existing(directory, name)
        if any(reached.name == owner for reached in directory.walk(entry)):
            raise EditRefused(f"{shown(owner)} would lead to itself through {name}")
        found[entry.name] = None
    if not found:
        raise EditRefused(f"{shown(owner)} needs at least one target")
    return tuple(found)


def _owners(directory: Directory, name: str, owners: Iterable[str]) -> tuple[str, ...]:
    found = {owner: existing(directory, owner) for owner in owners}
    for owner, entry in found.items():
        if isinstance(entry, MailingList) or entry.name == name:
            raise EditRefused(f"{owner} is no account, alias or group: no owner")
    if not found:
        raise EditRefused(f"{shown(name)} needs an owner, who hears of its troubles")
    return tuple(dict.fromkeys(entry.name for entry in found.values()))


def _list_text(text: str) -> str:
    if len(text) > MAX_LIST_TEXT or (text and not text.isprintable()):
        raise EditRefused(f"{text!r}: one line of at most {MAX_LIST_TEXT} characters")
    return text.strip()


def _listed(names: list[str]) -> str:
    few = ", ".join(shown(name) for name in names[:5])
    return few if len(names) <= 5 else f"{few} and {len(names) - 5} more"
