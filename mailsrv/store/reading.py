"""Reading messages: columns of the index, header fields, and octets of files.

Nothing here waits for a lock or writes what must last; it runs in any thread.
"""

import os
import sqlite3
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from mailsrv.mime.bodystructure import body_and_bodystructure
from mailsrv.mime.served import STEP, Content, LineCounter, seek, to_crlf
from mailsrv.mime.structure import Part, load, parse
from mailsrv.mime.summary import summary
from mailsrv.store.content import among, file_content
from mailsrv.store.index import Box
from mailsrv.store.maildir import Entry, open_file, path_of, scan
from mailsrv.store.pop3_uidl import Uidl
from mailsrv.store.values import UID, MessageGone, Row

_EMAIL_ID = "coalesce(m.email_id, m.base)"  # in `expunged` always its own column

# What `rows` can be asked for; "m" is the message, "c" its ready bytes.
COLUMNS = {
    "size_octets": "m.size_octets",
    "internal_date": "m.internal_date",
    "saved_at": "m.saved_at",
    "email_id": _EMAIL_ID,
    "thread_root": f"coalesce(c.thread_root, {_EMAIL_ID})",
    "preview": "c.preview",
    "sent_day": "c.sent_day",
    "envelope": "c.envelope",
    "repeats": "c.repeats",
    "body": "c.body",
    "bodystructure": "c.bodystructure",
    "structure": "c.structure",
}


def live_rows(
    connection: sqlite3.Connection,
    mailbox: int,
    uids: Sequence[int],
    columns: Sequence[str],
) -> dict[int, Row]:
    """Return the rows that are complete; what others lack must be filled first."""
    condition, values = among(uids)
    join = where = ""
    if are_ready_bytes(columns):
        join = " JOIN content c ON c.id = m.content"
    if "size_octets" in columns:
        where = " AND m.exact"
    selected = "".join(", " + COLUMNS[column] for column in columns)
    return {
        uid: row
        for uid, *row in connection.execute(
            # Constants of this module and of `among`.
            f"SELECT m.uid{selected} FROM message m{join}"  # noqa: S608
            f" WHERE m.mailbox = ? AND m.{condition}{where} ORDER BY m.uid",
            (mailbox, *values),
        )
    }


def expunged_rows(
    connection: sqlite3.Connection,
    mailbox: int,
    uids: Sequence[int],
    columns: Sequence[str],
) -> dict[int, Row]:
    """Return rows of expunged messages of which some session is not told yet."""
    condition, values = among(uids)
    selected = "".join(
        ", " + COLUMNS[column].replace(_EMAIL_ID, "m.email_id") for column in columns
    )
    ready = are_ready_bytes(columns)
    return {
        uid: row
        for uid, *row in connection.execute(
            f"SELECT m.uid{selected}"  # noqa: S608  # constants of this module
            " FROM expunged m LEFT JOIN content c ON c.id = m.content"
            f" WHERE m.mailbox = ? AND m.{condition}"
            " AND m.content NOT NULL AND (c.id NOT NULL OR NOT ?)",
            (mailbox, *values, ready),
        )
    }


def are_ready_bytes(columns: Sequence[str]) -> bool:
    """Return whether one of these columns is computed from a message's content."""
    return any("c." in COLUMNS[column] for column in columns)


