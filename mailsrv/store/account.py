"""One account's store, for blocking callers: all that the rest of mailsrv uses.

Methods of the first half are called through the account's write queue, one at a
time; those under "Reading" and `fill` from any thread. Methods raise `StoreError`;
of these `LockHeld` means that a living process holds a lock and nothing was
changed: call again in `retry_s`.
"""

import sqlite3
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path

from mailsrv.store import content, flags, folders, names, reading, transfer
from mailsrv.store.flags import Operation
from mailsrv.store.index import (
    Box,
    Clock,
    Connections,
    changes_since,
    drop_box,
    expunged_since,
    forget,
    index_path,
    load_box,
    save_box,
    snapshot,
    transaction,
)
from mailsrv.store.ingest import ingest
from mailsrv.store.keywords import Keywords
from mailsrv.store.maildir import UniqueNames
from mailsrv.store.names import INBOX
from mailsrv.store.pop3_uidl import Uidl
from mailsrv.store.reading import Located, MessageFile
from mailsrv.store.scanning import Folder
from mailsrv.store.sent import pair_of
from mailsrv.store.sorting import ThreadRow, sorted_uids, thread_rows
from mailsrv.store.subscriptions import Subscriptions
from mailsrv.store.sync import sync
from mailsrv.store.texts import Matches, Text, TextIndex, can_index, text_of
from mailsrv.store.values import (
    DELETED,
    FIRST_KEYWORD_BIT,
    SEEN,
    SYSTEM_MASK,
    UID,
    Changes,
    Copied,
    Criterion,
    Delivered,
    MailboxInfo,
    MailboxState,
    MailboxStatus,
    MessageGone,
    Moved,
    NoSuchMailbox,
    OverQuota,
    Quota,
    Row,
    Stored,
)

_ROWS = 2000  # of the index, read in one step
_FILLED = 20  # messages read and made ready in one step
_TEXT_PAGE = 1000  # messages held against search.sqlite at once
_TEXT_MESSAGES = 32  # taken up at once: some 20 ms
_TEXT_OCTETS = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Told:
    """What the views of this process know of a mailbox."""

    mod_seq: int
    uid_next: int
    keywords: tuple[str, ...]


