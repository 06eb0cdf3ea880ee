"""The queue's rows: durable when a call returns. One process writes; blocking.

Few rows are in memory at a time: a queue may hold a newsletter's 100,000.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any

from mailsrv.accounts.addresses import InvalidAddress, canonical_domain, shown
from mailsrv.queue.schema import MIGRATIONS
from mailsrv.queue.values import (
    Answer,
    Entry,
    Lane,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)

BUSY_TIMEOUT_S = 10.0

_MESSAGE = [field.name for field in fields(Message) if field.name != "once"]
_ANSWER = [field.name for field in fields(Answer)]
# What a row of `recipient` has of its own; the message's id is read by a join.
_RECIPIENT = [
    *("forward_path", "destination", "next_at_utc", "state", "notify", "orcpt"),
    *("original", "reverse_path", "prefix", "attempts", "warned"),
]
_READ_RECIPIENT = ", ".join(
    ["m.id", *(f"r.{name}" for name in (*_RECIPIENT, *_ANSWER)), "r.id"]
)
_READ_MESSAGE = ", ".join(f"m.{name}" for name in _MESSAGE)
_SELECT_PAIRS = (
    f"SELECT {_READ_MESSAGE}, {_READ_RECIPIENT} FROM recipient r"  # noqa: S608
    " JOIN message m ON m.number = r.message"
)


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608


_INSERT_MESSAGE = _insert("message", _MESSAGE)
_INSERT_RECIPIENT = _insert(
    "recipient", ["message", "priority", "sender", *_RECIPIENT, *_ANSWER]
)
_UPDATE = (
    "UPDATE recipient SET state = ?, next_at_utc = ?, attempts = attempts + ?,"  # noqa: S608
    f" warned = max(warned, ?), {' = ?, '.join(_ANSWER)} = ? WHERE id = ?"
)


class QueueUnavailable(Exception):
    """The queue of this folder cannot be used; the text says why."""


class QueueTooNew(QueueUnavailable):
    """A later mailsrv has written the file; its format is unknown here."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients an admin means; empty fields mean all."""

    message: str = ""
    sender: str = ""  # part of the account or reverse-path
    recipient: str = ""  # part of the forward-path
    destination: str = ""
    reason: str = ""  # part of the last answer
    state: State | None = None


