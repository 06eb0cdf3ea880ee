"""One account's store, for blocking callers: all that the rest of mailsrv uses.

Methods are called through the account's write queue, one at a time; those of
`AccountReader` from any thread. Methods raise `StoreError`; of these `LockHeld` means
that a living process holds a lock and nothing was changed: call again in `retry_s`.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path

from mailsrv.store import flags, folders, names, transfer
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.flags import Operation
from mailsrv.store.index import (
    Clock,
    Connections,
    changes_since,
    drop_box,
    forget,
    load_box,
    save_box,
    snapshot,
    transaction,
)
from mailsrv.store.ingest import ingest
from mailsrv.store.keywords import Keywords
from mailsrv.store.maildir import UniqueNames
from mailsrv.store.names import INBOX
from mailsrv.store.scanning import Folder
from mailsrv.store.sent import pair_of
from mailsrv.store.subscriptions import Subscriptions
from mailsrv.store.sync import sync
from mailsrv.store.values import (
    DELETED,
    FIRST_KEYWORD_BIT,
    SEEN,
    SYSTEM_MASK,
    UID,
    Changes,
    Copied,
    Delivered,
    MailboxInfo,
    MailboxState,
    MailboxStatus,
    Moved,
    OverQuota,
    Quota,
    Stored,
)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the views of this process know of a mailbox."""

    mod_seq: int
    uid_next: int
    keywords: tuple[str, ...]


class AccountStore(AccountReader):
    """The mailboxes of one account. One object for an account in a process.

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
        super().__init__(root, connections=connections, now=now)
        self.quota_octets = quota_octets
        self._names = UniqueNames(host, now)
        self._told: dict[str, _Told] = {}

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
        """Subscribe; the mailbox need not exist (RFC 3501 section 6.3.6).

        Raises InvalidName.
        """
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
            deleted_octets = 0
            if deleted:  # not in the query above: the index that it walks has no sizes
                (deleted_octets,) = folder.connection.execute(
                    "SELECT sum(size_octets) FROM message INDEXED BY message_mod_seq"
                    " WHERE mailbox = ? AND flags & ? != 0",
                    (box.id, DELETED),
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
            deleted_octets=deleted_octets,
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
    return keywords.shown