class MessageFile:
    """An open message; `read` gives octets as they are served, from any place.

    Close it. Once open it can be read to its end, even if it is expunged.
    """

    def __init__(
        self, fd: int, size_octets: int, structure: bytes | None, checkpoints: bytes
    ) -> None:
        """`structure` None: it is computed when somebody asks for it."""
        self.size_octets = size_octets
        self._fd = fd
        self._structure = structure
        self._checkpoints = checkpoints
        self._reached = (0, 0)  # where the last read ended: in the file, as served

    def structure(self) -> Part:
        """Return the tree of the message's parts; their offsets are for `read`."""
        if self._structure is None:
            self._structure = summary(self._content()).structure
        return load(self._structure)

    def nested_global(self) -> tuple[bytes, bytes]:
        """Compute BODY and BODYSTRUCTURE as IMAP4rev2 has them."""
        return body_and_bodystructure(parse(self._content()), nest_global=True)

    def _content(self) -> Content:
        return file_content(self._fd, os.fstat(self._fd).st_size)

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` served octets from `offset`, fewer only at the end.

        Costs what it returns, not what lies before it.
        """
        place, served = seek(self._checkpoints, offset)
        if served <= self._reached[1] <= offset:
            place, served = self._reached
        after_cr = place > 0 and os.pread(self._fd, 1, place - 1) == b"\r"
        pieces: list[bytes] = []
        left = min(count, self.size_octets - offset)  # no call only to see the end
        while left > 0 and (raw := os.pread(self._fd, min(STEP, left + 1), place)):
            piece = to_crlf(raw, after_cr=after_cr)
            wanted = piece[max(0, offset - served) :][:left]
            pieces.append(wanted)
            left -= len(wanted)
            after_cr = raw.endswith(b"\r")
            if left:
                place += len(raw)
                served += len(piece)
        self._reached = (place, served)
        return b"".join(pieces)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> "MessageFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SmallMessageFile(MessageFile):
    """A message of which the whole file was read at once, as most are."""

    def __init__(self, octets: bytes, structure: bytes | None) -> None:
        self._octets = octets
        self._served = to_crlf(octets)
        self.size_octets = len(self._served)
        self._structure = structure

    def _content(self) -> Content:
        return self._octets

    def read(self, offset: int, count: int) -> bytes:
        return self._served[offset : offset + count]

    def close(self) -> None:
        """Nothing is open."""


def find(directory: Path, base: bytes) -> Entry | None:
    """Look for the file of a base name, which another program has renamed."""
    for _ in range(2):  # one scan may miss a file that is renamed just then
        for in_new, sub in ((True, "new"), (False, "cur")):
            name = scan(directory / sub).names.get(base)
            if name is not None:
                return Entry(name, in_new)
    return None


def open_entry(directory: Path, entry: Entry) -> tuple[int, os.stat_result]:
    """Open a message's file, by whatever name it has now. Raises MessageGone."""
    for _ in range(3):
        try:
            return open_file(path_of(directory, entry))
        except FileNotFoundError:
            found = find(directory, entry.name.partition(b":")[0])
            if found is None:
                break
            entry = found
    raise MessageGone("the message is gone")


class Located(NamedTuple):  # made for every message: cheaper than a dataclass
    """Where the index has a message's file, and what it takes to serve it."""

    directory: Path
    entry: Entry
    internal_date: int
    # These three are there once the message was filled, if they were looked up.
    size_octets: int | None
    structure: bytes | None
    checkpoints: bytes | None

    def open(self) -> MessageFile:
        """Open the message's octets. Raises MessageGone."""
        fd, status = open_entry(self.directory, self.entry)
        # Else the file was renamed when it was to be filled, or somebody has written
        # another one of its name.
        known = int(status.st_mtime) == self.internal_date
        structure = self.structure if known else None
        if status.st_size <= STEP:
            try:
                return SmallMessageFile(os.pread(fd, status.st_size, 0), structure)
            finally:
                os.close(fd)
        if structure is not None and self.size_octets is not None:
            return MessageFile(fd, self.size_octets, structure, self.checkpoints or b"")
        counter = LineCounter(file_content(fd, status.st_size))
        size_octets = counter.advance(status.st_size)
        return MessageFile(fd, size_octets, None, counter.checkpoints())


def locate(
    connection: sqlite3.Connection,
    mailbox: int,
    directory: Path,
    uids: Sequence[int],
    *,
    structures: bool = True,
) -> dict[int, Located]:
    """Look up messages that are to be opened.

    Without `structures` what is read at once is looked up in half the time.
    """
    condition, values = among(uids)
    least_octets = 0 if structures else STEP + 1
    return {
        uid: Located(directory, Entry(base + info, bool(in_new)), *rest)
        for uid, base, info, in_new, *rest in connection.execute(
            "SELECT uid, base, info, in_new, internal_date,"  # noqa: S608  # as above
            " c.size_octets, c.structure, c.checkpoints FROM message m"
            " LEFT JOIN content c ON c.id = iif(m.size_octets >= ?, m.content, NULL)"
            f" WHERE mailbox = ? AND {condition}",
            (least_octets, mailbox, *values),
        )
    }


def contents(
    connection: sqlite3.Connection, mailbox: int, uids: AbstractSet[UID]
) -> dict[UID, int]:
    """Return the content numbers of messages that are there."""
    condition, values = among(sorted(uids))
    rows = connection.execute(
        # Of constants of `among`.
        "SELECT uid, content FROM message"  # noqa: S608
        f" WHERE mailbox = ? AND {condition}",
        (mailbox, *values),
    )
    return {uid: content for uid, content in rows if uid in uids}


def contents_after(
    connection: sqlite3.Connection, content: int, count: int
) -> list[tuple[int, str, int]]:
    """Return content number, mailbox and UID of messages above a content number.

    Ascending; a message and its copies share the number.
    """
    return connection.execute(
        "SELECT content, name, uid FROM message INDEXED BY message_content"
        " JOIN mailbox ON mailbox.id = mailbox"
        " WHERE content > ? ORDER BY content LIMIT ?",
        (content, count),
    ).fetchall()


def uidls(
    connection: sqlite3.Connection, box: Box, make: Uidl
) -> list[tuple[UID, bytes, int]]:
    """Return UID, UIDL and size in POP3's order.

    The UIDL of the uidlist's P field, else what Dovecot would `make`: so no
    client downloads anything again. Messages with an O field come first, as there.
    """
    return [
        (UID(uid), uidl or make(uid, box.uid_validity, email_id or base, base), size)
        for uid, uidl, size, email_id, base in connection.execute(
            "SELECT uid, pop3_uidl, size_octets, email_id, base FROM message"
            " WHERE mailbox = ? ORDER BY pop3_order IS NULL, pop3_order, uid",
            (box.id,),
        )
    ]
