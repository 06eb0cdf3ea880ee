"""COPY and MOVE inside an account: links and renames, then uidlists, then index.

Keyword letters belong to a folder, so they are translated by name. What a message
is (its id, its ready bytes) goes with it.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from json import dumps

from mailsrv.store import maildir
from mailsrv.store.durable import sync_folder
from mailsrv.store.flags import Finder, Message
from mailsrv.store.index import bury, save_box, transaction
from mailsrv.store.keywords import LETTERS_MASK, Keywords
from mailsrv.store.maildir import Entry, MaildirName, UniqueNames
from mailsrv.store.scanning import Folder
from mailsrv.store.sync import Arrival, adopt, append, insert, uid_of
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import (
    FIRST_KEYWORD_BIT,
    SYSTEM_MASK,
    MessageGone,
    TooManyKeywords,
)

COPY_OCTETS = 1 << 22


@dataclass(slots=True)
class Transferred:
    """UIDs in step with each other."""

    source_uids: list[int]
    target_uids: list[int]


class Translation:
    """Flags of one folder as flags of another, by the names of keywords."""

    def __init__(self, source: Keywords, target: Keywords) -> None:
        self._source = source.names
        self._target = target
        self._bits: dict[int, int] = {}

    def flags(self, flags: int) -> int:
        """Translate a mask; a new keyword is durable in the target first.

        A keyword for which the target has no room is left behind.
        """
        found = flags & SYSTEM_MASK
        rest = flags >> FIRST_KEYWORD_BIT
        place = 0
        while rest:
            if rest & 1:
                found |= self._bit(place)
            rest >>= 1
            place += 1
        return found

    def _bit(self, place: int) -> int:
        if place not in self._bits:
            name = self._source[place] if place < len(self._source) else None
            bit = 0
            if name:
                with suppress(TooManyKeywords):
                    bit = self._target.ensure([name])
            self._bits[place] = bit
        return self._bits[place]


@dataclass(slots=True)
class Transfer:
    """One message on its way: where it is, and what it will be in the target."""

    message: Message
    arrival: Arrival
    translation: Translation

    def aim(self) -> None:
        """Settle flags and name in the target, from those that it has now."""
        arrival = self.arrival
        kept = maildir.parse(self.message.entry.name)
        letters = "".join(x for x in kept.letters if not maildir.to_flags(x))
        arrival.flags = self.translation.flags(self.message.flags)
        name = MaildirName(arrival.base, letters, kept.rest).with_flags(arrival.flags)
        arrival.entry = Entry(name.format(), in_new=False)


def lock_both(stack: ExitStack, source: Folder, target: Folder) -> Uidlist:
    """Take both uidlist locks in the order of names; return the target's list."""
    uidlists = {f.name: f.uidlist(None) for f in (source, target)}
    for name in sorted(uidlists):
        stack.enter_context(uidlists[name].lock)
    uidlist = uidlists[target.name]
    box = target.box()
    uidlist.mark = box.mark if box else None
    if box is None or not uidlist.in_step():
        adopt(target, uidlist, (), with_cur=True)
    uidlist.mark = target.known_box().mark
    return uidlist


def _load(
    source: Folder, target: Folder, names: UniqueNames, uids: Sequence[int]
) -> tuple[list[Transfer], Keywords]:
    """Prepare the transfer of those `uids` that exist, with names of their own."""
    source_keywords = Keywords(source.directory, source.disk)
    target_keywords = Keywords(target.directory, target.disk)
    source_keywords.refresh()
    target_keywords.refresh()
    translation = Translation(source_keywords, target_keywords)
    transfers = []
    for row in source.connection.execute(
        "SELECT uid, flags, mod_seq, base, info, in_new, size_octets, exact,"
        " internal_date, content, coalesce(email_id, base) FROM message"
        " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid",
        (source.known_box().id, dumps(list(uids))),
    ).fetchall():
        uid, flags, mod_seq, base, info, in_new, size, exact, date, content, id_ = row
        message = Message(uid, flags, mod_seq, base, Entry(base + info, bool(in_new)))
        _, comma, sizes = base.partition(b",")
        new_base = names.next() + comma + sizes
        arrival = Arrival(
            Entry(new_base, in_new=False),
            new_base,
            0,
            size,
            bool(exact),
            date,
            id_.replace(b" ", b"_"),  # it becomes a field of the uidlist
            content,
        )
        transfers.append(Transfer(message, arrival, translation))
        transfers[-1].aim()
    extra = {
        t.arrival.base: t.arrival.flags
        for t in transfers
        if t.arrival.flags & ~LETTERS_MASK
    }
    if extra:
        target_keywords.set_extra(extra)
    return transfers, source_keywords