class AccountStore:
    """The mailboxes of one account. One object for an account in a process.

    `root` is the account's folder: `Maildir`, `index.sqlite` and `search.sqlite`
    are in it.
    `quota_octets` (None: no limit) may be set at any time.

    Every `Changes` that a method returns holds all that has happened in its
    mailbox since the last `Changes` or `MailboxState` that this object returned for
    it, the work of other processes included. If it has `rebuilt`, what happened is
    not known: call `open`, and compare by UID.
    """

    def __init__(
        self,
        root: Path,
        *,
        connections: Connections,
        quota_octets: int | None,
        now: Clock,
        host: str = "localhost",
    ) -> None:
        self.quota_octets = quota_octets
        self._root = root / "Maildir"
        self._index = index_path(root)
        self._connections = connections
        self._texts = TextIndex(root, connections)
        self._now = now
        self._names = UniqueNames(host, now)
        self._told: dict[str, _Told] = {}
        self._recovered = False
        self._used: dict[bytes, int] = {}  # sets of header fields: day last noted

    # Mailboxes.

    def mailboxes(self) -> list[MailboxInfo]:
        """List mailboxes; also names with children only, and subscribed ones only."""
        with self._connections.use(self._index, "read") as connection:
            ids = dict(connection.execute("SELECT name, mailbox_id FROM mailbox"))
        return folders.list_mailboxes(self._root, ids)

    def create(self, name: str, special_uses: Sequence[str] = ()) -> None:
        """Make a mailbox. Raises InvalidName, MailboxExists."""
        folders.create(self._root, names.canonical(name), special_uses)

    def delete(self, name: str) -> None:
        """Delete a mailbox, not what is below it. Raises NoSuchMailbox."""
        name = names.canonical(name)
        folders.delete(self._root, name)
        self._forget_boxes([name])
        folders.empty_trash(self._root)

    def rename(self, old: str, new: str) -> list[tuple[str, str]]:
        """Rename a mailbox and what is below it; return the pairs (old, new).

        Of INBOX all messages move to a new mailbox, and the list is empty: sync
        both afterwards. Raises NoSuchMailbox, MailboxExists, InvalidName.
        """
        old, new = names.canonical(old), names.canonical(new)
        if old == INBOX:
            self._empty_inbox(new)
            return []
        pairs = folders.rename(self._root, old, new)
        self._forget_boxes([target for _, target in pairs])
        with (
            self._connections.use(self._index, "write") as connection,
            transaction(connection),
        ):
            for source, target in pairs:
                connection.execute(
                    "UPDATE mailbox SET name = ? WHERE name = ?", (target, source)
                )
        for source, target in pairs:
            if (told := self._told.pop(source, None)) is not None:
                self._told[target] = told
        return pairs

    def subscribe(self, name: str) -> None:
        """Subscribe; the mailbox need not exist (RFC 3501 section 6.3.6)."""
        names.directory_name(name)
        Subscriptions(self._root).add([name])

    def unsubscribe(self, name: str) -> None:
        """Unsubscribe; what is not subscribed is passed over."""
        Subscriptions(self._root).remove([name])

    def ensure_default_folders(self) -> None:
        """Make the Maildir, and once its usual mailboxes, subscribed."""
        folders.ensure_defaults(self._root)

    # Looking at one mailbox.

    def status(self, name: str, claimed_recent: int = 0) -> MailboxStatus:
        """Answer STATUS; new mail stays new.

        What is below `claimed_recent` is \\Recent in a session, and so no longer here.
        """
        with self._open(name) as folder:
            box = sync(folder, move_new=False)
            unseen, deleted = folder.connection.execute(
                "SELECT count(*) FILTER (WHERE flags & ? = 0),"
                " count(*) FILTER (WHERE flags & ? != 0)"
                " FROM message INDEXED BY message_mod_seq WHERE mailbox = ?",
                (SEEN, DELETED, box.id),
            ).fetchone()
            (recent,) = folder.connection.execute(
                "SELECT count(*) FROM message WHERE mailbox = ? AND uid >= ?",
                (box.id, max(box.recent_uid, claimed_recent)),
            ).fetchone()
        return MailboxStatus(
            messages=box.messages,
            recent=recent,
            unseen=unseen,
            deleted=deleted,
            uid_next=box.uid_next,
            uid_validity=box.uid_validity,
            highest_mod_seq=box.mod_seq,
            size_octets=box.octets,
            mailbox_id=box.mailbox_id,
        )

    def open(self, name: str, *, move_new: bool = True) -> MailboxState:
        """Sync and return the whole mailbox; `move_new` False: for EXAMINE."""
        with self._open(name) as folder:
            sync(folder, move_new=move_new)
            with snapshot(folder.connection):
                box = folder.known_box()
                rows = folder.connection.execute(
                    "SELECT uid, flags, mod_seq FROM message INDEXED BY message_mod_seq"
                    " WHERE mailbox = ?",
                    (box.id,),
                ).fetchall()
            rows.sort()
            uids, masks, mod_seqs = zip(*rows, strict=True) if rows else ((), (), ())
            keywords = _keywords(folder)
            self._told[folder.name] = _Told(box.mod_seq, box.uid_next, keywords)
        return MailboxState(
            name=folder.name,
            mailbox_id=box.mailbox_id,
            uid_validity=box.uid_validity,
            uid_next=box.uid_next,
            highest_mod_seq=box.mod_seq,
            recent_uid=box.recent_uid,
            keywords=keywords,
            uids=array("I", uids),
            flags=array("Q", masks),
            mod_seqs=array("Q", mod_seqs),
        )

    def sync(self, name: str, force: bool = False, *, move_new: bool = True) -> Changes:
        """Find what other programs have changed. Cheap if nothing was."""
        with self._open(name) as folder:
            told = self._before(folder)
            sync(folder, force=force, move_new=move_new)
            return self._changes(folder, told)

    def unsettled(self, name: str) -> bool:
        """Return whether changes may still be unseen: sync again in 1.1 s."""
        with self._open(name) as folder:
            box = folder.box()
            return box is None or not (box.new_settled and box.cur_settled)

    def claim_recent(self, name: str) -> int:
        """Return the first UID that is \\Recent in a session that begins now.

        Durable: no other session gets these (RFC 3501 section 2.3.2).
        """
        with self._open(name) as folder:
            self._before(folder, needed=True)
            return self._claim_recent(folder)

    def _claim_recent(self, folder: Folder) -> int:
        with transaction(folder.connection):
            box = folder.known_box()
            first, box.recent_uid = box.recent_uid, box.uid_next
            if first != box.recent_uid:
                save_box(folder.connection, box)
        return first

    # Changing messages.

    def ingest(self, name: str, delivered: Sequence[Delivered]) -> Changes:
        """Give UIDs to our own deliveries, without a scan."""
        with self._open(name) as folder:
            told = self._before(folder)
            ingest(folder, delivered)
            return self._changes(folder, told, same_keywords=told is not None)

    def uids_of(self, name: str, bases: Sequence[bytes]) -> list[UID]:
        """Return the UIDs of messages by base name; those that are gone left out."""
        with self._open(name) as folder:
            box = folder.known_box()
            found = [
                folder.connection.execute(
                    "SELECT uid FROM message INDEXED BY message_base"
                    " WHERE mailbox = ? AND base = ?",
                    (box.id, base),
                ).fetchone()
                for base in bases
            ]
        return [UID(row[0]) for row in found if row]

    def one_copy(self, name: str, uid: UID) -> tuple[UID, Changes | None]:
        """Keep one of two copies of a sent message; return which, and what changed."""
        with self._open(name) as folder:
            told = self._before(folder)
            pair = pair_of(folder, uid)
            if pair is None:
                return uid, None
            flags.expunge(folder, [pair.dropped], only_deleted=False)
            return pair.kept, self._changes(folder, told)

    def store_flags(
        self,
        name: str,
        uids: Sequence[int],
        operation: Operation,
        flag_names: Sequence[str],
        unchanged_since: int | None = None,
    ) -> Stored:
        """Add (+), remove (-) or set (=) flags; `flag_names` without \\Recent.

        A message whose MODSEQ is over `unchanged_since` is left alone. Raises
        TooManyKeywords.
        """
        with self._open(name) as folder:
            told = self._before(folder, needed=True)
            if unchanged_since is not None:  # another program's changes count too
                sync(folder, move_new=False)
            modified = flags.store_flags(
                folder, uids, operation, flag_names, unchanged_since
            )
            return Stored(modified, self._changes(folder, told))

    def expunge(
        self, name: str, uids: Sequence[int], *, only_deleted: bool = True
    ) -> Changes:
        """Remove messages; `only_deleted`: those that still have \\Deleted.

        Their rows and ready bytes can be read until `forget`.
        """
        with self._open(name) as folder:
            told = self._before(folder, needed=True)
            flags.expunge(folder, uids, only_deleted=only_deleted)
            return self._changes(folder, told)

    def forget(self, name: str, uids: Sequence[int]) -> None:
        """Drop the ready bytes of expunged messages: every session was told."""
        with self._open(name) as folder:
            if (box := folder.box()) is not None:
                with transaction(folder.connection):
                    forget(folder.connection, box.id, uids)

    def copy(
        self, source: str, uids: Sequence[int], target: str, *, whole: bool = False
    ) -> Copied:
        """Copy messages, on an error none. Raises OverQuota.

        `whole`: it is an error, MessageGone, if one of them is gone.
        """
        with self._open(source) as folder:
            to = self._also(folder, target)
            self._before(folder, needed=True)
            self._check_room(folder, uids)
            told = self._before(to, needed=True)
            done = transfer.copy(folder, to, self._names, uids, whole=whole)
            changes = self._changes(to, told)
        return Copied(
            changes.uid_validity,
            [UID(uid) for uid in done.source_uids],
            [UID(uid) for uid in done.target_uids],
            changes,
        )

    def move(self, source: str, uids: Sequence[int], target: str) -> Moved:
        """Move messages; each is in one of the two mailboxes at any time."""
        with self._open(source) as folder:
            to = self._also(folder, target)
            told_source = self._before(folder, needed=True)
            told_target = self._before(to, needed=True)
            done = transfer.move(folder, to, self._names, uids)
            from_target = self._changes(to, told_target)
            from_source = from_target
            if folder.name != to.name:
                from_source = self._changes(folder, told_source)
        return Moved(
            from_target.uid_validity,
            [UID(uid) for uid in done.source_uids],
            [UID(uid) for uid in done.target_uids],
            from_source,
            from_target,
        )

    def uncounted(self) -> list[str]:
        """Return the mailboxes of which no usage is known: nobody opened them."""
        with self._open(INBOX) as folder:
            return self._uncounted(folder)

    def quota(self) -> Quota:
        """Return the usage of all mailboxes; those never opened are read first."""
        with self._open(INBOX) as folder:
            for name in self._uncounted(folder):
                sync(self._also(folder, name), move_new=False)
            octets, messages = folder.connection.execute(
                "SELECT coalesce(sum(octets), 0), coalesce(sum(messages), 0)"
                " FROM mailbox"
            ).fetchone()
        return Quota(self.quota_octets, octets, messages)

    # Reading: from any thread.

    def fill(self, name: str, uids: Sequence[int], *, only_sizes: bool = False) -> None:
        """Compute the ready bytes of those `uids` that lack them, or a tenth: sizes."""
        make = content.measure if only_sizes else content.fill
        with self._connections.use(self._index, "write") as connection:
            box = load_box(connection, names.canonical(name))
            if box is not None:
                make(
                    connection,
                    names.directory(self._root, name),
                    content.unfilled(connection, box.id, uids),
                )

    def rows(
        self, name: str, uids: Sequence[int], columns: Sequence[str]
    ) -> dict[int, Row]:
        """Return columns of messages by ascending UID; see `reading.COLUMNS`.

        What is missing, ready bytes or sizes, is computed first. A message that is
        expunged and forgotten, or whose file has vanished, is left out.
        """
        with self._read(name) as (connection, box):
            rows = reading.live_rows(connection, box.id, uids, columns)
            if len(rows) < len(uids):
                missing = [uid for uid in uids if uid not in rows]
                only_sizes = not reading.are_ready_bytes(columns)
                self.fill(name, missing, only_sizes=only_sizes)
                for read in (reading.live_rows, reading.expunged_rows):
                    rows |= read(connection, box.id, missing, columns)
                rows = dict(sorted(rows.items()))
        return rows

    def expunged_since(self, name: str, mod_seq: int) -> list[UID] | None:
        """Return what was expunged after `mod_seq`, ascending; None: not known.

        The history reaches back `index.MAX_TOMBSTONES` messages.
        """
        with self._read(name) as (connection, box), snapshot(connection):
            box = load_box(connection, box.name) or box
            if not box.history_floor <= mod_seq <= box.mod_seq:
                return None
            return expunged_since(connection, box, mod_seq)

    def sorted_uids(
        self, name: str, uids: Sequence[int], criteria: Sequence[Criterion]
    ) -> Generator[None, None, list[UID]]:
        """Return `uids` in order, ties by UID; what is gone is left out.

        A generator of short steps, but for the last one: 0.03 s for 10,000
        messages, in which other threads run.
        """
        for again in (False, True):
            if again:
                yield from self._made_ready(name, uids)
            with self._read(name) as (connection, box):
                found = sorted_uids(connection, box.id, uids, criteria)
            if len(found) == len(uids):
                break
        return found

    def thread_rows(
        self, name: str, uids: Sequence[int]
    ) -> Generator[None, None, list[ThreadRow]]:
        """Return what threads are made of, by UID; in short steps."""
        rows: list[ThreadRow] = []
        for start in range(0, len(uids), _ROWS):
            some = uids[start : start + _ROWS]
            for again in (False, True):
                if again:
                    yield from self._made_ready(name, some)
                with self._read(name) as (connection, box):
                    found = thread_rows(connection, box.id, some)
                if len(found) == len(some):
                    break
            rows += found
            yield
        return rows

    def _made_ready(
        self, name: str, uids: Sequence[int]
    ) -> Generator[None, None, None]:
        """Compute what ready bytes are missing, in short steps."""
        directory = names.directory(self._root, name)
        for start in range(0, len(uids), _ROWS):
            with self._read(name) as (connection, box):
                some = uids[start : start + _ROWS]
                missing = content.unfilled(connection, box.id, some)
            yield
            for first in range(0, len(missing), _FILLED):
                with self._connections.use(self._index, "write") as connection:
                    few = missing[first : first + _FILLED]
                    content.fill(connection, directory, few)
                yield

    def header_fields(
        self, name: str, uids: Sequence[int], key: bytes
    ) -> dict[int, bytes]:
        """Return a set of header fields, ready for the wire, by UID.

        `key` is of `content.header_key`. What is absent, see `rows`.
        """
        with self._read(name) as (connection, box):
            found = content.kept_fields(connection, box.id, uids, key)
        missing = [uid for uid in uids if uid not in found]
        day = int(self._now() // 86400)
        if not missing and self._used.get(key) != day:
            with (
                suppress(sqlite3.OperationalError),  # a full disk: it can be read
                self._connections.use(self._index, "write") as connection,
            ):
                content.mark_used(connection, key, day)
            if len(self._used) > content.MAX_HEADER_KEYS:
                self._used.clear()
            self._used[key] = day
        if missing:
            directory = names.directory(self._root, name)
            with self._connections.use(self._index, "write") as connection:
                found |= content.make_fields(
                    connection, directory, box.id, missing, key, day
                )
        return found

    def locate(
        self, name: str, uids: Sequence[int], *, fill: bool = True
    ) -> dict[int, Located]:
        """Look up messages that are to be opened soon; what is absent, see `rows`.

        Many at once: a look-up costs more than it costs to open a file. Not `fill`:
        only octets are wanted, which need no ready bytes.
        """
        directory = names.directory(self._root, name)
        with self._read(name) as (connection, box):
            found = reading.locate(connection, box.id, directory, uids)
            unready = [uid for uid in found if found[uid].structure is None]
            if fill and unready:
                self.fill(name, unready)
                found |= reading.locate(connection, box.id, directory, unready)
        return found

    def open_message(self, name: str, uid: int) -> MessageFile:
        """Open a message's octets. Raises MessageGone."""
        located = self.locate(name, [uid])
        if uid not in located:
            raise MessageGone("the message is gone")
        return located[uid].open()

    def uidls(self, name: str, make: Uidl) -> list[tuple[UID, bytes, int]]:
        """Return UID, UIDL and RFC822.SIZE of all messages in their POP3 order."""
        with self._read(name) as (connection, box):
            if guessed := content.guessed(connection, box.id):
                directory = names.directory(self._root, name)
                with self._connections.use(self._index, "write") as writing:
                    content.measure(writing, directory, guessed)
            return reading.uidls(connection, box, make)

    def settle_sizes(self, name: str) -> Generator[None, None, bool]:
        """Make RFC822.SIZE of all messages exact; return whether any was not."""
        with self._read(name) as (connection, box):
            guessed = content.guessed(connection, box.id)
        directory = names.directory(self._root, name)
        for first in range(0, len(guessed), content.MEASURED_MESSAGES):
            some = guessed[first : first + content.MEASURED_MESSAGES]
            with self._connections.use(self._index, "write") as writing:
                content.measure(writing, directory, some)
            yield
        return bool(guessed)

    # Searching text: from any thread.

    def search_text(
        self, name: str, uids: AbstractSet[UID], text: str, *, header: bool
    ) -> Generator[None, None, Matches]:
        """Tell which of `uids` hold folded `text`; `header`: there as well.

        A generator of short steps. What is in neither set does not hold it.
        """
        with self._read(name) as (connection, box):
            contents = reading.contents(connection, box.id, uids)
        yield
        return (yield from self._texts.search(contents, text, header=header))

    def index_texts(self, after: int) -> tuple[int, bool]:
        """Take up some texts that search lacks, and drop some of messages gone.

        Of messages with a content number above `after`, 0 at first. Returns the
        number to go on after, and whether there was more.
        """
        if not can_index():
            return after, False
        with self._connections.use(self._index, "read") as connection:
            there = reading.contents_after(connection, after, _TEXT_PAGE)
        places = {content: (name, uid) for content, name, uid in there}
        if after == 0:
            self._texts.begin(there[0][0] if there else None)
        last = there[-1][0] if len(there) == _TEXT_PAGE else None
        missing, stale = self._texts.compare(places, after, last)
        self._texts.drop(stale[:_TEXT_MESSAGES])
        texts, reached = self._read_texts(places, missing)
        self._texts.put(texts)
        if len(stale) > _TEXT_MESSAGES:
            return after, True
        if reached is not None:
            return reached, True
        if last is not None:
            return last, True
        return (there[-1][0] if there else after), False

    def _read_texts(
        self, places: Mapping[int, tuple[str, int]], contents: Sequence[int]
    ) -> tuple[list[tuple[int, Text]], int | None]:
        """Read the texts of the first of `contents`.

        Also return the last one that was looked at, unless that was all. A message
        that cannot be read is passed over: searches look into its file.
        """
        first = contents[:_TEXT_MESSAGES]
        uids: dict[str, list[int]] = {}
        for name, uid in map(places.__getitem__, first):
            uids.setdefault(name, []).append(uid)
        located: dict[tuple[str, int], Located] = {}
        for name, some in uids.items():
            with suppress(NoSuchMailbox):
                found = self.locate(name, some)
                located.update(((name, uid), place) for uid, place in found.items())
        texts: list[tuple[int, Text]] = []
        octets = 0
        for number in first:
            if octets >= _TEXT_OCTETS:
                return texts, texts[-1][0]
            if (place := located.get(places[number])) is not None:
                with suppress(MessageGone, OSError), place.open() as file:
                    texts.append((number, text_of(file.structure(), file.read)))
                    octets += len(texts[-1][1].octets)
        return texts, first[-1] if len(first) < len(contents) else None

    # Inside.

    def close(self) -> None:
        """Close idle connections to this account's index and texts."""
        self._connections.close(self._index)
        self._texts.close()

    @contextmanager
    def _open(self, name: str) -> Iterator[Folder]:
        name = names.canonical(name)
        directory = names.directory(self._root, name)
        with self._connections.use(self._index, "write") as connection:
            folder = Folder(name, directory, self._root, connection, self._now)
            if not self._recovered:
                self._recover(folder)
            yield folder

    @contextmanager
    def _read(self, name: str) -> Iterator[tuple[sqlite3.Connection, Box]]:
        name = names.canonical(name)
        with self._connections.use(self._index, "read") as connection:
            box = load_box(connection, name)
            if box is None:  # the index was deleted since the mailbox was opened
                with self._open(name) as folder:
                    box = sync(folder, move_new=False)
            yield connection, box

    def _also(self, folder: Folder, name: str) -> Folder:
        """Return another mailbox on the same connection."""
        name = names.canonical(name)
        directory = names.directory(self._root, name)
        return replace(folder, name=name, directory=directory)

    def _recover(self, folder: Folder) -> None:
        """Finish what an earlier process left; once for this object.

        A MOVE that was interrupted: both mailboxes learn where the files are.
        """
        folders.empty_trash(self._root)
        for pair in folder.connection.execute(
            "SELECT DISTINCT target, source FROM intent"
        ).fetchall():
            for name in pair:  # the target first: the intent tells it of the ids
                with suppress(NoSuchMailbox):
                    sync(self._also(folder, name), force=True, move_new=False)
        self._recovered = True

    def _before(self, folder: Folder, *, needed: bool = False) -> _Told | None:
        """Return what is told of a mailbox; `needed`: its row in the index too."""
        box = folder.box()
        if box is None and needed:
            box = sync(folder, move_new=False)
        told = self._told.get(folder.name)
        if told is None and box is not None:
            return _Told(box.mod_seq, box.uid_next, _keywords(folder))
        return told

    def _changes(
        self, folder: Folder, told: _Told | None, *, same_keywords: bool = False
    ) -> Changes:
        """Return what happened since `told`, and remember that it is told.

        With `same_keywords` those are looked at only if another process has used
        one that is not known here.
        """
        with snapshot(folder.connection):
            box = folder.known_box()
            changes = changes_since(
                folder.connection,
                box,
                told.mod_seq if told else 0,
                told.uid_next if told else 0,
            )
        keywords = told.keywords if told else ()
        if not same_keywords or _flags_in(changes) & ~_known_flags(keywords):
            keywords = _keywords(folder)
        if told is None or keywords != told.keywords:
            changes = replace(changes, keywords=keywords)
        self._told[folder.name] = _Told(box.mod_seq, box.uid_next, keywords)
        return changes

    def _uncounted(self, folder: Folder) -> list[str]:
        known = {n for (n,) in folder.connection.execute("SELECT name FROM mailbox")}
        return [name for name in names.mailboxes(self._root) if name not in known]

    def _check_room(self, folder: Folder, uids: Sequence[int]) -> None:
        """Raise OverQuota if copies of `uids` find no room."""
        if self.quota_octets is None:
            return
        quota = self.quota()
        (octets,) = folder.connection.execute(
            "SELECT coalesce(sum(size_octets), 0) FROM message"
            " WHERE mailbox = ? AND uid IN (SELECT value FROM json_each(?))",
            (folder.known_box().id, dumps(list(uids))),
        ).fetchone()
        if quota.used_octets + octets > self.quota_octets:
            raise OverQuota("the copies are over the account's quota")

    def _empty_inbox(self, target: str) -> None:
        """Rename INBOX: its messages move, it stays (RFC 3501 section 6.3.5)."""
        folders.create(self._root, target)
        uids = self.open(INBOX).uids
        self.move(INBOX, uids, target)

    def _forget_boxes(self, mailboxes: Sequence[str]) -> None:
        """Drop what the index has of mailboxes whose folders are others now."""
        with (
            self._connections.use(self._index, "write") as connection,
            transaction(connection),
        ):
            for name in mailboxes:
                self._told.pop(name, None)
                if (box := load_box(connection, name)) is not None:
                    drop_box(connection, box)


def _flags_in(changes: Changes) -> int:
    """Return all flags that are set in `changes`."""
    found = 0
    for _, mask, _ in (*changes.added, *changes.flagged):
        found |= mask
    return found


def _known_flags(keywords: Sequence[str]) -> int:
    """Return the mask of all flags that have a name."""
    places = (1 << place for place, name in enumerate(keywords) if name)
    return SYSTEM_MASK | sum(places) << FIRST_KEYWORD_BIT


def _keywords(folder: Folder) -> tuple[str, ...]:
    """Return the keywords by their bits; "" where a bit has no name."""
    keywords = Keywords(folder.directory, folder.disk)
    keywords.refresh()
    return tuple(name or "" for name in keywords.names)
