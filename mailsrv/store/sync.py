"""Bringing the index in step with a Maildir that other programs change.

What is to be trusted of a scan, and when a file counts as expunged: see `adopt`.
The order is always uidlist lock, uidlist, transaction on the index.
"""

import os
import sqlite3
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mailsrv.store import maildir
from mailsrv.store.durable import sync_folder
from mailsrv.store.index import (
    Box,
    bury,
    drop_box,
    new_box,
    save_box,
    take_contents,
    transaction,
    unsynced,
)
from mailsrv.store.keywords import Keywords
from mailsrv.store.maildir import Entry
from mailsrv.store.scanning import (
    Difference,
    Folder,
    Look,
    compare,
    is_known,
    look,
)
from mailsrv.store.uidlist import Reading, Record, Uidlist
from mailsrv.store.uidvalidity import next_uid_validity

TICK_NS = 10_000_000  # two changes within one tick of the kernel's clock look like one
# For files that a scan has missed; one scan under load misses 1 of 400.
FURTHER_SCANS = 4
MAX_RENAMES = 200  # in one transaction, so that no other process waits long


def sync(folder: Folder, *, force: bool = False, move_new: bool = True) -> Box:
    """Bring the index in step with the folder; return the mailbox's row.

    Costs two stats and a look into the uidlist if nothing has changed. With
    `move_new` what lies in new/ goes to cur/, as a client has seen it. Raises
    LockHeld, and then has changed nothing.
    """
    box = folder.box()
    stamps = folder.stamps()
    uidlist = folder.uidlist(box)
    in_step = uidlist.in_step()
    with_cur = with_new = True
    if box is not None and in_step and not force:
        with_cur = not box.cur_settled or box.cur_mtime_ns != stamps[1]
        with_new = not box.new_settled or box.new_mtime_ns != stamps[0]
    seen, difference = None, Difference()
    # Of a mailbox that is not known nothing can be missing: the look of `adopt` does.
    if box is not None and (with_cur or with_new):
        seen = look(folder, with_cur=with_cur)
        difference = compare(folder.connection, box, seen)
    if box is not None and in_step and not difference:
        if seen is not None:
            _remember(folder, box, seen)
        if not (move_new and _has_new(folder.connection, box)):
            return folder.known_box()
    with uidlist.lock:
        if box is None or not in_step or difference:
            with_cur = with_cur or bool(difference.missing)
            adopt(folder, uidlist, difference.missing, with_cur=with_cur)
        if move_new:
            move_new_to_cur(folder)
    return folder.known_box()


def _has_new(connection: sqlite3.Connection, box: Box) -> bool:
    row = connection.execute(
        "SELECT 1 FROM message INDEXED BY message_new"
        " WHERE mailbox = ? AND in_new LIMIT 1",
        (box.id,),
    ).fetchone()
    return row is not None


def _stamp(box: Box, seen: Look, *, settled: bool = True) -> None:
    """Remember what the folders looked like; not `settled`: look again."""
    box.new_mtime_ns, box.new_settled = seen.new.mtime_ns, seen.new.final and settled
    if seen.cur is not None:
        box.cur_mtime_ns = seen.cur.mtime_ns
        box.cur_settled = seen.cur.final and settled
    elif not settled:
        box.cur_settled = False


def _remember(folder: Folder, box: Box, seen: Look) -> None:
    old = (box.new_mtime_ns, box.new_settled, box.cur_mtime_ns, box.cur_settled)
    _stamp(box, seen)
    if old != (box.new_mtime_ns, box.new_settled, box.cur_mtime_ns, box.cur_settled):
        with unsynced(folder.connection):
            if (box := folder.known_box()) is not None:
                _stamp(box, seen)
                save_box(folder.connection, box)


@dataclass(slots=True)
class Arrival:
    """A message that the index takes in."""

    entry: Entry
    base: bytes
    flags: int
    size_octets: int
    exact: bool
    internal_date: int
    email_id: bytes | None = None
    content: int = 0  # 0: a new number
    changed_at: int = 0  # the file's ctime; of use only if its name has no time
    record: Record | None = None


