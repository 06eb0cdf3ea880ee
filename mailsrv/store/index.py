"""The index files: connections, transactions, and the row of a mailbox.

A file that was deleted or replaced while we run is noticed at the next use of a
connection, by its inode; the new one starts empty and is filled again from the
Maildir and the uidlists.
"""

import fcntl
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from json import dumps
from operator import attrgetter
from pathlib import Path
from secrets import randbits
from threading import Lock
from typing import Literal
from urllib.parse import quote

from mailsrv.store.schema import (
    HEADER_KEYS,
    INDEX,
    PAGE_CACHE_KIB,
    WAL_OCTETS,
    Schema,
)
from mailsrv.store.uidlist import Mark
from mailsrv.store.values import UID, Change, Changes, LockHeld, StoreError

Kind = Literal["write", "read"]
"""write: each commit is synced, but for those of `unsynced`. read: no writing."""

# Errors that do not pass, as a lock or a full disk does.
_BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")

MAX_IDLE_CONNECTIONS = 64  # in a process; each costs up to 1.85 MiB and 3 descriptors
MAX_TOMBSTONES = 20_000  # in a mailbox; a client that was away longer is told all
TOLD_AFTER_S = 3600.0  # by then every session was told, or its process has died
AGAIN_S = 0.02  # for a reader whose index was deleted
BUSY_TIMEOUT_S = 10.0  # no transaction of ours comes near it
INDEX_FILE = "index.sqlite"
_ATTEMPTS = 3  # to open a file that others make or remove just now


class IndexUnavailable(StoreError, sqlite3.OperationalError):
    """The index cannot be read or written: a full or read-only disk, say."""

    sqlite_errorname = ""


@dataclass(slots=True)
class _Idle:
    connection: sqlite3.Connection
    file: tuple[int, int]  # device and inode


class Connections:
    """The idle SQLite connections of a process, the longest unused closed first.

    Of use from all threads. A connection is lent to one user at a time.
    """

    def __init__(self, limit: int = MAX_IDLE_CONNECTIONS) -> None:
        self._limit = limit
        self._lock = Lock()
        self._idle: OrderedDict[tuple[str, Kind, int], _Idle] = OrderedDict()
        self._lent = 0

    @contextmanager
    def use(
        self, path: str, kind: Kind, schema: Schema = INDEX
    ) -> Iterator[sqlite3.Connection]:
        """Lend a connection to the file at `path`, which is made if need be.

        Raises IndexUnavailable for what the disk refuses.
        """
        try:
            idle = self._take(path, kind) or _open(path, kind, schema)
        except sqlite3.OperationalError as error:
            raise IndexUnavailable(str(error)) from error
        try:
            yield idle.connection
        except sqlite3.DatabaseError as error:
            idle.connection.close()
            if error.sqlite_errorname in _BROKEN:
                discard(path, idle.file)  # the next user builds it anew
            if kind == "read" and idle.file != _identity(path):
                raise LockHeld(AGAIN_S) from error  # deleted under the reader
            if isinstance(error, sqlite3.OperationalError):
                raise IndexUnavailable(str(error)) from error
            raise
        except BaseException:
            idle.connection.rollback()
            self._give(path, kind, idle)
            raise
        self._give(path, kind, idle)

    def close(self, path: str | None = None) -> None:
        """Close all that is idle, or what is idle of one index."""
        with self._lock:
            keys = [key for key in self._idle if path is None or key[0] == path]
            closing = [self._idle.pop(key) for key in keys]
        for idle in closing:
            idle.connection.close()

    def _take(self, path: str, kind: Kind) -> _Idle | None:
        with self._lock:
            found = None
            for key in reversed(self._idle):
                if key[0] == path and key[1] == kind:
                    found = self._idle.pop(key)
                    break
        if found is not None and found.file != _identity(path):
            found.connection.close()
            self.close(path)
            return None
        return found

    def _give(self, path: str, kind: Kind, idle: _Idle) -> None:
        with self._lock:
            self._lent += 1  # a key of its own: several of a kind may be idle
            self._idle[(path, kind, self._lent)] = idle
            oldest = None
            if len(self._idle) > self._limit:
                oldest = self._idle.popitem(last=False)[1]
        if oldest is not None:
            oldest.connection.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _open(path: str, kind: Kind, schema: Schema) -> _Idle:
    for _ in range(_ATTEMPTS):
        if (idle := _connect(path, kind, schema)) is not None:
            return idle
        _make(path, schema)
    raise sqlite3.OperationalError("the index cannot be made")


