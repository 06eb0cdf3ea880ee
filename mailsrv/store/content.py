"""Ready bytes: what is dear to compute of a message, kept in the index.

All of it can be computed again, so it is written in commits that are not synced,
and any thread may fill what is missing.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

from mailsrv.mime.header import MAX_HEADER, header_end, select
from mailsrv.mime.served import Content, LineCounter, to_crlf
from mailsrv.mime.summary import Summary, summary
from mailsrv.store.index import unsynced
from mailsrv.store.maildir import Entry, open_file, path_of
from mailsrv.store.schema import HEADER_KEYS
from mailsrv.store.values import MessageGone

BATCH_MESSAGES = 100  # in one transaction
MEASURED_MESSAGES = 200
BATCH_OCTETS = 4 * 1024 * 1024  # of files read for one transaction
BATCH_FIELDS = 1000  # deleted in one transaction
UNUSED_DAYS = 7  # after which a set of header fields makes room for another
MAX_HEADER_KEYS = 8  # sets of fields that are kept: some kinds of client each
_WHOLE_OCTETS = 1024 * 1024  # a larger file is read piece by piece
_PIECE_OCTETS = 256 * 1024
_HEADER_OCTETS = 8 * 1024  # most headers are shorter


def among(uids: Sequence[int]) -> tuple[str, tuple[int | str, ...]]:
    """Return an SQL condition on uid, and its values; `uids` holds each once.

    Where there are no gaps a range is read in half the time of a list.
    """
    if uids and (last := max(uids)) - (first := min(uids)) == len(uids) - 1:
        return "uid BETWEEN ? AND ?", (first, last)
    return "uid IN (SELECT value FROM json_each(?))", (dumps(list(uids)),)


def header_key(names: Iterable[bytes], *, exclude: bool = False) -> bytes:
    """Name a set of header fields, however a client orders and spells it."""
    joined = b" ".join(sorted({name.lower() for name in names}))
    return b"!" + joined if exclude else joined


def select_key(header: bytes, key: bytes) -> bytes:
    """Return the fields of a set, ready for the wire: a literal holds no NUL."""
    exclude = key.startswith(b"!")
    names = set(key.lstrip(b"!").split())
    fields = select(to_crlf(header), names, exclude=exclude)
    return fields.replace(b"\0", b"\x80")  # RFC 3501 section 4.3


def _header(content: Content) -> bytes:
    """Return the header block of a message's file, as much of it as counts."""
    for octets in (_HEADER_OCTETS, MAX_HEADER):
        head = content[:octets]
        end = header_end(head)
        if end < octets:
            break
    return head[:end]


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A message whose ready bytes are to be computed."""

    entry: Entry
    content: int


def unfilled(
    connection: sqlite3.Connection, mailbox: int, uids: Sequence[int]
) -> list[Unfilled]:
    """Find those of `uids` that have no ready bytes."""
    return [
        Unfilled(Entry(base + info, bool(in_new)), content)
        for in_new, base, info, content in connection.execute(
            "SELECT in_new, base, info, content"
            " FROM message m LEFT JOIN content c ON c.id = content"
            " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))"
            " AND (c.id IS NULL OR NOT exact)",
            (mailbox, dumps(list(uids))),
        )
    ]


class FileOctets:
    """An open file as a message's octets, with a piece of it in memory.

    Not a map of the file: who reads that where another program has cut the file
    is killed. Here what is gone is missing from a slice.
    """

    def __init__(self, fd: int, octets: int) -> None:
        self._fd = fd
        self._octets = octets
        self._start, self._piece = 0, b""

    def __len__(self) -> int:
        return self._octets

    def __getitem__(self, place: slice, /) -> bytes:
        start, stop, _ = place.indices(self._octets)
        stop = max(start, stop)
        first = start - self._start
        if 0 <= first and stop - self._start <= len(self._piece):
            return self._piece[first : stop - self._start]
        return os.pread(self._fd, stop - start, start)

    def find(self, octets: bytes, start: int = 0, end: int | None = None, /) -> int:
        end = self._octets if end is None else min(end, self._octets)
        while start + len(octets) <= end:
            first = start - self._start
            if not 0 <= first <= len(self._piece) - len(octets):
                self._start, first = start, 0
                self._piece = os.pread(self._fd, _PIECE_OCTETS, start)
            found = self._piece.find(octets, first, end - self._start)
            if found >= 0:
                return self._start + found
            start = self._start + len(self._piece) - len(octets) + 1
            if start <= self._start + first:
                break  # the file was cut
        return -1


def file_content(fd: int, octets: int) -> Content:
    """Give the content of an open file, a large one at little cost of memory."""
    if octets <= _WHOLE_OCTETS:
        return os.pread(fd, octets, 0)
    return FileOctets(fd, octets)


@dataclass(frozen=True, slots=True)
class Filled:
    """Ready bytes of one message, on the way to the index."""

    summary: Summary
    fields: tuple[tuple[int, bytes], ...]


def header_keys(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    """Return the sets of header fields that are kept for each message."""
    return connection.execute("SELECT id, key FROM header_key").fetchall()


def read_message(
    directory: Path, entry: Entry, keys: Sequence[tuple[int, bytes]]
) -> Filled:
    """Compute the ready bytes of a message. Raises as `open_file` does."""
    fd, status = open_file(path_of(directory, entry))
    try:
        content = file_content(fd, status.st_size)
        found = summary(content)
        fields: tuple[tuple[int, bytes], ...] = ()
        if keys:
            header = _header(content)
            fields = tuple((number, select_key(header, key)) for number, key in keys)
    finally:
        os.close(fd)
    return Filled(found, fields)


def put(connection: sqlite3.Connection, messages: Sequence[tuple[int, Filled]]) -> None:
    """Write ready bytes by content number, in the caller's transaction."""
    connection.executemany(
        "INSERT OR IGNORE INTO content VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_content_row(content, filled.summary) for content, filled in messages],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO sort_key VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_sort_key_row(content, filled.summary) for content, filled in messages],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO header_fields VALUES (?, ?)",
        [
            (content * HEADER_KEYS + key, value)
            for content, filled in messages
            for key, value in filled.fields
        ],
    )


