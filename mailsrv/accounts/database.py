"""Where the directory is kept: one SQLite file, or memory for tests.

Both are small: the rules are in `edits`, and an edit's outcome is stored as the
difference of two snapshots. Blocking; not for the reactor thread.
"""

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zope.interface import implementer

from mailsrv.accounts.directory import (
    Account,
    Alias,
    AppPassword,
    Directory,
    Domain,
    Entry,
    Group,
    MailingList,
)
from mailsrv.interfaces import IAccountDatabase

# Each step leads from the user_version that is its index to the next one.
_MIGRATIONS = [
    """
    CREATE TABLE domains (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        separators TEXT NOT NULL,
        catch_all TEXT
    );
    CREATE TABLE accounts (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        folder TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        quota_octets INTEGER,
        enabled INTEGER NOT NULL
    );
    CREATE TABLE aliases (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        targets TEXT NOT NULL -- a JSON array of addresses, as the other lists
    );
    CREATE TABLE groups (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        members TEXT NOT NULL,
        send_as TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE accounts ADD COLUMN disabled_extensions TEXT NOT NULL DEFAULT '[]'
    """,
    """
    ALTER TABLE accounts ADD COLUMN scram_keys TEXT;
    CREATE TABLE probe_key (value BLOB NOT NULL);
    INSERT INTO probe_key VALUES (randomblob(32));
    """,
    """
    ALTER TABLE accounts ADD COLUMN files_sent INTEGER NOT NULL DEFAULT 0
    """,
    """
    CREATE TABLE lists (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        owners TEXT NOT NULL,
        title TEXT NOT NULL,
        posting TEXT NOT NULL,
        posters TEXT NOT NULL,
        subject_tag TEXT NOT NULL,
        reply_to TEXT NOT NULL,
        joining TEXT NOT NULL
    )
    """,
    """
    ALTER TABLE accounts ADD COLUMN app_passwords TEXT NOT NULL DEFAULT '[]'
    """,
]
BUSY_TIMEOUT_S = 10.0  # for another process's edit to end
_SETTLED_S = 3.0  # more than a tick of any file system's clock

_Record = Domain | Entry
_COLUMNS: dict[type[_Record], tuple[str, tuple[str, ...]]] = {
    Domain: ("domains", ("name", "separators", "catch_all")),
    Account: (
        "accounts",
        (
            "name",
            "folder",
            "password_hash",
            "quota_octets",
            "enabled",
            "disabled_extensions",
            "scram_keys",
            "files_sent",
            "app_passwords",
        ),
    ),
    Alias: ("aliases", ("name", "targets")),
    Group: ("groups", ("name", "members", "send_as")),
    MailingList: (
        "lists",
        (
            "name",
            "owners",
            "title",
            "posting",
            "posters",
            "subject_tag",
            "reply_to",
            "joining",
        ),
    ),
}


class DatabaseTooNew(Exception):
    """A later mailsrv has written the file; its format is unknown here."""


class DatabaseGone(Exception):
    """The file was taken away from under a running server; it may come back."""


@implementer(IAccountDatabase)
class MemoryAccountDatabase:
    """A directory that is gone with the process."""

    def __init__(self) -> None:
        self._directory = Directory(probe_key=secrets.token_bytes(32))
        self._version = 0
        self._lock = threading.Lock()

    def snapshot(self) -> Directory:
        return self._directory

    def version(self) -> object:
        return self._version

    def mark(self) -> object | None:
        return None

    def edit(self, change: Callable[[Directory], Directory]) -> Directory:
        with self._lock:
            self._directory = change(self._directory)
            self._version += 1
            return self._directory


