"""STORE and EXPUNGE: flags into file names, files removed, then the index.

Under the uidlist lock, so that no other process of ours renames; what foreign
programs rename meanwhile is found by its base name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from typing import Literal

from mailsrv.store import maildir
from mailsrv.store.durable import sync_folder
from mailsrv.store.index import Box, bury, save_box, transaction
from mailsrv.store.keywords import LETTERS_MASK, Keywords
from mailsrv.store.maildir import Entry
from mailsrv.store.scanning import Folder, look
from mailsrv.store.sync import batches
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import DELETED, SYSTEM_FLAGS, UID

Operation = Literal["+", "-", "="]

_SYSTEM = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}


@dataclass(slots=True)
class Message:
    """A row at work, and its file's name."""

    uid: int
    flags: int
    mod_seq: int
    base: bytes
    entry: Entry


def load_messages(folder: Folder, box: Box, uids: Sequence[int]) -> list[Message]:
    """Return the rows of those `uids` that exist, in the order of UIDs."""
    return [
        Message(uid, flags, mod_seq, base, Entry(base + info, bool(in_new)))
        for uid, flags, mod_seq, base, info, in_new in folder.connection.execute(
            "SELECT uid, flags, mod_seq, base, info, in_new FROM message"
            " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))"
            " ORDER BY uid",
            (box.id, dumps(list(uids))),
        )
    ]


class Finder:
    """Finds files that foreign programs have renamed; scans once for a command."""

    def __init__(self, folder: Folder, keywords: Keywords) -> None:
        self._folder = folder
        self._keywords = keywords
        self._found: dict[bytes, Entry] | None = None

    def again(self, message: Message) -> bool:
        """Give `message` the name and flags that its file has now; False: gone.

        A second scan is made only if the first knows no better name.
        """
        for _ in range(2):
            if self._found is None:
                self._found = look(self._folder, with_cur=True).entries()
            entry = self._found.get(message.base)
            if entry is not None and entry != message.entry:
                message.entry = entry
                message.flags = maildir.to_flags(maildir.split(entry.name)[1])
                message.flags |= self._keywords.extra.get(message.base, 0)
                return True
            self._found = None
        return False


def flags_of(keywords: Keywords, names: Sequence[str], *, add: bool) -> int:
    """Return the mask of flag names; `add`: unknown keywords get a place, durably."""
    system = 0
    others = []
    for name in names:
        if bit := _SYSTEM.get(name.lower()):
            system |= bit
        else:
            others.append(name)
    return system | (keywords.ensure(others) if add else keywords.flags(others))


def store_flags(
    folder: Folder,
    uids: Sequence[int],
    operation: Operation,
    names: Sequence[str],
    unchanged_since: int | None,
) -> list[UID]:
    """Do one STORE command; the folder is synced once, at its end.

    Returns what was left alone, since `unchanged_since` is too low for it. Raises
    LockHeld or TooManyKeywords, and then has changed no message.
    """
    with folder.uidlist(None).lock:
        keywords = Keywords(folder.directory, folder.disk)
        keywords.refresh()
        mask = flags_of(keywords, names, add=operation != "-")
        finder = Finder(folder, keywords)
        renamed = False
        modified: list[UID] = []
        for batch in batches(uids):
            with transaction(folder.connection):
                box = folder.known_box()
                messages = []
                for message in load_messages(folder, box, batch):
                    # RFC 7162 section 3.1.3: tested here, where nobody else can
                    # change it.
                    if unchanged_since is None or message.mod_seq <= unchanged_since:
                        messages.append(message)
                    else:
                        modified.append(UID(message.uid))
                renamed |= _store_batch(
                    folder, box, finder, keywords, messages, operation, mask
                )
        if renamed:
            sync_folder(folder.cur, folder.disk)
    return modified


def _apply(operation: Operation, flags: int, mask: int) -> int:
    match operation:
        case "+":
            return flags | mask
        case "-":
            return flags & ~mask
        case "=":
            return mask