def _content_row(content: int, found: Summary) -> tuple[object, ...]:
    return (
        content,
        found.size_octets,
        found.sent.day if found.sent else None,
        found.envelope,
        found.repeats,
        found.body,
        found.bodystructure,
        found.structure,
        found.checkpoints,
        found.preview,
        found.thread_root,
    )


def _sort_key_row(content: int, found: Summary) -> tuple[object, ...]:
    return (content, found.sent.at_utc if found.sent else None, *found.sort_keys)


def _write(
    connection: sqlite3.Connection, batch: Sequence[tuple[Unfilled, Filled]]
) -> None:
    """Write ready bytes in a transaction of their own; correct guessed sizes."""
    with unsynced(connection):
        put(connection, [(message.content, filled) for message, filled in batch])
        sizes = [(f.summary.size_octets, message.content) for message, f in batch]
        _correct(connection, sizes)


def _correct(connection: sqlite3.Connection, sizes: Sequence[tuple[int, int]]) -> None:
    """Settle RFC822.SIZE by content number: names said nothing of it, or lied.

    Copies are settled too: they share the number.
    """
    contents = dumps([content for _, content in sizes])
    before = _octets(connection, contents)
    connection.executemany(
        "UPDATE message SET size_octets = ?1, exact = 1"
        " WHERE content = ?2 AND (size_octets != ?1 OR NOT exact)",
        sizes,
    )
    for mailbox, octets in _octets(connection, contents).items():
        if grown := octets - before[mailbox]:
            connection.execute(
                "UPDATE mailbox SET octets = octets + ? WHERE id = ?", (grown, mailbox)
            )


def _octets(connection: sqlite3.Connection, contents: str) -> dict[int, int]:
    """Return by mailbox what messages of these content numbers take in all."""
    return dict(
        connection.execute(
            "SELECT mailbox, sum(size_octets) FROM message INDEXED BY message_content"
            " WHERE content IN (SELECT value FROM json_each(?)) GROUP BY mailbox",
            (contents,),
        ).fetchall()
    )


def fill(
    connection: sqlite3.Connection, directory: Path, messages: Sequence[Unfilled]
) -> None:
    """Compute and write the ready bytes of `messages`, in short transactions.

    A file that is not where the index has it is passed over: sync knows what
    became of it.
    """
    keys = header_keys(connection)
    batch: list[tuple[Unfilled, Filled]] = []
    octets = 0
    for message in messages:
        try:
            filled = read_message(directory, message.entry, keys)
        except (FileNotFoundError, MessageGone):
            continue
        batch.append((message, filled))
        octets += filled.summary.file_octets
        if len(batch) >= BATCH_MESSAGES or octets >= BATCH_OCTETS:
            _write(connection, batch)
            batch, octets = [], 0
    if batch:
        _write(connection, batch)


def measure(
    connection: sqlite3.Connection, directory: Path, messages: Sequence[Unfilled]
) -> None:
    """Settle the RFC822.SIZE of `messages`, and nothing else: a tenth of `fill`."""
    for start in range(0, len(messages), MEASURED_MESSAGES):
        sizes: list[tuple[int, int]] = []
        for message in messages[start : start + MEASURED_MESSAGES]:
            try:
                fd, status = open_file(path_of(directory, message.entry))
            except (FileNotFoundError, MessageGone):
                continue
            try:
                content = file_content(fd, status.st_size)
                octets = LineCounter(content).advance(len(content))
            finally:
                os.close(fd)
            sizes.append((octets, message.content))
        with unsynced(connection):
            _correct(connection, sizes)