def copy(
    source: Folder,
    target: Folder,
    names: UniqueNames,
    uids: Sequence[int],
    *,
    whole: bool,
) -> Transferred:
    """Link messages into the target's cur/; on an error none.

    One that is gone is an error if they shall come as a `whole`.
    """
    with ExitStack() as stack:
        uidlist = lock_both(stack, source, target)
        transfers, keywords = _load(source, target, names, uids)
        done: list[Transfer] = []
        try:
            finder = Finder(source, keywords)
            for transfer in transfers:
                if _link(source, target, finder, transfer):
                    done.append(transfer)
            if whole and len(done) < len(uids):
                raise MessageGone("some of the messages are gone")
            if done:
                sync_folder(target.cur, target.disk)
                _commit_copies(target, uidlist, done)
        except BaseException:
            for transfer in done:
                _unlink(target, transfer)
            raise
    return _transferred(done)


def _transferred(transfers: Sequence[Transfer]) -> Transferred:
    return Transferred(
        [t.message.uid for t in transfers], [uid_of(t.arrival) for t in transfers]
    )


def _unlink(target: Folder, transfer: Transfer) -> None:
    with suppress(FileNotFoundError):
        os.unlink(maildir.path_of(target.directory, transfer.arrival.entry))


def _link(source: Folder, target: Folder, finder: Finder, transfer: Transfer) -> bool:
    """Make the copy's name; False if the message is gone."""
    while True:
        new = maildir.path_of(target.directory, transfer.arrival.entry)
        old = maildir.path_of(source.directory, transfer.message.entry)
        try:
            source.disk.link(old, new)
            return True
        except FileNotFoundError:
            if not finder.again(transfer.message):
                return False
            transfer.aim()
        except OSError as error:
            # No hard links here, or as many as the file system allows.
            if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV):
                raise
            _copy_content(source, target, old, new, transfer.arrival)
            return True


def _copy_content(
    source: Folder, target: Folder, old: bytes, new: bytes, arrival: Arrival
) -> None:
    """Copy by octets, through tmp/, with the time that is the INTERNALDATE."""
    temporary = os.fsencode(target.directory / "tmp") + b"/" + arrival.base
    old_fd, _ = maildir.open_file(old)
    try:
        fd = target.disk.create(temporary)
        try:
            while source.disk.copy(old_fd, fd, COPY_OCTETS):
                pass
            os.utime(fd, (arrival.internal_date, arrival.internal_date))
            target.disk.fsync(fd)
        finally:
            os.close(fd)
        target.disk.rename(temporary, new)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(old_fd)


def _commit_copies(
    target: Folder, uidlist: Uidlist, transfers: Sequence[Transfer]
) -> None:
    arrivals = [transfer.arrival for transfer in transfers]
    append(target, uidlist, arrivals, target.known_box().uid_next)
    with transaction(target.connection):
        _insert(target, uidlist, arrivals)


def _insert(target: Folder, uidlist: Uidlist, arrivals: Sequence[Arrival]) -> None:
    box = target.known_box()
    insert(target, box, arrivals)
    if uidlist.mark is not None:
        box.mark = uidlist.mark
    save_box(target.connection, box)


def move(
    source: Folder, target: Folder, names: UniqueNames, uids: Sequence[int]
) -> Transferred:
    """Rename messages into the target's cur/, with the intent in the index first.

    After a crash the target's next sync finds the intent, and with it whose file
    has come; the source's finds that the file is gone.
    """
    with ExitStack() as stack:
        uidlist = lock_both(stack, source, target)
        transfers, keywords = _load(source, target, names, uids)
        if not transfers:
            return Transferred([], [])
        _intend(source, target, transfers)
        finder = Finder(source, keywords)
        moved = [t for t in transfers if _rename(source, target, finder, t)]
        for path in (target.cur, source.cur, source.new):
            sync_folder(path, target.disk)
        arrivals = [transfer.arrival for transfer in moved]
        append(target, uidlist, arrivals, target.known_box().uid_next)
        with transaction(target.connection):
            _insert(target, uidlist, arrivals)
            box = source.known_box()
            bury(source.connection, box, [t.message.uid for t in moved], source.now())
            save_box(source.connection, box)
            target.connection.execute(
                "DELETE FROM intent WHERE target = ?", (target.name,)
            )
        keywords.refresh()  # within one mailbox it has those of the new names now
        if any(t.message.base in keywords.extra for t in moved):
            keywords.set_extra({t.message.base: 0 for t in moved})
    return _transferred(moved)


def _intend(source: Folder, target: Folder, transfers: Sequence[Transfer]) -> None:
    with transaction(source.connection):
        source.connection.executemany(
            "INSERT INTO intent VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    source.name,
                    target.name,
                    t.message.base,
                    t.arrival.base,
                    t.arrival.email_id,
                    t.arrival.content,
                )
                for t in transfers
            ],
        )


def _rename(source: Folder, target: Folder, finder: Finder, transfer: Transfer) -> bool:
    """Move one file; False if it is gone."""
    while True:
        new = maildir.path_of(target.directory, transfer.arrival.entry)
        old = maildir.path_of(source.directory, transfer.message.entry)
        try:
            source.disk.rename(old, new)
            return True
        except FileNotFoundError:
            if not finder.again(transfer.message):
                return False
            transfer.aim()
