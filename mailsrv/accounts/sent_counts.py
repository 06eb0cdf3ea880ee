"""How much each account has sent lately, and to whom it has written before.

``sending.sqlite``; it may be deleted: then everybody is a new recipient again. Any
thread, one at a time. A count may be lost in a power cut, never the file.
"""

import hashlib
import sqlite3
from pathlib import Path
from threading import Lock

HOUR_S, DAY_S = 3600.0, 86400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (account TEXT NOT NULL, at_utc REAL NOT NULL);
CREATE INDEX IF NOT EXISTS message_of ON message (account, at_utc);
CREATE TABLE IF NOT EXISTS recipient (
    account TEXT NOT NULL,
    digest BLOB NOT NULL, -- of the address: the file tells nobody's contacts
    since_utc REAL NOT NULL,
    PRIMARY KEY (account, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS recipient_of ON recipient (account, since_utc);
CREATE TABLE IF NOT EXISTS notice (
    account TEXT NOT NULL,
    day INTEGER NOT NULL,
    PRIMARY KEY (account, day)
) WITHOUT ROWID;
"""

Counts = tuple[int, int]
"""In the last hour, and in the last day."""


class SentCounts:
    """The file, made at its first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def message(self, account: str, now_utc: float) -> Counts:
        """Note a message; return how many there are with it.

        Those beyond a limit are to be taken back by `forget_message`.
        """
        with self._lock:
            db = self._opened()
            db.execute("INSERT INTO message VALUES (?, ?)", (account, now_utc))
            db.execute("DELETE FROM message WHERE at_utc < ?", (now_utc - DAY_S,))
            return self._counts("message", "at_utc", account, now_utc)

    def forget_message(self, account: str, at_utc: float) -> None:
        """Take a message back that was refused: who tries again gets on one day."""
        with self._lock:
            self._opened().execute(
                "DELETE FROM message WHERE rowid = (SELECT max(rowid) FROM message"
                " WHERE account = ? AND at_utc = ?)",
                (account, at_utc),
            )

    def recipient(self, account: str, address: str, now_utc: float) -> Counts | None:
        """Note a recipient; None: the account has written to it before.

        Else how many new ones there are with it. Those beyond a limit are to be
        taken back by `forget`.
        """
        with self._lock:
            db = self._opened()
            row = (account, _digest(account, address), now_utc)
            added = db.execute("INSERT OR IGNORE INTO recipient VALUES (?, ?, ?)", row)
            if added.rowcount != 1:
                return None
            return self._counts("recipient", "since_utc", account, now_utc)

    def forget(self, account: str, address: str) -> None:
        """Take a recipient back that was refused."""
        with self._lock:
            self._opened().execute(
                "DELETE FROM recipient WHERE account = ? AND digest = ?",
                (account, _digest(account, address)),
            )

    def may_tell(self, account: str, now_utc: float) -> bool:
        """Whether nobody has been told of a limit today; from now on somebody has."""
        with self._lock:
            day = int(now_utc // DAY_S)
            added = self._opened().execute(
                "INSERT OR IGNORE INTO notice VALUES (?, ?)", (account, day)
            )
            return added.rowcount == 1

    def _counts(self, table: str, column: str, account: str, now: float) -> Counts:
        hour, day = (
            self._opened()
            .execute(
                f"SELECT count(*) FROM {table} WHERE account = ? AND {column} > ?",  # noqa: S608
                (account, now - span_s),
            )
            .fetchone()[0]
            for span_s in (HOUR_S, DAY_S)
        )
        return hour, day

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection


def _digest(account: str, address: str) -> bytes:
    text = f"{account} {address.lower()}".encode()
    return hashlib.blake2b(text, digest_size=16).digest()
