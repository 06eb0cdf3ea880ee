"""Holding files, uidlists and index of an account against one another.

What a server that runs has not taken in yet is no finding. Each mailbox is looked
at under its uidlist lock, for as long as that takes. To mend is to let the higher
in the order of trust (file, uidlist, index) overrule the lower.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mailsrv.store import maildir, names
from mailsrv.store.delivery import LineCounter
from mailsrv.store.index import (
    Box,
    Clock,
    Connections,
    discard,
    drop_box,
    drop_ready,
    index_path,
    save_box,
    transaction,
)
from mailsrv.store.keywords import Keywords
from mailsrv.store.maildir import Entry
from mailsrv.store.scanning import Folder, look
from mailsrv.store.sync import adopt
from mailsrv.store.texts import TRIGRAMS_CHECK, can_index, texts_path
from mailsrv.store.uidlist import Record, Uidlist
from mailsrv.store.values import MessageGone

COUNT_OCTETS = 1 << 20  # of a file, counted at a time


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, in plain words."""

    mailbox: str  # "" for the account as a whole
    text: str

    def __str__(self) -> str:
        return f"{self.mailbox}: {self.text}" if self.mailbox else self.text


class Verifier:
    """Checks and mends one account at `root`; the server may run meanwhile.

    Raises LockHeld while another process works on a mailbox: try again.
    """

    def __init__(self, root: Path, *, connections: Connections, now: Clock) -> None:
        self._root = root / "Maildir"
        self._index = index_path(root)
        self._texts = texts_path(root)
        self._connections = connections
        self._now = now

    def check(self) -> list[Finding]:
        """Return all findings; nothing is changed."""
        if not maildir.is_maildir(self._root):
            return [Finding("", f"there is no Maildir at {self._root}")]
        findings: list[Finding] = []
        if damage := _damage(self._texts, TRIGRAMS_CHECK):
            text = (
                f"the index of texts is damaged: {damage};"
                f" delete {self._texts}, or mend: it is filled again in the background"
            )
            findings.append(Finding("", text))
        if not os.path.exists(self._index):
            return findings + [
                found for name in self._mailboxes() for found in self._check_files(name)
            ]
        if damage := _damage(self._index):
            return [*findings, Finding("", f"the index is damaged: {damage}")]
        with self._connections.use(self._index, "write") as connection:
            for name in self._mailboxes():
                findings += self._check_files(name)
                findings += self._check_mailbox(self._folder(connection, name))
            findings += self._check_whole(connection)
        return findings

    def mend(self) -> None:
        """Mend what can be mended; what a `check` then still finds needs a person."""
        if not maildir.is_maildir(self._root):
            return
        for path, check in ((self._index, ""), (self._texts, TRIGRAMS_CHECK)):
            if _damage(path, check):
                self._connections.close(path)
                discard(path)
        with self._connections.use(self._index, "write") as connection:
            self._drop_strangers(connection)
            for name in self._mailboxes():
                folder = self._folder(connection, name)
                if self._check_mailbox(folder):
                    self._mend_mailbox(folder)
                if self._check_mailbox(folder):  # still: make its part anew
                    with transaction(connection):
                        drop_box(connection, folder.known_box())
                    self._mend_mailbox(folder)

    def _mailboxes(self) -> list[str]:
        return names.mailboxes(self._root)

    def _folder(self, connection: sqlite3.Connection, name: str) -> Folder:
        directory = names.directory(self._root, name)
        return Folder(name, directory, self._root, connection, self._now)

    # Checking.

    def _check_files(self, name: str) -> Iterator[Finding]:
        """Look for what is no message, or cannot be read."""
        directory = os.fsencode(names.directory(self._root, name))
        for sub in (b"new", b"cur"):
            try:
                entries = sorted(os.listdir(directory + b"/" + sub))
            except FileNotFoundError:
                yield Finding(name, f"the folder {sub.decode()} is missing")
                continue
            for entry in entries:
                path = directory + b"/" + sub + b"/" + entry
                try:
                    mode = os.lstat(path).st_mode
                except FileNotFoundError:
                    continue  # another program works here
                shown = f"{sub.decode()}/{os.fsdecode(entry)!r}"
                if not stat.S_ISREG(mode):
                    yield Finding(name, f"{shown} is no regular file: not served")
                elif not os.access(path, os.R_OK):
                    yield Finding(name, f"{shown} cannot be read by this user")

    def _check_mailbox(self, folder: Folder) -> list[Finding]:
        box = folder.box()
        if box is None:
            return []  # never opened: there is nothing to be wrong
        uidlist = folder.uidlist(None)
        with uidlist.lock:
            box = folder.known_box()
            reading = uidlist.refresh()
            texts = [*_check_uidlist(uidlist, reading.records, box)]
            texts += _check_rows(folder, box, reading.records)
        return [Finding(folder.name, text) for text in texts]

    def _check_whole(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        known = {name for (name,) in connection.execute("SELECT name FROM mailbox")}
        for name in sorted(known - set(self._mailboxes())):
            yield Finding(name, "the index has a mailbox that has no folder")
        (orphans,) = connection.execute(_ORPHANS).fetchone()
        if orphans:
            yield Finding("", f"the index keeps data of {orphans} unknown messages")

    # Mending.

    def _drop_strangers(self, connection: sqlite3.Connection) -> None:
        known = {name for (name,) in connection.execute("SELECT name FROM mailbox")}
        for name in known - set(self._mailboxes()):
            with transaction(connection):
                drop_box(connection, self._folder(connection, name).known_box())
        with transaction(connection):
            for statement in _DROP_ORPHANS:
                connection.execute(statement)

    def _mend_mailbox(self, folder: Folder) -> None:
        maildir.create(folder.directory)
        uidlist = folder.uidlist(None)
        with uidlist.lock:
            if (box := folder.box()) is not None:
                with transaction(folder.connection):
                    box = folder.known_box()
                    box.uidlist_inode = 0  # read the list whole
                    _mend_row(folder.connection, box)
                    save_box(folder.connection, box)
                _mend_sizes(folder, box)
            missing = _bases(folder) - look(folder, with_cur=True).entries().keys()
            adopt(folder, uidlist, missing, with_cur=True)


def _damage(path: str, check: str = "") -> str:
    """Return what SQLite finds wrong with a file; "" if nothing, or no file.

    `check` is a further statement, which fails if something is wrong.
    """
    if not os.path.exists(path):
        return ""
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            (text,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if text == "ok" and check and can_index():
                connection.execute(check)
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if text == "ok" else str(text)


_USED = "SELECT content FROM message UNION SELECT content FROM expunged"
_ORPHANS = f"SELECT count(*) FROM content WHERE id NOT IN ({_USED})"  # noqa: S608
_DROP_ORPHANS = (
    f"DELETE FROM content WHERE id NOT IN ({_USED})",  # noqa: S608
    f"DELETE FROM sort_key WHERE content NOT IN ({_USED})",  # noqa: S608
)


def _check_uidlist(
    uidlist: Uidlist, records: Sequence[Record], box: Box
) -> Iterator[str]:
    mark = uidlist.mark
    if mark is None:
        yield "the uidlist is missing or cannot be read"
        return
    if mark.broken:
        yield "the uidlist has broken lines"
    if mark.uid_validity != box.uid_validity:
        yield (
            f"UIDVALIDITY is {mark.uid_validity} in the uidlist"
            f" and {box.uid_validity} in the index"
        )
    highest = max((record.uid for record in records), default=0)
    if mark.uid_next <= highest:
        yield f"the uidlist's next UID {mark.uid_next} is not above {highest}"
    if box.uid_next > mark.uid_next:
        yield f"the index's next UID {box.uid_next} is above {mark.uid_next}"


def _check_rows(folder: Folder, box: Box, records: Sequence[Record]) -> Iterator[str]:
    """Hold each row against its file and its line in the uidlist."""
    keywords = Keywords(folder.directory)
    keywords.refresh()
    listed = {record.base: record.uid for record in records}
    # What one scan of a busy folder misses, the other shows.
    files = look(folder, with_cur=True).entries()
    files = {**look(folder, with_cur=True).entries(), **files}
    messages = octets = 0
    for uid, flags, mod_seq, base, size, exact in folder.connection.execute(
        "SELECT uid, flags, mod_seq, base, size_octets, exact FROM message"
        " WHERE mailbox = ?",
        (box.id,),
    ):
        messages += 1
        octets += size
        if listed.get(base) != uid:
            yield f"message {uid} has UID {listed.get(base)} in the uidlist"
        if mod_seq > box.mod_seq:
            yield f"message {uid} has a MODSEQ above the mailbox's highest"
        if uid >= box.uid_next:
            yield f"message {uid} is not below the index's next UID {box.uid_next}"
        if (entry := files.get(base)) is None:
            yield f"message {uid} has no file"
            continue
        yield from _check_file(folder, uid, entry, flags, size, bool(exact), keywords)
    if (messages, octets) != (box.messages, box.octets):
        yield (
            f"the index counts {box.messages} messages of {box.octets} octets,"
            f" and has {messages} of {octets}"
        )


def _check_file(
    folder: Folder,
    uid: int,
    entry: Entry,
    flags: int,
    size: int,
    exact: bool,
    keywords: Keywords,
) -> Iterator[str]:
    name = maildir.parse(entry.name)
    if name.flags | keywords.extra.get(name.base, 0) != flags:
        yield f"message {uid} has other flags in its file name than in the index"
    served = _right_size(folder, entry, size) if exact else None
    if served is not None:
        yield (f"message {uid} has {served} octets in its file and {size} in the index")


def _right_size(folder: Folder, entry: Entry, size: int) -> int | None:
    """Return the size of a file as served, if it is another than `size`.

    A file that is as long as its name says also has the size that this says.
    """
    name = maildir.parse(entry.name)
    try:
        octets = os.stat(maildir.path_of(folder.directory, entry)).st_size
        if (name.file_octets, name.size_octets) == (octets, size):
            return None
        served = _served_octets(folder, entry)
    except (FileNotFoundError, MessageGone):
        return None  # renamed just now
    return served if served != size else None


def _served_octets(folder: Folder, entry: Entry) -> int:
    counter = LineCounter()
    fd, _ = maildir.open_file(maildir.path_of(folder.directory, entry))
    try:
        while piece := os.read(fd, COUNT_OCTETS):
            counter.feed(piece)
    finally:
        os.close(fd)
    return counter.octets + counter.added


def _bases(folder: Folder) -> set[bytes]:
    rows = folder.connection.execute(
        "SELECT base FROM message JOIN mailbox ON mailbox.id = mailbox"
        " WHERE mailbox.name = ?",
        (folder.name,),
    )
    return {base for (base,) in rows}


def _mend_row(connection: sqlite3.Connection, box: Box) -> None:
    """Count again what the mailbox's row sums up."""
    box.messages, box.octets, uid, mod_seq = connection.execute(
        "SELECT count(*), coalesce(sum(size_octets), 0), coalesce(max(uid), 0),"
        " coalesce(max(mod_seq), 0) FROM message WHERE mailbox = ?",
        (box.id,),
    ).fetchone()
    box.uid_next = max(box.uid_next, uid + 1)
    box.mod_seq = max(box.mod_seq, mod_seq)


def _mend_sizes(folder: Folder, box: Box) -> None:
    """Have sizes that are wrong computed again, with all that came with them."""
    files = look(folder, with_cur=True).entries()
    for uid, base, size, content in folder.connection.execute(
        "SELECT uid, base, size_octets, content FROM message"
        " WHERE mailbox = ? AND exact",
        (box.id,),
    ).fetchall():
        entry = files.get(base)
        if entry is None or _right_size(folder, entry, size) is None:
            continue
        with transaction(folder.connection):
            folder.connection.execute(
                "UPDATE message SET exact = 0 WHERE mailbox = ? AND uid = ?",
                (box.id, uid),
            )
            drop_ready(folder.connection, content)
