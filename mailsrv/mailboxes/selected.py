"""The mailbox that one IMAP session has selected: its numbers, news and changes."""

from array import array
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from mailsrv.mailboxes.flags import flag_names
from mailsrv.mailboxes.sequence import (
    MAX_FLAGS,
    SAVED,
    Gone,
    News,
    Snapshot,
    Span,
    Tracker,
    joined,
    within,
)
from mailsrv.mailboxes.view import MailboxView, SilentStore
from mailsrv.store.account import AccountStore
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.names import canonical
from mailsrv.store.values import (
    DELETED,
    MAX_KEYWORDS,
    SEEN,
    UID,
    Changes,
    Copied,
    Moved,
)

if TYPE_CHECKING:
    from mailsrv.mailboxes.account import AccountMailboxes

T = TypeVar("T")
_SLICE = 200  # renames in a transaction, STORE.md


class Selected:
    """One session's open mailbox. `close` or `leave` it, whatever happens.

    The numbering changes only by `news(expunges=True)` and, at its end, by any
    `news`: send what it returns before anything that uses the numbers.
    """

    __slots__ = (
        "_mailboxes",
        "_tracker",
        "_view",
        "highest_mod_seq",
        "on_news",
        "read_only",
        "saved",
    )

    def __init__(
        self, mailboxes: "AccountMailboxes", view: MailboxView, tracker: Tracker
    ) -> None:
        self._mailboxes = mailboxes
        self._view = view
        self._tracker = tracker
        self.read_only = not tracker.claims_recent
        # Called in the reactor thread when `news` has something to say; the
        # session sets it while it is in IDLE.
        self.on_news: Callable[[], None] | None = None
        # UIDs in ranges: the "$" of RFC 5182. What is expunged drops out of itself.
        self.saved: tuple[tuple[int, int], ...] = ()
        # All changes up to it were told: that of the mailbox, but a lower one while
        # something is held back (RFC 7162 section 3.2: no change may be lost).
        self.highest_mod_seq = view.highest_mod_seq
        view.sessions[tracker] = self._wake

    def _wake(self) -> None:
        if self.on_news is not None:
            self.on_news()

    # What SELECT tells

    @property
    def name(self) -> str:
        return self._view.name

    @property
    def mailbox_id(self) -> str:
        return self._view.mailbox_id

    @property
    def keywords(self) -> tuple[str, ...]:
        """The mailbox's keywords; bit 5 + k of a flag mask is ``keywords[k]``."""
        return self._view.messages.keywords

    @property
    def takes_new_keywords(self) -> bool:
        """Whether there is room for another keyword (RFC 9051 section 7.1)."""
        return len(self.keywords) < MAX_KEYWORDS or "" in self.keywords

    @property
    def uid_validity(self) -> int:
        return self._view.uid_validity

    @property
    def uid_next(self) -> int:
        return self._view.uid_next

    @property
    def gone(self) -> bool:
        """Whether the mailbox was deleted: BYE."""
        return self._view.gone

    @property
    def exists(self) -> int:
        return self._tracker.exists

    @property
    def recent(self) -> int:
        return self._tracker.recent

    @property
    def first_unseen(self) -> int | None:
        """The sequence number of the first message without \\Seen."""
        flags = self._view.messages.flags
        at = next((n for n, mask in enumerate(flags) if not mask & SEEN), None)
        return None if at is None else self.seq(self._view.messages.uids[at])

    # Numbers and flags

    def uid(self, seq: int) -> int:
        """Return the UID of a sequence number. Raises `OutOfRange`."""
        return self._tracker.uid(seq)

    def seq(self, uid: int) -> int | None:
        """Return the sequence number; None for a message not (yet) announced."""
        return self._tracker.seq(uid)

    def uids(
        self, ranges: Collection[tuple[int, int]], *, by_uid: bool
    ) -> "array[int]":
        """Return the UIDs of a sequence set, ascending; see `Tracker.uids`.

        A range is inclusive; 0 (`sequence.STAR`) stands for "*". `sequence.SAVED`
        stands for what was saved, UIDs in any case.
        """
        if ranges == SAVED:
            return self._tracker.uids(self.saved, by_uid=True)
        return self._tracker.uids(ranges, by_uid=by_uid)

    def walk(self, uids: Iterable[int]) -> Iterator[tuple[int, int, int, int]]:
        """Yield (seq, uid, flag mask, mod_seq) of those `uids` that are known.

        The fast way through many; it may be held over several reactor turns.
        """
        return self._tracker.walk(uids)

    def snapshot(self) -> Snapshot:
        """Return a copy of what the session knows, to read in another thread."""
        return self._tracker.snapshot()

    def flags(self, uid: int) -> int | None:
        """Return the flag mask; None for a message not known."""
        return self._tracker.flags(uid)

    def has_gone(self, uids: Iterable[int]) -> bool:
        """Tell whether one of `uids`, all announced, is expunged and not yet told."""
        there = self._view.messages.index
        return self._tracker.holds_expunges and any(there(u) is None for u in uids)

    def takes_keywords(self) -> bool:
        """Whether to tell of new keywords now, before flags are shown; see `news`."""
        return self._tracker.takes_keywords()

    def is_recent(self, uid: int) -> bool:
        """Tell whether to add \\Recent to the message's flags."""
        return self._tracker.is_recent(uid)

    def flag_names(self, mask: int) -> list[str]:
        """Return the names in a mask, without \\Recent."""
        return flag_names(mask, self.keywords)

    def flag_octets(self, mask: int) -> bytes:
        """Return the names in a mask as they stand in a response, kept ready."""
        return self._view.flag_octets(mask)

    def shown_flags(
        self, uids: Sequence[int], masks: Sequence[int], *, with_recent: bool
    ) -> list[bytes]:
        """Return the flags of messages as FETCH shows them; `uids` ascend."""
        names = {mask: self.flag_octets(mask) for mask in set(masks)}
        plain = {mask: b"(%b)" % octets for mask, octets in names.items()}
        shown = [plain[mask] for mask in masks]
        spans = self._tracker.recent_spans(uids) if with_recent else ()
        for first, behind in spans:
            recent = {
                mask: b"(%b)" % b" ".join(filter(None, (octets, b"\\Recent")))
                for mask, octets in names.items()
            }
            shown[first:behind] = [recent[mask] for mask in masks[first:behind]]
        return shown

    # What a client that was away has missed (RFC 7162)

    def newer(self, uids: Iterable[int], mod_seq: int) -> "array[int]":
        """Return those `uids` that are known and were changed after `mod_seq`.

        One that is higher than the mailbox's is of an index that was lost, and of
        what came after it nothing can be told: all.
        """
        known = mod_seq if mod_seq <= self._view.highest_mod_seq else 0
        return self._tracker.newer(uids, known)

    async def vanished(
        self,
        mod_seq: int,
        ranges: Collection[Span],
        match: tuple[Collection[Span], Collection[Span]] = ((), ()),
    ) -> list[Span]:
        """Return which UIDs of `ranges` were expunged after `mod_seq`.

        Where the store does not remember it: all that are absent, but for those of
        which `match` shows that the client knows (see `Tracker.matched`).
        """
        if ranges == SAVED:
            return []  # RFC 5182 section 2.1: what is expunged drops out
        last = self._view.uid_next - 1
        known_below = self._tracker.matched(*match)
        expunged = await self._mailboxes.read(
            partial(AccountReader.expunged_since, name=self.name, mod_seq=mod_seq)
        )
        if expunged is None:
            return [
                (max(first, known_below + 1), end)
                for first, end in self._tracker.absent(ranges, last)
                if end > known_below
            ]
        # Of the others the session is to hear by an EXPUNGE or VANISHED of its own.
        unknown = (u for u in within(expunged, ranges, last) if self.seq(u) is None)
        return joined(((uid, uid) for uid in unknown), last)

    # News

    @property
    def has_news(self) -> bool:
        return self._view.gone or self._tracker.has_news

    def news(self, *, expunges: bool) -> list[News]:
        """Return the untagged responses due, in order, each only once.

        Call it at the end of each command, with `expunges` False for FETCH,
        STORE, SEARCH and UID FETCH; and in IDLE when it begins and when
        `on_news` calls. `Gone` comes alone: BYE.
        """
        if self._view.gone:
            return [Gone()]
        news = self._tracker.news(expunges=expunges)
        if expunges:
            self._mailboxes.told(self._view)
        if not self._tracker.has_news:
            self.highest_mod_seq = self._view.highest_mod_seq
        if self.on_news is not None and len(news) >= MAX_FLAGS:
            self._mailboxes.soon(self._wake)
        return news

    async def refresh(self) -> None:
        """Look for what other programs did (NOOP, CHECK); then ask `news`."""
        await self._mailboxes.refresh(self.name, move_new=not self.read_only)

    # Changes by this session

    async def store_flags(
        self,
        uids: Sequence[int],
        op: Literal["+", "-", "="],
        names: Sequence[str],
        *,
        silent: bool,
        unchanged_since: int | None = None,
        tell_mod_seqs: bool = False,
        stored: Callable[[], object] = lambda: None,
    ) -> list[UID]:
        """STORE: durable when it returns; `news(expunges=False)` has the rest.

        Not `silent`: news has the flags of all `uids`, changed or not. `silent`:
        only of those that somebody else changed as well, and with `tell_mod_seqs`
        the MODSEQs of the others. A long STORE has several steps: `stored` is
        called after each, to send its news.

        Returns those that were left alone since their MODSEQ is over
        `unchanged_since`; news has their flags.
        """
        modified: list[UID] = []
        for some in _slices(uids):
            own = SilentStore(
                self._tracker, frozenset(some), op, tuple(names), tell_mod_seqs
            )
            done = await self._mailboxes.write(
                partial(
                    AccountStore.store_flags,
                    name=self.name,
                    uids=some,
                    operation=op,
                    flag_names=names,
                    unchanged_since=unchanged_since,
                ),
                lambda done: [done.changes],
                own if silent else None,
            )
            modified += done.modified
            self._tracker.changed(done.modified if silent else some)
            if unchanged_since is not None:
                # RFC 7162 section 3.1.3: told of all that passed, though .SILENT.
                self._tracker.stamped(some)
            stored()
        return modified

    async def expunge(self, uids: Sequence[int] | None = None) -> list[int]:
        """Remove messages that carry \\Deleted: all (EXPUNGE), or of `uids`.

        Returns the UIDs of those.
        """
        messages = self._view.messages
        if uids is None:
            both = zip(messages.uids, messages.flags, strict=True)
            deleted = [uid for uid, mask in both if mask & DELETED]
        else:
            deleted = [uid for uid in uids if (self.flags(uid) or 0) & DELETED]
        deleted = [uid for uid in deleted if self.seq(uid) is not None]
        for some in _slices(deleted):
            await self._mailboxes.write(
                partial(AccountStore.expunge, name=self.name, uids=some), _one
            )
        return deleted

    async def copy(
        self, uids: Sequence[int], target: str, *, whole: bool = False
    ) -> Copied:
        """COPY: all that are left, or nothing. Raises `NoSuchMailbox` ([TRYCREATE]).

        `whole`: if one is gone, nothing; raises `MessageGone`.
        """
        target = canonical(target)
        return await self._mailboxes.write(
            lambda store: store.copy(self.name, _uids(uids), target, whole=whole),
            lambda copied: [copied.target],
        )

    async def move(
        self, uids: Sequence[int], target: str, moved: Callable[[Moved], object]
    ) -> None:
        """MOVE (RFC 6851): each message is moved or left.

        `moved` is called for each slice when that is done: of several the first may
        be done when a later one fails.
        """
        target = canonical(target)
        for some in _slices(uids):
            moved(
                await self._mailboxes.write(
                    partial(
                        AccountStore.move, source=self.name, uids=some, target=target
                    ),
                    _both,
                )
            )

    # Reads, in the pool of readers

    async def read(self, call: Callable[[AccountReader], T]) -> T:
        """Run a read of under 20 ms."""
        return await self._mailboxes.read(call)

    async def read_sliced(
        self, call: Callable[[AccountReader], Generator[None, None, T]]
    ) -> T:
        """Run a long read as a generator of steps of under 20 ms."""
        return await self._mailboxes.read_sliced(call)

    # The end

    async def close(self) -> list[int]:
        """Remove what is \\Deleted, unheard, and leave; return the UIDs of those."""
        expunged = []
        if not self.read_only and not self._view.gone:
            expunged = await self.expunge()
        self.leave()
        return expunged

    def leave(self) -> None:
        """Leave at once (UNSELECT, a lost connection). Again: no effect."""
        if self._view.sessions.pop(self._tracker, None) is not None:
            self.on_news = None
            self._mailboxes.left(self._view)


def _both(moved: Moved) -> list[Changes]:
    # Within one mailbox it is the same change twice.
    if moved.source is moved.target:
        return [moved.target]
    return [moved.source, moved.target]


def _one(changes: Changes) -> tuple[Changes]:
    return (changes,)


def _uids(uids: Iterable[int]) -> list[UID]:
    return [UID(uid) for uid in uids]


def _slices(uids: Sequence[int]) -> list[list[UID]]:
    return [_uids(uids[at : at + _SLICE]) for at in range(0, len(uids), _SLICE)]
