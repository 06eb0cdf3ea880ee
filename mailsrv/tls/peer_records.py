"""What is kept of other domains: their MTA-STS policies, and the counts of TLSRPT.

One SQLite file, written by one process, one job at a time. Blocking. It may be
deleted: policies are fetched again, the counts of a day or two are lost.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailsrv.tls.mta_sts import StsPolicy, parse_policy

_SCHEMA = """
CREATE TABLE IF NOT EXISTS policies (
    domain TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    policy BLOB NOT NULL,
    fetched_at_utc REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    day INTEGER NOT NULL, -- since 1970, UTC
    domain TEXT NOT NULL,
    policy TEXT NOT NULL, -- JSON, as reports have it
    failure TEXT NOT NULL, -- JSON, too; empty: a success
    count INTEGER NOT NULL,
    PRIMARY KEY (day, domain, policy, failure)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reported (
    day INTEGER NOT NULL,
    domain TEXT NOT NULL,
    PRIMARY KEY (day, domain)
) WITHOUT ROWID;
"""
MAX_KINDS = 100  # of sessions of a domain and day that are told apart


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A policy as it was fetched."""

    id: str
    policy: StsPolicy
    fetched_at_utc: float

    def is_valid(self, now_utc: float) -> bool:
        return now_utc < self.fetched_at_utc + self.policy.max_age_s


@dataclass(frozen=True, slots=True)
class Sessions:
    """How many sessions of a day went the same way."""

    day: int
    domain: str
    policy: str
    failure: str
    count: int


class PeerRecords:
    """The file. Opened at the first use, in the thread that works on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            self._path.chmod(0o600)
            self._opened = connection
        return self._opened

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def policy(self, domain: str) -> KeptPolicy | None:
        """Return the policy of a domain, which may be too old."""
        row = self._connection.execute(
            "SELECT id, policy, fetched_at_utc FROM policies WHERE domain = ?",
            (domain,),
        ).fetchone()
        return None if row is None else KeptPolicy(row[0], parse_policy(row[1]), row[2])

    def keep(self, domain: str, kept: KeptPolicy) -> None:
        octets = "\n".join(kept.policy.lines).encode()
        self._connection.execute(
            "INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?)",
            (domain, kept.id, octets, kept.fetched_at_utc),
        )

    def older_than(self, fetched_at_utc: float) -> list[str]:
        """Return the domains whose policies were fetched before that."""
        rows = self._connection.execute(
            "SELECT domain FROM policies WHERE fetched_at_utc < ?", (fetched_at_utc,)
        )
        return [domain for (domain,) in rows]

    def forget(self, domain: str) -> None:
        """Remove the policy of a domain."""
        self._connection.execute("DELETE FROM policies WHERE domain = ?", (domain,))

    def count(self, sessions: Iterable[Sessions]) -> None:
        """Add to the counts; beyond `MAX_KINDS` nothing new is counted."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for one in sessions:
                key = (one.day, one.domain, one.policy, one.failure)
                (kinds,) = connection.execute(
                    "SELECT count(*) FROM sessions WHERE day = ? AND domain = ?"
                    " AND (policy, failure) != (?, ?)",
                    key,
                ).fetchone()
                if kinds < MAX_KINDS:
                    connection.execute(
                        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?) ON CONFLICT"
                        " DO UPDATE SET count = count + excluded.count",
                        (*key, one.count),
                    )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def unreported(self, before_day: int) -> list[tuple[int, str]]:
        """Return days that are over with domains that have had no report of them."""
        rows = self._connection.execute(
            "SELECT DISTINCT day, domain FROM sessions WHERE day < ?"
            " AND (day, domain) NOT IN (SELECT day, domain FROM reported)",
            (before_day,),
        )
        return list(rows)

    def sessions(self, day: int, domain: str) -> list[Sessions]:
        rows = self._connection.execute(
            "SELECT * FROM sessions WHERE day = ? AND domain = ?", (day, domain)
        )
        return [Sessions(*row) for row in rows]

    def mark(self, day: int, domain: str) -> bool:
        """Say that a report goes out now; False: one has gone before."""
        marked = self._connection.execute(
            "INSERT OR IGNORE INTO reported VALUES (?, ?)", (day, domain)
        )
        return marked.rowcount == 1

    def remove(self, before_day: int) -> None:
        """Forget all counts of days before that."""
        for table in ("sessions", "reported"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE day < ?",  # noqa: S608  our own names
                (before_day,),
            )


def merged(sessions: Iterable[Sessions]) -> Iterator[Sessions]:
    """Add up what went the same way."""
    counts: dict[tuple[int, str, str, str], int] = {}
    for one in sessions:
        key = (one.day, one.domain, one.policy, one.failure)
        counts[key] = counts.get(key, 0) + one.count
    for key, count in counts.items():
        yield Sessions(*key, count)
