"""The mailboxes of an account: listing, making, renaming, deleting their folders.

Maildir++ has no place for a mailbox that only has children: such a name is shown
but cannot be selected (RFC 5258 section 3 \\NonExistent).
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from mailsrv.store import maildir, names
from mailsrv.store.attributes import FILE as ATTRIBUTES
from mailsrv.store.attributes import NONE, Attributes, AttributesFile
from mailsrv.store.durable import sync_folder
from mailsrv.store.locks import UidlistLock
from mailsrv.store.names import INBOX, SEPARATOR
from mailsrv.store.subscriptions import Subscriptions
from mailsrv.store.values import (
    InvalidName,
    MailboxExists,
    MailboxInfo,
    NoSuchMailbox,
)

TRASH = "..mailsrv-deleted."  # no mailbox's directory begins with two dots

# The names that clients and other servers give to folders of a special use
# (RFC 6154); the first is what we make if a Maildir has none of them.
DEFAULTS: dict[str, tuple[str, ...]] = {
    "\\Drafts": ("Drafts",),
    "\\Sent": ("Sent", "Sent Items", "Sent Messages"),
    "\\Junk": ("Junk", "Spam", "Junk E-mail", "Junk Email"),
    "\\Trash": ("Trash", "Deleted Items", "Deleted Messages"),
    "\\Archive": ("Archive", "Archives"),
}


def list_mailboxes(root: Path, mailbox_ids: dict[str, str]) -> list[MailboxInfo]:
    """List mailboxes, names that have only children, and what is subscribed.

    What is subscribed alone (RFC 3501 section 6.3.9) is neither selectable nor has
    it children; LIST without SUBSCRIBED leaves it out.
    """
    existing = names.mailboxes(root)
    attributes = AttributesFile(root).all()
    subscribed = list(map(names.canonical, Subscriptions(root).names()))
    parents: dict[str, None] = {}
    for name in existing:
        levels = name.split(SEPARATOR)
        for depth in range(1, len(levels)):
            parents[SEPARATOR.join(levels[:depth])] = None
    selectable, wanted = set(existing), set(subscribed)
    order = dict.fromkeys([*existing, *parents, *subscribed])
    return [
        MailboxInfo(
            name,
            selectable=name in selectable,
            special_uses=attributes.get(name, NONE).special_uses,
            subscribed=name in wanted,
            has_children=name in parents,
            mailbox_id=mailbox_ids.get(name, ""),
        )
        for name in [INBOX, *sorted(order.keys() - {INBOX})]
    ]


def directory(root: Path, name: str) -> Path:
    """Return the directory of a mailbox that exists."""
    found = names.directory(root, name)
    if not maildir.is_maildir(found) or found.is_symlink():
        raise NoSuchMailbox(name)
    return found


def create(root: Path, name: str, special_uses: Sequence[str] = ()) -> None:
    """Make a mailbox, durably."""
    path = names.directory(root, name)
    if maildir.is_maildir(path):
        raise MailboxExists(name)
    if special_uses:
        # First, so that a crash leaves a note without a folder, which does no harm.
        AttributesFile(root).set({name: Attributes(tuple(special_uses))})
    maildir.create(path)
    (path / "maildirfolder").touch()  # Maildir++: this is no Maildir of its own


def children(root: Path, name: str) -> list[str]:
    """Return the mailboxes below a name."""
    return [n for n in names.mailboxes(root) if n.startswith(name + SEPARATOR)]


def delete(root: Path, name: str) -> None:
    """Take a mailbox and its messages away; what is below it stays.

    RFC 3501 section 6.3.4. The subscription stays too (section 6.3.6).
    """
    if name == INBOX:
        raise InvalidName("INBOX cannot be deleted")
    path = directory(root, name)
    with UidlistLock(path):
        trash = root / f"{TRASH}{os.getpid()}.{path.stat().st_ino}"
        os.rename(path, trash)
        sync_folder(root)
    AttributesFile(root).set({name: NONE})


def empty_trash(root: Path) -> None:
    """Remove the folders of deleted mailboxes, those of an earlier run as well."""
    with os.scandir(root) as entries:
        found = [e.path for e in entries if e.name.startswith(TRASH)]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)


def rename(root: Path, old: str, new: str) -> list[tuple[str, str]]:
    """Rename a mailbox and all below it; return the pairs that were renamed.

    Not for INBOX, whose messages move instead (RFC 3501 section 6.3.5). Children
    go first: after a crash the command can be given again.
    """
    if new == old or names.directory(root, new) == names.directory(root, old):
        raise MailboxExists(new)
    if new.startswith(old + SEPARATOR):
        raise InvalidName("a mailbox cannot be moved below itself")
    pairs = [(n, new + n[len(old) :]) for n in children(root, old)]
    if maildir.is_maildir(names.directory(root, old)):
        pairs.append((old, new))
    if not pairs:
        raise NoSuchMailbox(old)
    paths = [(names.directory(root, a), names.directory(root, b)) for a, b in pairs]
    for (_, name), (_, path) in zip(pairs, paths, strict=True):
        if os.path.lexists(path):
            raise MailboxExists(name)
    with ExitStack() as stack:
        for source, _ in sorted(paths):
            stack.enter_context(UidlistLock(source))
        for source, target in paths:
            os.rename(source, target)
            # A lock that other programs would take for one of theirs moved along.
            (target / "dovecot-uidlist.lock").unlink(missing_ok=True)
        sync_folder(root)
    AttributesFile(root).rename(dict(pairs))
    return pairs


def ensure_defaults(root: Path) -> None:
    """Make and subscribe what clients look for at the first login.

    Once for each account: a folder that its user deletes stays deleted. In a
    Maildir that comes from another server, folders get their uses by their names.
    """
    _spell_inbox(root)
    if os.path.exists(root / ATTRIBUTES):
        return
    if not maildir.is_maildir(root):
        maildir.create(root)
    existing = set(names.mailboxes(root))
    uses = {}
    for use, known in DEFAULTS.items():
        name = next((n for n in known if n in existing), known[0])
        if name not in existing:
            create(root, name)
        uses[name] = Attributes((use,))
    Subscriptions(root).add([INBOX, *uses])
    AttributesFile(root).set(uses)


def _spell_inbox(root: Path) -> None:
    """Let folders below INBOX that another server spelled in its way be reached."""
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for name in [entry.name for entry in entries]:
            right = f".{INBOX}{name[6:]}"
            if name[:7].upper() != f".{INBOX}." or name == right:
                continue
            if not os.path.lexists(root / right):
                os.rename(root / name, root / right)
                sync_folder(root)