def guessed(connection: sqlite3.Connection, mailbox: int) -> list[Unfilled]:
    """Find the messages whose RFC822.SIZE is not known."""
    return [
        Unfilled(Entry(base + info, bool(in_new)), content)
        for in_new, base, info, content in connection.execute(
            "SELECT in_new, base, info, content FROM message"
            " WHERE mailbox = ? AND NOT exact",
            (mailbox,),
        )
    ]


def mark_used(connection: sqlite3.Connection, key: bytes, day: int) -> None:
    """Note that a set of header fields was asked for on this day."""
    with unsynced(connection):
        connection.execute(
            "UPDATE header_key SET used_day = ? WHERE key = ?", (day, key)
        )


def _admit(connection: sqlite3.Connection, key: bytes, day: int) -> None:
    """Keep a set of header fields from now on, if there is room for it.

    The one that was not asked for in the longest time makes room, after a week:
    a client that asks for ever other sets must not drive out those of all others.
    """
    with unsynced(connection):
        (known,) = connection.execute(
            "SELECT count(*) FROM header_key WHERE key = ?", (key,)
        ).fetchone()
        keys, last = connection.execute(
            "SELECT count(*), coalesce(max(id), 0) FROM header_key"
        ).fetchone()
        if known or last >= HEADER_KEYS - 1:
            return
        gone = None
        if keys >= MAX_HEADER_KEYS:
            gone = connection.execute(
                "DELETE FROM header_key WHERE id = (SELECT id FROM header_key"
                " WHERE used_day < ? ORDER BY used_day LIMIT 1) RETURNING id",
                (day - UNUSED_DAYS,),
            ).fetchone()
        if keys < MAX_HEADER_KEYS or gone:
            connection.execute(
                "INSERT INTO header_key (key, used_day) VALUES (?, ?)", (key, day)
            )
    if gone:
        _drop_fields(connection, gone[0])


def _drop_fields(connection: sqlite3.Connection, key: int) -> None:
    """Delete the fields of a set, in short transactions."""
    ids = connection.execute(
        "SELECT id FROM header_fields WHERE id % ? = ?", (HEADER_KEYS, key)
    ).fetchall()
    for at in range(0, len(ids), BATCH_FIELDS):
        with unsynced(connection):
            connection.executemany(
                "DELETE FROM header_fields WHERE id = ?", ids[at : at + BATCH_FIELDS]
            )


def kept_fields(
    connection: sqlite3.Connection, mailbox: int, uids: Sequence[int], key: bytes
) -> dict[int, bytes]:
    """Return a set of header fields of the messages of which it is kept."""
    row = connection.execute(
        "SELECT id FROM header_key WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return {}
    condition, values = among(uids)
    found: dict[int, bytes] = {}
    for table in ("message", "expunged"):
        if len(found) < len(uids):
            found |= connection.execute(
                f"SELECT uid, value FROM {table}"  # noqa: S608  # constants
                f" JOIN header_fields ON id = content * {HEADER_KEYS} + ?"
                f" WHERE mailbox = ? AND {condition}",
                (*row, mailbox, *values),
            ).fetchall()
    return found


def make_fields(
    connection: sqlite3.Connection,
    directory: Path,
    mailbox: int,
    uids: Sequence[int],
    key: bytes,
    day: int,
) -> dict[int, bytes]:
    """Return a set of header fields that is not kept; keep it from now on.

    Unless `MAX_HEADER_KEYS` sets are kept, and all of them in use. A message whose
    file is not found is left out. `day` is today, counted from 1970-01-01.
    """
    numbers = {kept: number for number, kept in header_keys(connection)}
    if key not in numbers:
        _admit(connection, key, day)
        numbers = {kept: number for number, kept in header_keys(connection)}
    number = numbers.get(key)
    found: dict[int, bytes] = {}
    made: list[tuple[int, bytes]] = []
    sizes: list[tuple[int, int]] = []
    for uid, base, info, in_new, content, exact in connection.execute(
        "SELECT uid, base, info, in_new, content, exact FROM message"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
        (mailbox, dumps(list(uids))),
    ).fetchall():
        try:
            fd, status = open_file(path_of(directory, Entry(base + info, bool(in_new))))
        except (FileNotFoundError, MessageGone):
            continue
        try:
            if exact:
                octets: Content = FileOctets(fd, status.st_size)
            else:  # its size is asked for next, or before long
                octets = file_content(fd, status.st_size)
                counter = LineCounter(octets)
                sizes.append((counter.advance(status.st_size), content))
            found[uid] = select_key(_header(octets), key)
        finally:
            os.close(fd)
        if number is not None:
            made.append((content * HEADER_KEYS + number, found[uid]))
    with unsynced(connection):
        connection.executemany(
            "INSERT OR IGNORE INTO header_fields VALUES (?, ?)", made
        )
        _correct(connection, sizes)
    return found