def _store_batch(
    folder: Folder,
    box: Box,
    finder: Finder,
    keywords: Keywords,
    messages: Sequence[Message],
    operation: Operation,
    mask: int,
) -> bool:
    """Rename the files of a batch and update their rows; True if any changed."""
    changed: list[Message] = []
    extra: dict[bytes, int] = {}
    for message in messages:
        before = message.flags
        if _rename(folder, finder, message, operation, mask):
            changed.append(message)
            if (before | message.flags) & ~LETTERS_MASK:
                extra[message.base] = message.flags
    if not changed:
        return False
    if extra:
        keywords.set_extra(extra)
    mod_seq = box.next_mod_seq()
    folder.connection.executemany(
        "UPDATE message SET flags = ?, mod_seq = ?, in_new = 0, info = ?"
        " WHERE mailbox = ? AND uid = ?",
        [
            (m.flags, mod_seq, m.entry.name[len(m.base) :], box.id, m.uid)
            for m in changed
        ],
    )
    save_box(folder.connection, box)
    return True


def _rename(
    folder: Folder, finder: Finder, message: Message, operation: Operation, mask: int
) -> bool:
    """Give a file the flags it shall have, in cur/; False: it has them, or is gone.

    A file that is gone is left to the next sync.
    """
    while True:
        flags = _apply(operation, message.flags, mask)
        if flags == message.flags:
            # Has it these flags still?
            if os.path.lexists(maildir.path_of(folder.directory, message.entry)):
                return False
        else:
            name = maildir.parse(message.entry.name).with_flags(flags).format()
            new = Entry(name, in_new=False)
            if new == message.entry or maildir.rename(
                folder.directory, message.entry, new, folder.disk
            ):
                message.entry, message.flags = new, flags
                return True
        if not finder.again(message):
            return False


def expunge(folder: Folder, uids: Sequence[int], *, only_deleted: bool) -> None:
    """Remove messages: the files, then the folder synced, then one commit.

    With `only_deleted` \\Deleted is looked at here, under the lock. Raises
    LockHeld, and then has changed nothing.
    """
    uidlist = folder.uidlist(folder.box())
    with uidlist.lock:
        keywords = Keywords(folder.directory, folder.disk)
        keywords.refresh()
        finder = Finder(folder, keywords)
        messages = load_messages(folder, folder.known_box(), uids)
        gone = [m for m in messages if _remove(folder, finder, m, only_deleted)]
        if not gone:
            return
        for path in {folder.new if m.entry.in_new else folder.cur for m in gone}:
            sync_folder(path, folder.disk)
        with transaction(folder.connection):
            box = folder.known_box()
            bury(folder.connection, box, [m.uid for m in gone], folder.now())
            save_box(folder.connection, box)
        if any(m.base in keywords.extra for m in gone):
            keywords.set_extra({m.base: 0 for m in gone})
        _compact(folder, uidlist, box)


def _remove(
    folder: Folder, finder: Finder, message: Message, only_deleted: bool
) -> bool:
    """Unlink a file under the name that was judged; False: it stays.

    Or is gone: whether it is, the next sync finds out.
    """
    while not only_deleted or message.flags & DELETED:
        try:
            os.unlink(maildir.path_of(folder.directory, message.entry))
            return True
        except FileNotFoundError:
            if not finder.again(message):
                break
    return False


class _Without:
    """All UIDs but some."""

    def __init__(self, kept: set[int]) -> None:
        self._kept = kept

    def __contains__(self, uid: object) -> bool:
        return uid not in self._kept


LINE_OCTETS = 90  # of a message in the uidlist, about
SPARE_LINES = 1000  # of expunged messages; twice the messages may be more


def _compact(folder: Folder, uidlist: Uidlist, box: Box) -> None:
    """Drop the lines of expunged messages from the uidlist, if they are most of it.

    Lines that the index has not read yet are for sync to read first.
    """
    if box.uidlist_octets < LINE_OCTETS * 2 * (box.messages + SPARE_LINES):
        return
    if uidlist.refresh().records:
        return
    live = {
        uid
        for (uid,) in folder.connection.execute(
            "SELECT uid FROM message WHERE mailbox = ?", (box.id,)
        )
    }
    uidlist.drop(_Without(live), floor=box.uid_next)
    with transaction(folder.connection):
        box = folder.known_box()
        if uidlist.mark is not None:
            box.mark = uidlist.mark
        save_box(folder.connection, box)
