"""Messages in the order that SORT asks for, and what THREAD has to know of them.

From the index alone: `mime.sort_keys` has made it ready.
"""

import sqlite3
from collections.abc import Sequence
from json import dumps
from typing import NamedTuple

from mailsrv.store.values import UID, Criterion

# What `sorted_uids` can order by; "k" is the message's row of `sort_key`.
ORDERS = {
    "internal_date": "m.internal_date",
    "sent_at": "coalesce(k.sent_at, m.internal_date)",
    "size_octets": "m.size_octets",
    **{
        column: f"k.{column}"
        for column in (
            "subject",
            "from_mailbox",
            "to_mailbox",
            "cc_mailbox",
            "from_name",
            "to_name",
        )
    },
}


def sorted_uids(
    connection: sqlite3.Connection,
    mailbox: int,
    uids: Sequence[int],
    criteria: Sequence[Criterion],
) -> list[UID]:
    """Return those of `uids` that are ready, in order; then by UID.

    SQLite sorts, and lets other threads run meanwhile.
    """
    terms = "".join(
        ORDERS[criterion.column] + (" DESC, " if criterion.descending else ", ")
        for criterion in criteria
    )
    return [
        UID(uid)
        for (uid,) in connection.execute(
            "SELECT m.uid"  # noqa: S608  # constants of this module
            " FROM message m JOIN sort_key k ON k.content = m.content"
            " WHERE m.mailbox = ? AND m.uid IN (SELECT value FROM json_each(?))"
            " AND m.exact"
            f" ORDER BY {terms}m.uid",
            (mailbox, dumps(list(uids))),
        )
    ]


class ThreadRow(NamedTuple):  # read of every message: cheaper than a dataclass
    """What THREAD has to know of a message, see `mime.sort_keys`."""

    uid: UID
    sent_at: int
    subject: bytes
    is_reply: bool
    message_id: bytes
    reference_ids: bytes


def thread_rows(
    connection: sqlite3.Connection, mailbox: int, uids: Sequence[int]
) -> list[ThreadRow]:
    """Return the rows of those of `uids` that are ready, by UID."""
    return [
        ThreadRow(*row)
        for row in connection.execute(
            f"SELECT m.uid, {ORDERS['sent_at']}, k.subject, k.is_reply,"  # noqa: S608
            " k.message_id, k.reference_ids"  # constants of this module
            " FROM message m JOIN sort_key k ON k.content = m.content"
            " WHERE m.mailbox = ? AND m.uid IN (SELECT value FROM json_each(?))"
            " AND m.exact"
            " ORDER BY m.uid",
            (mailbox, dumps(list(uids))),
        )
    ]
