"""A mailbox's folder as it is seen, held against what the index has of it.

Reads only. What may be concluded from a scan is settled in `sync`.
"""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from mailsrv.store import maildir
from mailsrv.store.durable import DISK, Disk
from mailsrv.store.index import Box, Clock, load_box
from mailsrv.store.maildir import Entry, Scan, mtime_ns
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import NoSuchMailbox


@dataclass(slots=True)
class Folder:
    """A mailbox at work: its directory, and a durable connection to the index."""

    name: str
    directory: Path
    root: Path  # of the Maildir++
    connection: sqlite3.Connection
    now: Clock
    disk: Disk = DISK

    @property
    def cur(self) -> Path:
        return self.directory / "cur"

    @property
    def new(self) -> Path:
        return self.directory / "new"

    def box(self) -> Box | None:
        return load_box(self.connection, self.name)

    def known_box(self) -> Box:
        """Return the row, which a sync has made."""
        box = self.box()
        if box is None:
            raise NoSuchMailbox(self.name)  # another process has just deleted it
        return box

    def uidlist(self, box: Box | None) -> Uidlist:
        mark = box.mark if box else None
        return Uidlist(self.directory, self.root, mark, disk=self.disk, now=self.now)

    def stamps(self) -> tuple[int, int]:
        """Return the times of the last change of new/ and cur/."""
        try:
            cur = mtime_ns(self.cur)
        except FileNotFoundError as error:
            raise NoSuchMailbox(self.name) from error
        try:
            return mtime_ns(self.new), cur
        except FileNotFoundError:  # what another program made lacks new/
            maildir.create(self.directory, self.disk)
            return mtime_ns(self.new), cur


Known = tuple[int, bytes, bool, int]
"""UID, file name, whether it is in new/, flags."""


@dataclass(slots=True)
class Look:
    """A scan of new/, and of cur/ unless nothing there can have changed."""

    started_ns: int
    new: Scan
    cur: Scan | None

    def entries(self) -> dict[bytes, Entry]:
        """Return base name -> file. A file that moves may show twice: cur/ wins."""
        found = {base: Entry(name, True) for base, name in self.new.names.items()}
        if self.cur is not None:
            found.update(
                (base, Entry(name, False)) for base, name in self.cur.names.items()
            )
        return found


@dataclass(slots=True)
class Difference:
    """What a look at the folder shows that the index does not have so."""

    unknown: list[Entry] = field(default_factory=list)
    renamed: list[tuple[int, int, Entry]] = field(default_factory=list)  # UID, flags
    missing: set[bytes] = field(default_factory=set)
    doubles: bool = False

    def __bool__(self) -> bool:
        return bool(self.unknown or self.renamed or self.missing or self.doubles)


def look(folder: Folder, *, with_cur: bool) -> Look:
    """Scan, new/ before cur/: a file goes this way, and so is seen at least once."""
    started_ns = int(folder.now() * 1e9)

    def now_ns() -> int:
        return started_ns

    new = maildir.scan(folder.new, now_ns)
    return Look(started_ns, new, maildir.scan(folder.cur, now_ns) if with_cur else None)


def known_messages(
    connection: sqlite3.Connection, box: Box, *, only_new: bool = False
) -> dict[bytes, Known]:
    """Return what the index has, by base name."""
    found = connection.execute(
        "SELECT base, uid, info, in_new, flags FROM message INDEXED BY message_new"
        " WHERE mailbox = ? AND in_new"
        if only_new
        else "SELECT base, uid, info, in_new, flags FROM message WHERE mailbox = ?",
        (box.id,),
    )
    return {
        base: (uid, base + info, bool(in_new), flags)
        for base, uid, info, in_new, flags in found
    }


def compare(connection: sqlite3.Connection, box: Box | None, seen: Look) -> Difference:
    """Hold a look against the index."""
    only_new = seen.cur is None
    known = {} if box is None else known_messages(connection, box, only_new=only_new)
    cur = {} if seen.cur is None else seen.cur.names
    new = seen.new.names
    difference = Difference(missing=known.keys() - cur.keys() - new.keys())
    for names, in_new in ((cur, False), (new, True)):
        for base, name in names.items():
            row = known.get(base)
            if row is not None:
                if row[1] == name and row[2] == in_new:
                    continue
                if not (in_new and base in cur):
                    difference.renamed.append((row[0], row[3], Entry(name, in_new)))
            elif not (in_new and base in cur) and (
                box is None or not only_new or not is_known(connection, box, base)
            ):
                difference.unknown.append(Entry(name, in_new))
    scans = [seen.new] if seen.cur is None else [seen.new, seen.cur]
    difference.doubles = any(scan.doubles and scan.final for scan in scans)
    return difference


def is_known(connection: sqlite3.Connection, box: Box, base: bytes) -> bool:
    """Return whether the index has a message of this base name."""
    row = connection.execute(
        "SELECT 1 FROM message INDEXED BY message_base WHERE mailbox = ? AND base = ?",
        (box.id, base),
    ).fetchone()
    return row is not None