def _connect(path: str, kind: Kind, schema: Schema) -> _Idle | None:
    """Connect to a file that is there and of use, else return None."""
    file = _identity(path)
    if file is None:
        return None
    connection = None
    try:
        # "rw": what is deleted just now is not made, outside the lock of `_make`.
        connection = sqlite3.connect(
            f"file:{quote(path)}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        # If it is the same file after as before, it is what we have opened.
        if _is_ours(connection, schema) and _identity(path) == file:
            _prepare(connection, kind, schema)
            return _Idle(connection, file)
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        vanished = error.sqlite_errorname == "SQLITE_CANTOPEN" and not _identity(path)
        if not vanished and error.sqlite_errorname not in _BROKEN:
            raise
        return None
    connection.close()
    return None


def _is_ours(connection: sqlite3.Connection, schema: Schema) -> bool:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(version == schema.version)


def _prepare(connection: sqlite3.Connection, kind: Kind, schema: Schema) -> None:
    execute = connection.execute
    execute(f"PRAGMA synchronous={schema.commits}")
    execute(f"PRAGMA cache_size=-{PAGE_CACHE_KIB}")
    execute(f"PRAGMA wal_autocheckpoint={WAL_OCTETS // schema.page_octets}")
    execute("PRAGMA temp_store=MEMORY")
    if kind == "read":
        execute("PRAGMA query_only=1")


def _make(path: str, schema: Schema) -> None:
    """Make a file anew that is missing or of no use, by one process and thread alone.

    What a deleted one left goes first: its connections that are still at work
    would share the log's index (-shm) with the new file.
    """
    with _making(path):
        if (idle := _connect(path, "read", schema)) is not None:
            idle.connection.close()  # another process was faster
            return
        _unlink(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={schema.page_octets}")
            connection.execute("PRAGMA journal_mode=WAL")
            with transaction(connection):
                for statement in schema.statements.split(";\n"):
                    connection.execute(statement)
                # A file made anew may have the inode of the one before it.
                connection.execute(f"PRAGMA application_id={randbits(31)}")
                connection.execute(f"PRAGMA user_version={schema.version}")


def discard(path: str, file: tuple[int, int] | None = None) -> None:
    """Remove an index that is of no use; not another one than `file`, if given."""
    with _making(path):
        if file is None or _identity(path) == file:
            _unlink(path)


def _unlink(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


@contextmanager
def _making(path: str) -> Iterator[None]:
    """Hold the lock under which files of an account are made and removed."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the index's write lock; commit at the end, roll back on an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several short reads see one state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()


@contextmanager
def unsynced(connection: sqlite3.Connection) -> Iterator[None]:
    """As `transaction`, for what can be recomputed: the commit is not synced."""
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        with transaction(connection):
            yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


@dataclass(slots=True)
class Box:
    """The row of a mailbox in table `mailbox`, column by column (see schema)."""

    id: int
    name: str
    uid_validity: int
    uid_next: int
    mod_seq: int
    history_floor: int
    recent_uid: int
    messages: int
    octets: int
    mailbox_id: str
    uidlist_inode: int
    uidlist_octets: int
    uidlist_digest: bytes
    uidlist_last_uid: int
    uidlist_broken: bool
    new_mtime_ns: int
    cur_mtime_ns: int
    new_settled: bool
    cur_settled: bool

    def next_mod_seq(self) -> int:
        """Take the MODSEQ of the change that this transaction makes."""
        self.mod_seq += 1
        return self.mod_seq

    @property
    def mark(self) -> Mark:
        """How far the uidlist is known to the index."""
        return Mark(
            self.uidlist_inode,
            self.uidlist_octets,
            self.uidlist_digest,
            self.uid_validity,
            self.uid_next,
            self.uidlist_last_uid,
            self.mailbox_id,
            bool(self.uidlist_broken),
        )

    @mark.setter
    def mark(self, mark: Mark) -> None:
        self.uidlist_inode = mark.inode
        self.uidlist_octets = mark.octets
        self.uidlist_digest = mark.digest
        self.uid_next = max(self.uid_next, mark.uid_next)
        self.uidlist_last_uid = mark.last_uid
        self.mailbox_id = mark.mailbox_id
        self.uidlist_broken = mark.broken


_COLUMNS = [f.name for f in fields(Box)]
# Not dataclasses.astuple, which copies deeply: 0.15 ms for each delivery.
_values = attrgetter(*_COLUMNS[1:])
_LOAD = f"SELECT {', '.join(_COLUMNS)} FROM mailbox WHERE name = ?"  # noqa: S608
_SAVE = (
    f"UPDATE mailbox SET {', '.join(f'{c} = ?' for c in _COLUMNS[1:])}"  # noqa: S608
    " WHERE id = ?"
)
_INSERT = (
    f"INSERT INTO mailbox ({', '.join(_COLUMNS[1:])})"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(_COLUMNS) - 1))})"
)


def load_box(connection: sqlite3.Connection, name: str) -> Box | None:
    """Return the mailbox's row; None: the index does not know it yet."""
    row = connection.execute(_LOAD, (name,)).fetchone()
    return None if row is None else Box(*row)


def save_box(connection: sqlite3.Connection, box: Box) -> None:
    """Write the row back, inside the transaction that changed it."""
    connection.execute(_SAVE, (*_values(box), box.id))


def new_box(
    connection: sqlite3.Connection, name: str, uid_validity: int, now: float
) -> Box:
    """Insert the row of a mailbox that the index does not know.

    Its MODSEQs begin at the clock (microseconds): an index that was lost and made
    anew never goes back, unless it gave out a million a second.
    """
    start = int(now * 1_000_000)
    box = Box(
        id=0,
        name=name,
        uid_validity=uid_validity,
        uid_next=1,
        mod_seq=start,
        history_floor=start,
        recent_uid=1,
        messages=0,
        octets=0,
        mailbox_id="",
        uidlist_inode=0,
        uidlist_octets=0,
        uidlist_digest=b"",
        uidlist_last_uid=0,
        uidlist_broken=False,
        new_mtime_ns=0,
        cur_mtime_ns=0,
        new_settled=False,
        cur_settled=False,
    )
    box.id = connection.execute(_INSERT, _values(box)).lastrowid or 0
    return box


def drop_box(connection: sqlite3.Connection, box: Box) -> None:
    """Forget a mailbox and its messages; ready bytes that nobody shares go too."""
    contents = connection.execute(
        "SELECT content FROM message WHERE mailbox = ?1"
        " UNION SELECT content FROM expunged WHERE mailbox = ?1 AND content NOT NULL",
        (box.id,),
    ).fetchall()
    connection.execute("DELETE FROM message WHERE mailbox = ?", (box.id,))
    connection.execute("DELETE FROM expunged WHERE mailbox = ?", (box.id,))
    connection.execute("DELETE FROM mailbox WHERE id = ?", (box.id,))
    drop_contents(connection, [content for (content,) in contents])


def drop_contents(connection: sqlite3.Connection, contents: Sequence[int]) -> None:
    """Delete ready bytes, of those `contents` that no message has any more."""
    for content in contents:
        shared = connection.execute(
            "SELECT 1 FROM message WHERE content = ? LIMIT 1", (content,)
        ).fetchone()
        if shared is None:
            drop_ready(connection, content)


def drop_ready(connection: sqlite3.Connection, content: int) -> None:
    """Delete ready bytes; they are computed again if somebody asks for them."""
    connection.execute("DELETE FROM content WHERE id = ?", (content,))
    connection.execute("DELETE FROM sort_key WHERE content = ?", (content,))
    first = content * HEADER_KEYS
    connection.execute(
        "DELETE FROM header_fields WHERE id BETWEEN ? AND ?",
        (first, first + HEADER_KEYS - 1),
    )


def take_contents(connection: sqlite3.Connection, count: int, now: float) -> int:
    """Give out `count` content numbers; return the first.

    None is below the clock (microseconds), as with MODSEQs: so none comes twice.
    """
    row = connection.execute(
        "UPDATE next_content SET id = max(id, ?) + ? RETURNING id",
        (int(now * 1_000_000), count),
    ).fetchone()
    return int(row[0]) - count


def bury(
    connection: sqlite3.Connection, box: Box, uids: Sequence[int], now: float
) -> None:
    """Turn messages into tombstones with a MODSEQ of their own."""
    if not uids:
        return
    mod_seq, some = box.next_mod_seq(), dumps(list(uids))
    count, octets = connection.execute(
        "SELECT count(*), coalesce(sum(size_octets), 0) FROM message"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
        (box.id, some),
    ).fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO expunged SELECT mailbox, uid, ?, ?, flags,"
        " size_octets, internal_date, saved_at, content, coalesce(email_id, base)"
        " FROM message"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
        (mod_seq, int(now), box.id, some),
    )
    connection.execute(
        "DELETE FROM message"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
        (box.id, some),
    )
    box.messages -= count
    box.octets -= octets
    _trim(connection, box, mod_seq - 1)
    stale = connection.execute(
        "SELECT uid FROM expunged INDEXED BY expunged_content"
        " WHERE mailbox = ? AND content NOT NULL AND at_utc < ?",
        (box.id, now - TOLD_AFTER_S),
    ).fetchall()
    forget(connection, box.id, [uid for (uid,) in stale])


def _trim(connection: sqlite3.Connection, box: Box, newest: int) -> None:
    """Drop the oldest tombstones if there are too many, none after `newest`."""
    row = connection.execute(
        "SELECT mod_seq FROM expunged INDEXED BY expunged_mod_seq WHERE mailbox = ?"
        " ORDER BY mod_seq DESC LIMIT 1 OFFSET ?",
        (box.id, MAX_TOMBSTONES),
    ).fetchone()
    if row is None:
        return
    floor = min(row[0], newest)
    gone = connection.execute(
        "SELECT uid FROM expunged WHERE mailbox = ? AND mod_seq <= ?", (box.id, floor)
    ).fetchall()
    forget(connection, box.id, [uid for (uid,) in gone])
    connection.execute(
        "DELETE FROM expunged WHERE mailbox = ? AND mod_seq <= ?", (box.id, floor)
    )
    box.history_floor = max(box.history_floor, floor)


def forget(connection: sqlite3.Connection, mailbox: int, uids: Sequence[int]) -> None:
    """Drop the ready bytes of expunged messages."""
    if not uids:
        return
    key = (mailbox, dumps(list(uids)))
    contents = connection.execute(
        "SELECT content FROM expunged WHERE mailbox = ? AND content NOT NULL"
        " AND uid IN (SELECT value FROM json_each(?))",
        key,
    ).fetchall()
    connection.execute(
        "UPDATE expunged SET content = NULL"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
        key,
    )
    drop_contents(connection, [content for (content,) in contents])


def changes_since(
    connection: sqlite3.Connection, box: Box, mod_seq: int, uid_next: int
) -> Changes:
    """Tell all that happened to a mailbox after that MODSEQ and UIDNEXT."""
    state = (box.name, box.uid_validity, box.uid_next, box.mod_seq)
    if mod_seq == box.mod_seq:
        return Changes(*state)
    if mod_seq < box.history_floor or mod_seq > box.mod_seq:
        return Changes(*state, rebuilt=True)
    added: list[Change] = []
    flagged: list[Change] = []
    for change in connection.execute(
        "SELECT uid, flags, mod_seq FROM message INDEXED BY message_mod_seq"
        " WHERE mailbox = ? AND mod_seq > ? ORDER BY uid",
        (box.id, mod_seq),
    ):
        (added if change[0] >= uid_next else flagged).append(change)
    expunged = [u for u in expunged_since(connection, box, mod_seq) if u < uid_next]
    return Changes(*state, added=added, flagged=flagged, expunged=expunged)


def expunged_since(connection: sqlite3.Connection, box: Box, mod_seq: int) -> list[UID]:
    """Return the UIDs of tombstones after that MODSEQ, ascending."""
    return [
        UID(uid)
        for (uid,) in connection.execute(
            "SELECT uid FROM expunged INDEXED BY expunged_mod_seq"
            " WHERE mailbox = ? AND mod_seq > ? ORDER BY uid",
            (box.id, mod_seq),
        )
    ]


Clock = Callable[[], float]
"""Seconds since 1970."""


def index_path(root: Path) -> str:
    """Return where the index of the account at `root` stands."""
    return str(root / INDEX_FILE)