def adopt(
    folder: Folder, uidlist: Uidlist, missing: Collection[bytes], *, with_cur: bool
) -> None:
    """Scan again under the uidlist lock and write what is found to the index.

    `missing` are the files that the first scan missed. A message is expunged only
    if this scan misses it too and no change of the folders can have come between:
    their times are the same after it, and were not of this very moment before it.
    """
    keywords = Keywords(folder.directory, folder.disk)
    keywords.refresh()
    seen = look(folder, with_cur=with_cur)
    new_ns, cur_ns = folder.stamps()
    steady = (
        with_cur
        and seen.cur is not None
        and (seen.new.mtime_ns, seen.cur.mtime_ns) == (new_ns, cur_ns)
        and max(new_ns, cur_ns) + TICK_NS < seen.started_ns
    )
    box = folder.box()
    uidlist.mark = box.mark if box else None
    reading = uidlist.refresh()
    if box is not None and uidlist.mark is None and _replaced(folder, box, seen):
        above, root = box.uid_validity, folder.root
        uid_validity = next_uid_validity(root, folder.now, above=above)
        uidlist.write((), uid_next=1, uid_validity=uid_validity)
    if box is not None and not reconcile(folder, uidlist, reading, box):
        with transaction(folder.connection):
            drop_box(folder.connection, box)
        box = None
    difference = compare(folder.connection, box, seen)
    arrivals, vanished = _arrivals(folder, difference.unknown, keywords)
    if not steady:
        arrivals += _overlooked(folder, reading, box, arrivals, keywords)
    _give_uids(folder, uidlist, reading, box, arrivals)
    with transaction(folder.connection):
        box = folder.box() or _first_row(folder, uidlist, arrivals)
        if uidlist.mark is not None:
            box.mark = uidlist.mark
        gone = difference.missing & set(missing) if steady else set()
        insert(folder, box, arrivals)
        _update_renamed(folder.connection, box, difference.renamed, keywords)
        _bury_files(folder, box, gone)
        folder.connection.execute("DELETE FROM intent WHERE target = ?", (box.name,))
        parted = _part_doubles(folder, seen) if difference.doubles else False
        settled = not (vanished or parted or difference.missing - gone)
        _stamp(box, seen, settled=settled)
        save_box(folder.connection, box)


def _replaced(folder: Folder, box: Box, seen: Look) -> bool:
    """Return whether files that the index knows by name have other content now.

    Asked when the uidlist is gone: somebody may have made the whole Maildir anew
    with the same names, and what the index has of the messages is wrong then.
    """
    entries = seen.entries()
    for base, internal_date in folder.connection.execute(
        "SELECT base, internal_date FROM message WHERE mailbox = ?", (box.id,)
    ):
        if (entry := entries.get(base)) is None:
            continue
        with suppress(FileNotFoundError):
            status = os.lstat(maildir.path_of(folder.directory, entry))
            if int(status.st_mtime) != internal_date:
                return True
    return False


def reconcile(folder: Folder, uidlist: Uidlist, reading: Reading, box: Box) -> bool:
    """Hold the uidlist against the index, which keeps a copy of its UIDs.

    A list that was lost, or has lost lines, is written from the index. Returns
    False if the list says otherwise than the index: then the list holds, and the
    index has nothing to tell of this mailbox.
    """
    mark = uidlist.mark
    if mark is not None and mark.uid_validity != box.uid_validity:
        return False
    if not reading.whole:
        return True
    listed = {record.base: record for record in reading.records}
    taken = {record.uid for record in reading.records}
    lost = []
    for uid, base, email_id, uidl, order in folder.connection.execute(
        "SELECT uid, base, email_id, pop3_uidl, pop3_order FROM message"
        " WHERE mailbox = ?",
        (box.id,),
    ):
        record = listed.get(base)
        if record is None and uid not in taken:
            lost.append(Record(uid, base, _fields(email_id, uidl, order)))
        elif record is None or record.uid != uid:
            return False
    if lost or mark is None:
        uidlist.write(
            sorted([*reading.records, *lost]),
            uid_next=max(box.uid_next, mark.uid_next if mark else 1),
            uid_validity=box.uid_validity,
            mailbox_id=mark.mailbox_id if mark else box.mailbox_id,
        )
    return True


def _fields(
    email_id: bytes | None, uidl: bytes | None = None, order: int | None = None
) -> bytes:
    """Return the fields of a uidlist record."""
    fields = []
    if uidl is not None:
        fields.append(b"P" + uidl)
    if order is not None:
        fields.append(b"O%d" % order)
    if email_id is not None:
        fields.append(b"G" + email_id)
    return b" ".join(fields)


def _arrivals(
    folder: Folder, unknown: Sequence[Entry], keywords: Keywords
) -> tuple[list[Arrival], bool]:
    """Look at the files that are new to us; also tell whether one was gone.

    They are looked at before they get a UID: none is spent on a file that another
    program has renamed, which the next scan finds.
    """
    arrivals = []
    vanished = False
    intents = _intents(folder)
    for entry in unknown:
        try:
            status = os.lstat(maildir.path_of(folder.directory, entry))
        except FileNotFoundError:
            vanished = True
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        name = maildir.parse(entry.name)
        # The name's word is good if what can be checked of it is right.
        exact = name.file_octets == status.st_size and (
            name.size_octets is not None and name.size_octets >= status.st_size
        )
        arrival = Arrival(
            entry,
            name.base,
            name.flags | keywords.extra.get(name.base, 0),
            (name.size_octets or 0) if exact else status.st_size,
            exact,
            int(status.st_mtime),
            changed_at=int(status.st_ctime),
        )
        if intent := intents.get(name.base):
            arrival.email_id, arrival.content = intent[0], intent[1]
        arrivals.append(arrival)
    return arrivals, vanished


