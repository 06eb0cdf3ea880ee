"""Who is on which list, and how they are: ``lists.sqlite``, precious and durable.

A row has a number that is never used again: tokens name it. Recipients of newsletters
stand here too, so that who has unsubscribed is known the next time. Blocking; the
command line and the server use the file at the same time.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

BUSY_TIMEOUT_S = 10.0
DAY_S = 86400
CONFIRM_PAUSE_S = DAY_S  # between two questions to one address
MAX_QUESTIONS_PER_HOUR = 60  # of a list, to addresses that have not answered yet

# Each step leads from the user_version that is its index to the next one.
_MIGRATIONS = (
    """
    CREATE TABLE member (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        list TEXT NOT NULL,
        address TEXT NOT NULL,
        state TEXT NOT NULL,
        since_utc REAL NOT NULL,
        asked_at_utc REAL,
        UNIQUE (list, address)
    );
    CREATE INDEX member_asked ON member (list, asked_at_utc)
        WHERE asked_at_utc NOT NULL;
    CREATE TABLE bounce (
        member INTEGER NOT NULL REFERENCES member (id) ON DELETE CASCADE,
        day INTEGER NOT NULL,
        PRIMARY KEY (member, day)
    ) WITHOUT ROWID;
    CREATE TABLE held (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        list TEXT NOT NULL,
        message TEXT NOT NULL UNIQUE,
        reverse_path TEXT NOT NULL,
        author TEXT NOT NULL,
        subject TEXT NOT NULL,
        at_utc REAL NOT NULL,
        decided TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE run (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        sender TEXT NOT NULL,
        subject TEXT NOT NULL,
        at_utc REAL NOT NULL
    );
    CREATE INDEX run_key ON run (key);
    CREATE TABLE sent (
        run INTEGER NOT NULL REFERENCES run (id),
        member INTEGER NOT NULL,
        PRIMARY KEY (run, member)
    ) WITHOUT ROWID;
    """,
    # One message may wait for the moderators of several lists.
    """
    CREATE TABLE held_by_list (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        list TEXT NOT NULL,
        message TEXT NOT NULL,
        reverse_path TEXT NOT NULL,
        author TEXT NOT NULL,
        subject TEXT NOT NULL,
        at_utc REAL NOT NULL,
        decided TEXT NOT NULL DEFAULT '',
        require_tls INTEGER NOT NULL DEFAULT 0,
        UNIQUE (list, message)
    );
    INSERT INTO sqlite_sequence (name, seq)
        SELECT 'held_by_list', seq FROM sqlite_sequence WHERE name = 'held';
    INSERT INTO held_by_list (id, list, message, reverse_path, author, subject,
        at_utc, decided)
        SELECT id, list, message, reverse_path, author, subject, at_utc, decided
        FROM held;
    DROP TABLE held;
    ALTER TABLE held_by_list RENAME TO held;
    CREATE INDEX held_message ON held (message);
    """,
)


class State(StrEnum):
    """How a member stands to a list."""

    SUBSCRIBED = "subscribed"
    UNCONFIRMED = "unconfirmed"  # was asked and has not answered
    SUSPENDED = "suspended"  # mail for it failed too often
    UNSUBSCRIBED = "unsubscribed"  # kept, so that nobody puts it back by mistake
    CONTACT = "contact"  # gets newsletters that name it, not the list's posts


@dataclass(frozen=True, slots=True)
class Member:
    """A row."""

    id: int
    list: str
    address: str  # canonical
    state: State
    since_utc: float


@dataclass(frozen=True, slots=True)
class Held:
    """A post that waits for a moderator."""

    id: int
    list: str
    message: str  # the name of its file, and its id in the log
    reverse_path: str
    author: str
    subject: str
    at_utc: float
    decided: str  # by what; empty: it waits
    require_tls: bool  # RFC 8689


@dataclass(frozen=True, slots=True)
class Run:
    """One newsletter's way to its recipients."""

    id: int
    key: str  # of its content
    sender: str
    subject: str
    at_utc: float


@dataclass(frozen=True, slots=True)
class RunCount:
    """What became of a newsletter so far."""

    run: Run
    accepted: int
    bounced: int
    unsubscribed: int


class Members:
    """The file. Any thread may call, one at a time works."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # Members

    def get(self, member: int) -> Member | None:
        """The member of this number."""
        with self._transaction() as db:
            return _one(db, "id = ?", member)

    def find(self, name: str, address: str) -> Member | None:
        """The member of a list with this canonical address."""
        with self._transaction() as db:
            return _one(db, "list = ? AND address = ?", name, address)

    def of_list(self, name: str, *states: State) -> list[Member]:
        """All members, or those in `states`, in the order of their addresses."""
        with self._transaction() as db:
            found = db.execute(
                f"SELECT {_MEMBER} FROM member WHERE list = ? ORDER BY address",  # noqa: S608
                (name,),
            ).fetchall()
        members = [_member(row) for row in found]
        return [m for m in members if not states or m.state in states]

    def subscribe(
        self, name: str, addresses: Iterable[str], *, again: bool = False
    ) -> tuple[list[str], list[str]]:
        """Make members of addresses; return those that are new, and those left out.

        Left out is who has unsubscribed, unless `again`.
        """
        new, left_out = [], []
        with self._transaction() as db:
            for address in addresses:
                before = _one(db, "list = ? AND address = ?", name, address)
                if before is not None and before.state is State.SUBSCRIBED:
                    continue
                if before and before.state is State.UNSUBSCRIBED and not again:
                    left_out.append(address)
                    continue
                self._set(db, name, address, State.SUBSCRIBED)
                new.append(address)
        return new, left_out

    def set_state(self, member: int, state: State) -> Member | None:
        """Change a member's state; None: it is gone. Bounces are forgotten."""
        with self._transaction() as db:
            found = _one(db, "id = ?", member)
            if found is None or found.state is state:
                return found
            self._set(db, found.list, found.address, state)
            return _one(db, "id = ?", member)

    def unsubscribe(self, name: str, address: str) -> bool:
        """Note that an address wants no more; False: it had none before."""
        with self._transaction() as db:
            found = _one(db, "list = ? AND address = ?", name, address)
            if found is None or found.state is State.UNSUBSCRIBED:
                return False
            self._set(db, name, address, State.UNSUBSCRIBED)
        return True

    def forget(self, name: str, address: str | None = None) -> None:
        """Delete a member, or all of a list."""
        with self._transaction() as db:
            if address is None:
                db.execute("DELETE FROM member WHERE list = ?", (name,))
            else:
                db.execute(
                    "DELETE FROM member WHERE list = ? AND address = ?", (name, address)
                )

    def ask(self, name: str, address: str) -> Member | None:
        """Return whom to send the question whether it wants to subscribe.

        None: it was asked lately, or too many were. Nobody can make this server
        write to a stranger again and again.
        """
        now = self._now()
        with self._transaction() as db:
            (asked,) = db.execute(
                "SELECT count(*) FROM member WHERE list = ? AND asked_at_utc > ?",
                (name, now - 3600),
            ).fetchone()
            if asked >= MAX_QUESTIONS_PER_HOUR:
                return None
            row = db.execute(
                "SELECT asked_at_utc FROM member WHERE list = ? AND address = ?",
                (name, address),
            ).fetchone()
            if row and row[0] is not None and row[0] > now - CONFIRM_PAUSE_S:
                return None
            db.execute(
                "INSERT INTO member (list, address, state, since_utc, asked_at_utc)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (list, address)"
                " DO UPDATE SET asked_at_utc = excluded.asked_at_utc",
                (name, address, State.UNCONFIRMED, now, now),
            )
            return _one(db, "list = ? AND address = ?", name, address)

    def contacts(self, name: str, addresses: Sequence[str]) -> list[Member]:
        """Return the rows of a newsletter's recipients, in order; made at need."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO member (list, address, state, since_utc)"
                " VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(name, a, State.CONTACT, self._now()) for a in addresses],
            )
            found = (_one(db, "list = ? AND address = ?", name, a) for a in addresses)
            return [member for member in found if member is not None]

    def bounced(self, member: int, most: int, within_days: int) -> Member | None:
        """Count a failure; return the member if it is suspended by it.

        Failures of one day count once: one bad hour of a server is no dead address.
        """
        now = self._now()
        today = int(now // DAY_S)
        with self._transaction() as db:
            found = _one(db, "id = ?", member)
            if found is None:
                return None
            db.execute(
                "INSERT INTO bounce VALUES (?, ?) ON CONFLICT DO NOTHING",
                (member, today),
            )
            db.execute(
                "DELETE FROM bounce WHERE member = ? AND day <= ?",
                (member, today - within_days),
            )
            (days,) = db.execute(
                "SELECT count(*) FROM bounce WHERE member = ?", (member,)
            ).fetchone()
            live = found.state in (State.SUBSCRIBED, State.CONTACT)
            if days < most or not live:
                return None
            db.execute(  # the bounces stay: a newsletter's report counts them
                "UPDATE member SET state = ?, since_utc = ? WHERE id = ?",
                (State.SUSPENDED, now, member),
            )
            return _one(db, "id = ?", member)

    def _set(
        self, db: sqlite3.Connection, name: str, address: str, state: State
    ) -> None:
        db.execute(
            "INSERT INTO member (list, address, state, since_utc) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (list, address) DO UPDATE SET state = excluded.state,"
            " since_utc = excluded.since_utc",
            (name, address, state, self._now()),
        )
        db.execute(
            "DELETE FROM bounce WHERE member ="
            " (SELECT id FROM member WHERE list = ? AND address = ?)",
            (name, address),
        )

    # Held posts

    def hold(
        self,
        name: str,
        message: str,
        reverse_path: str,
        author: str,
        subject: str,
        *,
        require_tls: bool = False,
    ) -> Held:
        """Note a post that waits for a list's moderator; the same one once."""
        now = self._now()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO held (list, message, reverse_path, author, subject,"
                " at_utc, require_tls) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (name, message, reverse_path, author, subject, now, require_tls),
            )
            row = db.execute(
                f"SELECT {_HELD} FROM held WHERE list = ? AND message = ?",  # noqa: S608
                (name, message),
            ).fetchone()
            return _held(row)

    def held(self, number: int) -> Held | None:
        """The held post of this number, also a decided one."""
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {_HELD} FROM held WHERE id = ?",  # noqa: S608
                (number,),
            ).fetchone()
            return _held(row) if row else None

    def waiting(self, name: str) -> list[Held]:
        """The posts to a list that wait, oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_HELD} FROM held WHERE list = ? AND decided = ''"  # noqa: S608
                " ORDER BY id",
                (name,),
            )
            return [_held(row) for row in rows]

    def decide(self, number: int, decided: str) -> bool:
        """Note a moderator's decision; False: there was another one before."""
        with self._transaction() as db:
            db.execute(
                "UPDATE held SET decided = ? WHERE id = ? AND decided IN ('', ?)",
                (decided, number, decided),
            )
            (changed,) = db.execute("SELECT changes()").fetchone()
            return bool(changed)

    def overdue(self, lifetime_s: float) -> list[Held]:
        """The held posts older than that, decided or not."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_HELD} FROM held WHERE at_utc <= ?",  # noqa: S608
                (self._now() - lifetime_s,),
            )
            return [_held(row) for row in rows]

    def waits_elsewhere(self, held: Held) -> bool:
        """Whether the same message is held for another list as well."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT 1 FROM held WHERE message = ? AND id != ? LIMIT 1",
                (held.message, held.id),
            ).fetchone()
            return row is not None

    def drop_held(self, number: int) -> None:
        """Forget a held post."""
        with self._transaction() as db:
            db.execute("DELETE FROM held WHERE id = ?", (number,))

    # Newsletters

    def runs(self, key: str) -> list[Run]:
        """The earlier runs of the same content, oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {_RUN} FROM run WHERE key = ? ORDER BY id",  # noqa: S608
                (key,),
            )
            return [Run(*row) for row in rows]

    def begin_run(self, key: str, sender: str, subject: str) -> Run:
        """Note the beginning of a newsletter."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO run (key, sender, subject, at_utc) VALUES (?, ?, ?, ?)",
                (key, sender, subject, self._now()),
            )
            row = db.execute(
                f"SELECT {_RUN} FROM run WHERE id = ?",  # noqa: S608
                (cursor.lastrowid,),
            ).fetchone()
            return Run(*row)

    def sent_to(self, run: int, members: Sequence[int]) -> set[int]:
        """Those of `members` to whom a newsletter has been handed over."""
        with self._transaction() as db:
            rows = db.execute("SELECT member FROM sent WHERE run = ?", (run,))
            return {row[0] for row in rows} & set(members)

    def note_sent(self, run: int, members: Sequence[int]) -> None:
        """Note for the report that the queue has taken these copies."""
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO sent VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(run, member) for member in members],
            )

    def counts(self, sender: str | None = None) -> list[RunCount]:
        """What became of the newsletters of a sender, or of all; newest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT run.id, key, sender, subject, at_utc, count(sent.member),"
                " sum(EXISTS (SELECT 1 FROM bounce WHERE bounce.member = sent.member"
                " AND day >= CAST(at_utc / 86400 AS INTEGER))),"
                " sum(EXISTS (SELECT 1 FROM member WHERE id = sent.member"
                " AND state = 'unsubscribed' AND since_utc >= at_utc))"
                " FROM run LEFT JOIN sent ON run = run.id"
                " WHERE ?1 IS NULL OR sender = ?1 GROUP BY run.id ORDER BY run.id DESC",
                (sender,),
            )
            return [
                RunCount(Run(*row[:5]), row[5], row[6] or 0, row[7] or 0)
                for row in rows
            ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = _connect(self._path)
            db = self._connection
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


_MEMBER = "id, list, address, state, since_utc"
_HELD = "id, list, message, reverse_path, author, subject, at_utc, decided, require_tls"
_RUN = "id, key, sender, subject, at_utc"


def _one(db: sqlite3.Connection, where: str, *values: object) -> Member | None:
    row = db.execute(
        f"SELECT {_MEMBER} FROM member WHERE {where}",  # noqa: S608
        values,
    ).fetchone()
    return _member(row) if row else None


def _member(row: Sequence[Any]) -> Member:
    # Any: what SQLite gives.
    number, name, address, state, since_utc = row
    return Member(number, name, address, State(state), since_utc)


def _held(row: Sequence[Any]) -> Held:
    return replace(Held(*row), require_tls=bool(row[-1]))


def _connect(path: Path) -> sqlite3.Connection:
    # Made here and not by SQLite, for its mode: it says who reads what.
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600))
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise ListsTooNew(f"{path} was written by a later version of mailsrv")
        for step in _MIGRATIONS[version:]:
            for statement in step.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


class ListsTooNew(Exception):
    """A later mailsrv has written the file; its format is unknown here."""