@implementer(IAccountDatabase)
class AccountDatabase:
    """``accounts.sqlite``, made at need. Other processes may edit it meanwhile.

    One connection serves all threads, one at a time. `version` stands on
    ``PRAGMA data_version``, which counts the commits of other connections.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._edits = 0
        # Opened by the first call: a connection must not live through a fork.
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._file = None

    def snapshot(self) -> Directory:
        with self._open() as connection, _transaction(connection, "BEGIN"):
            return _read(connection)

    def version(self) -> object:
        with self._open() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return self._file, version, self._edits

    def mark(self) -> object | None:
        # A commit ends with writes to the file, while readers wait.
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        if time.time() - status.st_mtime < _SETTLED_S:
            return None  # another one may follow in the same tick
        return (
            *(status.st_dev, status.st_ino, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns),
        )

    def edit(self, change: Callable[[Directory], Directory]) -> Directory:
        with self._open() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            before = _read(connection)
            after = change(before)
            _write(connection, before.domains, after.domains)
            _write(connection, before.entries, after.entries)
            self._edits += 1
        return after

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            # A restored backup is another file under the same name.
            if self._connection is None or _identity(self._path) != self._file:
                # While the backup is not yet there, or not whole, nobody is unknown:
                # only the first use may begin with nothing.
                connection = _connect(self._path, may_create=self._file is None)
                if self._connection is not None:
                    self._connection.close()
                self._connection, self._file = connection, _identity(self._path)
            yield self._connection


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _connect(path: Path, *, may_create: bool) -> sqlite3.Connection:
    # Made here and not by SQLite, for its mode: it holds password hashes.
    create = os.O_CREAT if may_create else 0
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | create, 0o600))
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path, may_create)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, may_create: bool) -> None:
    # Edits are rare: with a rollback journal the database is one file at rest.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")
    with _transaction(connection, "BEGIN IMMEDIATE"):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise DatabaseTooNew(f"{path} was written by a later version of mailsrv")
        if version == 0 and not may_create:
            raise DatabaseGone(f"{path} was replaced by an empty file")
        for step in _MIGRATIONS[version:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some failures, a full disk for one, SQLite has done it itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _read(connection: sqlite3.Connection) -> Directory:
    domains = {
        name: Domain(name, separators, catch_all)
        for name, separators, catch_all in _rows(connection, Domain)
    }
    entries: dict[str, Entry] = {
        name: Account(
            name,
            folder,
            password_hash,
            quota,
            bool(enabled),
            tuple(json.loads(words)),
            keys,
            bool(files_sent),
            tuple(AppPassword(*app) for app in json.loads(apps)),
        )
        for (
            name,
            folder,
            password_hash,
            quota,
            enabled,
            words,
            keys,
            files_sent,
            apps,
        ) in _rows(connection, Account)
    }
    for name, targets in _rows(connection, Alias):
        entries[name] = Alias(name, tuple(json.loads(targets)))
    for name, members, send_as in _rows(connection, Group):
        entries[name] = Group(
            name, tuple(json.loads(members)), tuple(json.loads(send_as))
        )
    for name, owners, title, posting, posters, *rest in _rows(connection, MailingList):
        entries[name] = MailingList(
            name,
            tuple(json.loads(owners)),
            title,
            posting,
            tuple(json.loads(posters)),
            *rest,
        )
    (probe_key,) = connection.execute("SELECT value FROM probe_key").fetchone()
    return Directory(domains, entries, probe_key)


def _rows(connection: sqlite3.Connection, kind: type[_Record]) -> sqlite3.Cursor:
    table, columns = _COLUMNS[kind]
    return connection.execute(
        f"SELECT {', '.join(columns)} FROM {table} ORDER BY id"  # noqa: S608
    )


def _write(
    connection: sqlite3.Connection,
    before: Mapping[str, _Record],
    after: Mapping[str, _Record],
) -> None:
    """Store the difference of two snapshots. Table names are constants (S608)."""
    for name, record in before.items():
        if type(after.get(name)) is not type(record):
            table, _ = _COLUMNS[type(record)]
            connection.execute(f"DELETE FROM {table} WHERE name = ?", (name,))  # noqa: S608
    for name, record in after.items():
        if record != before.get(name):
            table, columns = _COLUMNS[type(record)]
            values = [_stored(getattr(record, column)) for column in columns]
            # An update keeps the id, and so the order.
            connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608
                f" VALUES ({', '.join('?' * len(columns))})"
                f" ON CONFLICT (name) DO UPDATE SET"
                f" {', '.join(f'{c} = excluded.{c}' for c in columns)}",
                values,
            )


def _stored(value: str | int | tuple[object, ...] | None) -> str | int | None:
    return json.dumps(value) if isinstance(value, tuple) else value