def _overlooked(
    folder: Folder,
    reading: Reading,
    box: Box | None,
    arrivals: Sequence[Arrival],
    keywords: Keywords,
) -> list[Arrival]:
    """Find the files of new lines of the uidlist that the scan has missed.

    They were renamed just then. Later they could no longer have the UID that their
    line gives them, and that clients of the other server know: see `_give_uids`.
    """
    floor = box.uid_next if box else 1
    lost = {record.base for record in reading.records if record.uid >= floor}
    lost -= {arrival.base for arrival in arrivals}
    if box is not None:
        lost = {b for b in lost if not is_known(folder.connection, box, b)}
    found: list[Arrival] = []
    for _ in range(FURTHER_SCANS):
        if not lost:
            break
        entries = look(folder, with_cur=True).entries()
        there = [entries[base] for base in sorted(lost) if base in entries]
        found += _arrivals(folder, there, keywords)[0]
        lost -= {arrival.base for arrival in found}
    return found


def _intents(folder: Folder) -> dict[bytes, tuple[bytes, int]]:
    """Return what a MOVE was about to bring here when its process died.

    Its lock is ours now, so none is under way.
    """
    return {
        base: (email_id, content)
        for base, email_id, content in folder.connection.execute(
            "SELECT new_base, email_id, content FROM intent WHERE target = ?",
            (folder.name,),
        )
    }


def _give_uids(
    folder: Folder,
    uidlist: Uidlist,
    reading: Reading,
    box: Box | None,
    arrivals: list[Arrival],
) -> None:
    """Find the UIDs of arrivals in the uidlist, or append them to it, durably.

    A listed UID below the index's UIDNEXT was expunged: the file that is back gets
    a new one, since sessions cannot be told of a message between others.
    """
    floor = box.uid_next if box else 1
    listed = {record.base: record for record in reading.records}
    unlisted = []
    for arrival in arrivals:
        record = listed.get(arrival.base)
        if record is not None and (box is None or record.uid >= floor):
            arrival.record = record
            arrival.email_id = record.field(b"G") or arrival.email_id
        else:
            unlisted.append(arrival)
    unlisted.sort(key=lambda arrival: maildir.arrival_key(arrival.entry.name))
    # Files that are back under their old names, as Dovecot's MOVE brings them: two
    # lines for one file would be a fault of the list to Dovecot.
    bases = {arrival.base for arrival in unlisted}
    if box is not None and bases and (stale := uidlist.uids_of(bases)):
        uidlist.drop(stale, floor=floor)
    append(folder, uidlist, unlisted, floor)
    arrivals.sort(key=uid_of)


def uid_of(arrival: Arrival) -> int:
    return arrival.record.uid if arrival.record else 0


def append(
    folder: Folder, uidlist: Uidlist, arrivals: Sequence[Arrival], floor: int
) -> None:
    """Give the next UIDs to `arrivals`; the uidlist is durable on return."""
    entries = [(a.base, _fields(a.email_id)) for a in arrivals]
    try:
        uids = uidlist.append(entries, floor=floor)
    except OSError:
        if uidlist.mark is not None:  # the next append must be of the whole file
            with unsynced(folder.connection):
                if (box := folder.box()) is not None:
                    box.mark = uidlist.mark
                    save_box(folder.connection, box)
        raise
    for arrival, uid, (base, fields) in zip(arrivals, uids, entries, strict=True):
        arrival.record = Record(uid, base, fields)


def _first_row(folder: Folder, uidlist: Uidlist, arrivals: Sequence[Arrival]) -> Box:
    """Make the row of a mailbox. Recent is what still lies in new/."""
    mark = uidlist.mark
    assert mark is not None  # noqa: S101  # `append` has made the list
    box = new_box(folder.connection, folder.name, mark.uid_validity, folder.now())
    in_new = [uid_of(a) for a in arrivals if a.entry.in_new]
    box.recent_uid = min(in_new, default=mark.uid_next)
    return box


