"""The queue's rows: durable when a call returns. One process writes; blocking.

At most a few rows are in memory at a time: a queue may hold a newsletter's 100,000.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from threading import Lock

from mailsrv.queue.schema import MIGRATIONS
from mailsrv.queue.values import (
    Answer,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)

BUSY_TIMEOUT_S = 10.0

_MESSAGE = ", ".join(field.name for field in fields(Message))
_ANSWER = "code, enhanced_code, text, at_utc, peer, tls"
_RECIPIENT = (
    "message, forward_path, destination, next_at_utc, state, notify, orcpt, attempts,"
    f" warned, {_ANSWER}, id"
)


class QueueTooNew(Exception):
    """A later mailsrv has written the file; its format is unknown here."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients an admin means; empty fields mean all."""

    message: str = ""
    sender: str = ""  # reverse-path or account
    recipient: str = ""
    destination: str = ""
    reason: str = ""  # part of the last answer
    state: State | None = None


class QueueDatabase:
    """``queue.sqlite``. One connection serves all threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        path.chmod(0o600)
        self._migrate()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, messages: Iterable[tuple[Message, Sequence[Recipient]]]) -> None:
        """Take messages in, all in one transaction; their spool files are durable.

        A message that is there already (its commit was made, but not heard of) stays
        as it is.
        """
        with self._transaction() as connection:
            self._add(connection, messages)

    def settle(
        self,
        results: Iterable[Result],
        reports: Iterable[tuple[Message, Sequence[Recipient]]] = (),
    ) -> list[str]:
        """Write what became of recipients, and the reports that tell their senders.

        All in one transaction: no report is sent twice or lost. Returns the ids of
        messages that are settled as a whole: their rows are gone, their spool files
        may go.
        """
        with self._transaction() as connection:
            self._add(connection, reports)
            touched: set[str] = set()
            for result in results:
                if result.next_at_utc is None:
                    touched.add(result.recipient.message)
                answer = result.answer or result.recipient.answer
                connection.execute(
                    "UPDATE recipient SET state = ?, next_at_utc = ?,"
                    " attempts = attempts + ?, warned = max(warned, ?), code = ?,"
                    " enhanced_code = ?, text = ?, at_utc = ?, peer = ?, tls = ?"
                    " WHERE id = ?",
                    (
                        result.state,
                        result.next_at_utc,
                        result.attempted,
                        result.warned,
                        *_answer_row(answer),
                        result.recipient.id,
                    ),
                )
            return [id for id in touched if self._finish(connection, id)]

    def due(
        self, now_utc: float, priority: Priority, limit: int, busy: Sequence[int] = ()
    ) -> list[Recipient]:
        """Return recipients of a priority whose time has come, longest due first.

        `busy` are the ids of those that are being tried.
        """
        marks = ", ".join("?" * len(busy))
        return self._recipients(
            "WHERE priority = ? AND next_at_utc <= ?"
            f" AND id NOT IN ({marks}) ORDER BY next_at_utc LIMIT ?",
            (priority, now_utc, *busy, limit),
        )

    def next_at_utc(self) -> float | None:
        """Return when the next recipient is due, None if there is nothing to do."""
        times = [
            self._rows(
                "SELECT min(next_at_utc) FROM recipient INDEXED BY recipient_due"
                " WHERE priority = ? AND next_at_utc NOT NULL",
                (priority,),
            )[0][0]
            for priority in Priority
        ]
        return min((time for time in times if time is not None), default=None)

    def message(self, id: str) -> Message | None:
        rows = self._rows(f"SELECT {_MESSAGE} FROM message WHERE id = ?", (id,))
        return _message(rows[0]) if rows else None

    def recipients(self, wanted: Filter, limit: int = -1) -> list[Recipient]:
        """Return the recipients that a filter means, by message in order of arrival."""
        where, values = _where(wanted)
        return self._recipients(f"WHERE {where} ORDER BY id LIMIT ?", (*values, limit))

    def ids(self) -> set[str]:
        """Return the ids of all messages: other files in the spool are left-overs."""
        return {id for (id,) in self._rows("SELECT id FROM message", ())}

    def counts(self) -> dict[State, int]:
        rows = self._rows("SELECT state, count(*) FROM recipient GROUP BY state", ())
        return {State(state): count for state, count in rows}

    # Inside

    def _add(
        self,
        connection: sqlite3.Connection,
        messages: Iterable[tuple[Message, Sequence[Recipient]]],
    ) -> None:
        marks = ", ".join("?" * len(fields(Message)))
        for message, recipients in messages:
            cursor = connection.execute(
                f"INSERT OR IGNORE INTO message ({_MESSAGE}) VALUES ({marks})",
                astuple(message),
            )
            if not cursor.rowcount:
                continue
            connection.executemany(
                "INSERT INTO recipient (priority, message, forward_path, destination,"
                " next_at_utc, state, notify, orcpt, attempts, warned,"
                f" {_ANSWER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        message.priority,
                        message.id,
                        recipient.forward_path,
                        recipient.destination,
                        recipient.next_at_utc,
                        recipient.state,
                        recipient.notify,
                        recipient.orcpt,
                        recipient.attempts,
                        recipient.warned,
                        *_answer_row(recipient.answer),
                    )
                    for recipient in recipients
                ],
            )

    def _finish(self, connection: sqlite3.Connection, id: str) -> bool:
        """Remove a message of which nothing is left to do."""
        (left,) = connection.execute(
            "SELECT count(*) FROM recipient WHERE message = ? AND state IN (?, ?)",
            (id, State.WAITING, State.HELD),
        ).fetchone()
        if left:
            return False
        connection.execute("DELETE FROM recipient WHERE message = ?", (id,))
        connection.execute("DELETE FROM message WHERE id = ?", (id,))
        return True

    def _recipients(self, where: str, values: Sequence[object]) -> list[Recipient]:
        rows = self._rows(f"SELECT {_RECIPIENT} FROM recipient {where}", values)
        return [_recipient(row) for row in rows]

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()