class QueueDatabase:
    """``queue.sqlite``: a connection to write and one to read, so none waits long."""

    def __init__(self, path: Path, *, owner: bool = True) -> None:
        """Open the file, and make it; only its `owner` makes and changes it.

        Raises `QueueUnavailable`, OSError, sqlite3.Error.
        """
        if owner:
            path.touch(mode=0o600)
        self._writing, self._reading = Lock(), Lock()
        self._writer = _connect(path)
        if owner:
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
        self._migrate(path, owner=owner)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        for lock, connection in (
            (self._writing, self._writer),
            (self._reading, self._reader),
        ):
            with lock:
                connection.close()

    def write(
        self, new: Iterable[Entry], results: Iterable[Result]
    ) -> tuple[list[Entry], list[str]]:
        """Take messages in and write what became of recipients: one transaction.

        The files of new messages are durable. Returns them with the ids of their
        rows, and the files of messages of which nothing is left to do: their rows are
        gone, and no other message has the files. Of a message that is to be taken
        once (`Message.once`) and was before, nothing is taken: its entry is not
        among those returned.
        """
        with self._transaction() as connection:
            taken = [entry for one in new if (entry := _add(connection, one))]
            touched: dict[str, None] = {}
            for result in results:
                if result.next_at_utc is None:
                    touched[result.recipient.message] = None
                _settle(connection, result)
            finished = [file for id in touched if (file := _finish(connection, id))]
        return taken, finished

    def forget_words(self, before_utc: float) -> None:
        """Forget words of messages that were taken once (`Message.once`) before that.

        Else a newsletter a week would make the file grow for ever.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM once WHERE at_utc < ?", (before_utc,))

    def lanes(self) -> list[tuple[Lane, float]]:
        """Return who waits, and until when at least."""
        return [
            (Lane(Priority(priority), destination, sender), next_at)
            for priority, destination, sender, next_at in self._rows(
                "SELECT priority, destination, sender, min(next_at_utc) FROM recipient"
                " INDEXED BY recipient_lane WHERE next_at_utc NOT NULL"
                " GROUP BY priority, destination, sender",
                (),
            )
        ]

    def waiting(self, lane: Lane, limit: int) -> list[tuple[Message, Recipient]]:
        """Return the first of a lane, due or not, in the order of their times."""
        return self._pairs(
            f"{_SELECT_PAIRS} WHERE r.priority = ? AND r.destination = ?"
            " AND r.sender = ? AND r.next_at_utc NOT NULL"
            " ORDER BY r.next_at_utc, r.id LIMIT ?",
            (lane.priority, lane.destination, lane.sender, limit),
        )

    def message(self, id: str) -> Message | None:
        """Return a message by its id."""
        query = f"SELECT {_READ_MESSAGE} FROM message m WHERE id = ?"  # noqa: S608
        rows = self._rows(query, (id,))
        return _message(rows[0]) if rows else None

    def find(
        self, wanted: Filter, limit: int = -1, after: int = 0, *, settled: bool = True
    ) -> list[tuple[Message, Recipient]]:
        """Return what a filter means, by age; `after` the row of that id.

        `settled`: also those of which nothing is left to do.
        """
        where, values = _where(wanted)
        if not settled:
            where += f" AND r.state IN ('{State.WAITING}', '{State.HELD}')"
        return self._pairs(
            f"{_SELECT_PAIRS} WHERE {where} AND r.id > ? ORDER BY r.id LIMIT ?",
            (*values, after, limit),
        )

    def last_row(self) -> int:
        """Return the id of the recipient that came last; 0: there is none."""
        [(id,)] = self._rows("SELECT coalesce(max(id), 0) FROM recipient", ())
        return int(id)

    def rows(self, ids: Sequence[int]) -> dict[int, Recipient]:
        """Return recipients as they are now, by the ids of their rows."""
        marks = ", ".join("?" * len(ids))
        query = f"{_SELECT_PAIRS} WHERE r.id IN ({marks})"
        return {recipient.id: recipient for _, recipient in self._pairs(query, ids)}

    def files(self) -> set[str]:
        """Return the files of all messages: others in the spool are left-overs."""
        return {str(file) for (file,) in self._rows("SELECT file FROM message", ())}

    def counts(self) -> dict[State, int]:
        """Return how many recipients there are in each state."""
        rows = self._rows("SELECT state, count(*) FROM recipient GROUP BY state", ())
        return {State(str(state)): int(str(count)) for state, count in rows}

    # Inside

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        # Any: columns of all types.
        with self._reading:
            return self._reader.execute(query, values).fetchall()

    def _pairs(
        self, query: str, values: Sequence[object]
    ) -> list[tuple[Message, Recipient]]:
        split = len(_MESSAGE)
        return [
            (_message(row[:split]), _recipient(row[split:]))
            for row in self._rows(query, values)
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After some failures, a full disk for one, SQLite has done it itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _migrate(self, path: Path, *, owner: bool) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise QueueTooNew(f"{path} was written by a later version of mailsrv")
        if version == len(MIGRATIONS):
            return
        if not owner:
            raise QueueUnavailable(
                f"{path} was written by an earlier version of mailsrv: restart it"
            )
        with self._transaction() as connection:
            for step in MIGRATIONS[version:]:
                for statement in step.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    # SQLite's own lower() knows ASCII alone.
    connection.create_function("folded", 1, _folded, deterministic=True)
    return connection


def _folded(text: str | None) -> str:
    """Return a text to look for parts in: of a domain both spellings."""
    text = text or ""
    if "xn--" in text:
        text += f" {shown(text)}"
    return text.lower()


def _domain(text: str) -> str:
    try:
        return canonical_domain(text)
    except InvalidAddress:
        return text.lower()


def _add(connection: sqlite3.Connection, entry: Entry) -> Entry | None:
    """Insert a message; return it with the ids of its rows. None: it is there."""
    message, recipients = entry
    if (
        message.once
        and not connection.execute(
            "INSERT OR IGNORE INTO once VALUES (?, ?)",
            (message.once, message.arrived_at_utc),
        ).rowcount
    ):
        return None
    row = [getattr(message, name) for name in _MESSAGE]
    number = connection.execute(_INSERT_MESSAGE, row).lastrowid
    added = []
    for recipient in recipients:
        own = [getattr(recipient, name) for name in _RECIPIENT]
        head = (number, message.priority, message.reverse_path)
        row = [*head, *own, *_answer_row(recipient.answer)]
        id = connection.execute(_INSERT_RECIPIENT, row).lastrowid
        added.append(replace(recipient, id=id or 0))
    return message, tuple(added)


def _settle(connection: sqlite3.Connection, result: Result) -> None:
    row = (
        result.state,
        result.next_at_utc,
        result.attempted,
        result.warned,
        *_answer_row(result.answer or result.recipient.answer),
        result.recipient.id,
    )
    connection.execute(_UPDATE, row)


def _finish(connection: sqlite3.Connection, id: str) -> str | None:
    """Forget a message of which nothing is left to do; return a file that may go."""
    found = connection.execute(
        "SELECT number, file FROM message WHERE id = ?", (id,)
    ).fetchone()
    if found is None:
        return None
    number, file = found
    if connection.execute(
        "SELECT 1 FROM recipient WHERE message = ? AND state IN (?, ?) LIMIT 1",
        (number, State.WAITING, State.HELD),
    ).fetchone():
        return None
    connection.execute("DELETE FROM recipient WHERE message = ?", (number,))
    connection.execute("DELETE FROM message WHERE number = ?", (number,))
    others = connection.execute("SELECT 1 FROM message WHERE file = ? LIMIT 1", (file,))
    return None if others.fetchone() else str(file)


def _answer_row(answer: Answer | None) -> list[Any]:
    return [None if answer is None else getattr(answer, name) for name in _ANSWER]


def _message(row: Sequence[Any]) -> Message:
    values = dict(zip(_MESSAGE, row, strict=True))
    values["priority"] = Priority(values["priority"])
    for name in ("eight_bit", "smtputf8", "require_tls", "tls_optional"):
        values[name] = bool(values[name])
    return Message(**values)


def _recipient(row: Sequence[Any]) -> Recipient:
    """Read what `_READ_RECIPIENT` selects."""
    message, *columns, id = row
    values = dict(zip(_RECIPIENT, columns, strict=False))
    values["state"] = State(values["state"])
    values["warned"] = bool(values["warned"])
    said = dict(zip(_ANSWER, columns[len(_RECIPIENT) :], strict=True))
    answer = None
    if said["code"] is not None:
        answer = Answer(**{**said, "relayed": bool(said["relayed"])})
    return Recipient(message=message, answer=answer, id=id, **values)


def _where(wanted: Filter) -> tuple[str, list[object]]:
    """Return the condition of a filter; parts of texts are found in any case."""
    parts = [
        ("m.id = ?", wanted.message),
        ("instr(folded(r.sender) || ' ' || folded(m.account), ?)", wanted.sender),
        (
            "instr(folded(r.forward_path) || ' ' || folded(r.original), ?)",
            wanted.recipient,
        ),
        ("r.destination = ?", _domain(wanted.destination)),
        (
            "instr(folded(r.code || ' ' || r.enhanced_code || ' ' || r.text), ?)",
            wanted.reason,
        ),
        ("r.state = ?", wanted.state or ""),
    ]
    used = [(sql, value) for sql, value in parts if value]
    where = " AND ".join(sql for sql, _ in used) or "1"
    return where, [value if "=" in sql else value.lower() for sql, value in used]