def insert(folder: Folder, box: Box, arrivals: Sequence[Arrival]) -> None:
    """Add the rows of `arrivals`, which have their UIDs, under one MODSEQ."""
    if not arrivals:
        return
    mod_seq = box.next_mod_seq()
    unnumbered = [arrival for arrival in arrivals if not arrival.content]
    first = take_contents(folder.connection, len(unnumbered), folder.now())
    for content, arrival in enumerate(unnumbered, first):
        arrival.content = content
    folder.connection.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_row(box, arrival, mod_seq) for arrival in arrivals],
    )
    box.messages += len(arrivals)
    box.octets += sum(arrival.size_octets for arrival in arrivals)
    box.uid_next = max(box.uid_next, uid_of(arrivals[-1]) + 1)


def _row(box: Box, arrival: Arrival, mod_seq: int) -> tuple[object, ...]:
    record = arrival.record
    assert record is not None  # noqa: S101  # given before
    order = record.field(b"O")
    return (
        box.id,
        record.uid,
        arrival.flags,
        mod_seq,
        arrival.entry.in_new,
        arrival.base,
        arrival.entry.name[len(arrival.base) :],
        arrival.size_octets,
        arrival.exact,
        arrival.internal_date,
        maildir.saved_at(arrival.base, arrival.changed_at),
        arrival.content,
        arrival.email_id,
        record.field(b"P"),
        int(order) if order is not None and order.isdigit() else None,
    )


def _update_renamed(
    connection: sqlite3.Connection,
    box: Box,
    renamed: Sequence[tuple[int, int, Entry]],
    keywords: Keywords,
) -> None:
    """Take over the flags of names that others have changed, under one MODSEQ."""
    mod_seq = 0
    for uid, old_flags, entry in renamed:
        base, letters, _ = maildir.split(entry.name)
        flags = maildir.to_flags(letters) | keywords.extra.get(base, 0)
        if flags != old_flags and not mod_seq:
            mod_seq = box.next_mod_seq()
        connection.execute(
            "UPDATE message SET flags = ?, in_new = ?, info = ?,"
            " mod_seq = CASE WHEN flags = ? THEN mod_seq ELSE ? END"
            " WHERE mailbox = ? AND uid = ?",
            (
                flags,
                entry.in_new,
                entry.name[len(base) :],
                flags,
                mod_seq,
                box.id,
                uid,
            ),
        )


def _bury_files(folder: Folder, box: Box, gone: Collection[bytes]) -> None:
    uids = []
    for base in gone:
        row = folder.connection.execute(
            "SELECT uid FROM message INDEXED BY message_base"
            " WHERE mailbox = ? AND base = ?",
            (box.id, base),
        ).fetchone()
        uids.append(row[0])
    bury(folder.connection, box, sorted(uids), folder.now())


def _part_doubles(folder: Folder, seen: Look) -> bool:
    """Part files of one base name, as final scans show them; True: look again."""
    names = maildir.UniqueNames("doubles", folder.now)
    parted = False
    for scan, in_new in ((seen.new, True), (seen.cur, False)):
        if scan is None or not scan.final:
            continue
        for double in scan.doubles:
            base, _, _ = maildir.split(double)
            sizes = base.partition(b",")
            maildir.part_doubles(
                folder.directory,
                Entry(scan.names[base], in_new),
                Entry(double, in_new),
                names.next() + sizes[1] + sizes[2],
            )
            parted = True
    return parted


def batches(items: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut `items` into the parts of several transactions."""
    for start in range(0, len(items), MAX_RENAMES):
        yield items[start : start + MAX_RENAMES]


def move_new_to_cur(folder: Folder) -> None:
    """Move what lies in new/ to cur/, under the uidlist lock.

    A file that is not where the index has it stays for the next scan.
    """
    moved = False
    after = 0
    while True:
        with transaction(folder.connection):
            box = folder.known_box()
            rows = folder.connection.execute(
                "SELECT uid, base, info, flags FROM message INDEXED BY message_new"
                " WHERE mailbox = ? AND in_new AND uid > ? ORDER BY uid LIMIT ?",
                (box.id, after, MAX_RENAMES),
            ).fetchall()
            done: list[tuple[bytes, int, int]] = []
            for uid, base, info, flags in rows:
                name = maildir.parse(base + info).with_flags(flags).format()
                old, new = Entry(base + info, True), Entry(name, False)
                if maildir.rename(folder.directory, old, new, folder.disk):
                    done.append((name[len(base) :], box.id, uid))
            folder.connection.executemany(
                "UPDATE message SET in_new = 0, info = ? WHERE mailbox = ? AND uid = ?",
                done,
            )
        moved = moved or bool(done)
        if len(rows) < MAX_RENAMES:
            break
        after = rows[-1][0]
    if moved:
        sync_folder(folder.cur, folder.disk)
